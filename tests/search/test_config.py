"""A settings file is read whole, and all of its mistakes are told at once."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.settings.problems import Problem
from cluster.settings.source import SettingsError
from cluster.settings.yaml_lines import parse
from search.settings.config import StudyConfig, load_study_config
from search.settings.outside import outside

ROOT = Path(__file__).resolve().parents[2]
SMALLEST = "data: {shards: shards/x}\nspace: {encoder: [vgg19, mobilenet]}\n"


def load(tmp_path: Path, text: str) -> StudyConfig:
    file = tmp_path / "study.yaml"
    file.write_text(text)
    return load_study_config(file)


def mistakes(tmp_path: Path, text: str) -> dict[str, str]:
    """Key path -> the rest of its line; the line number comes first in it."""
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text)
    lines = str(caught.value).splitlines()[1:]
    parts = [re.fullmatch(r".*study\.yaml:(\d+)  ([^:]*): (.*)", line) for line in lines]
    assert all(parts), lines
    found = {part[2]: f"{part[1]} {part[3]}" for part in parts if part}
    assert len(found) == len(lines)
    return found


def test_two_lines_are_a_study(tmp_path):
    config = load(tmp_path, SMALLEST)
    assert config.name == "study"
    assert config.out == "runs/study"
    assert config.placement_rule.pool == "cpu"
    assert config.baseline_encoders == ("vgg19", "mobilenet")
    assert [o.metric for o in config.objective] == ["val_dice"] and config.objective[0].maximise


def test_six_different_mistakes_are_listed_in_one_message(tmp_path):
    found = mistakes(
        tmp_path,
        """\
data: {shards: shards/x}
space:
  encoder: [vgg19]
  dice_weight: {low: 0.9, high: 0.1}
  batch_size: [8, 9]
  momentum: {low: 0.8, high: 0.9, when: {optimizer: sgd}}
bugdet: {trials: 3}
sampler: {name: tpee}
pools: [t4x2, v100]
placement: t4x2
""",
    )
    assert (
        found["space.dice_weight.low"]
        == "4 the range is empty (high is 0.1) (got 0.9); allowed: low below high, both finite"
    )
    assert found["space.batch_size"].startswith("5 9 is not divisible by the 2 workers of pool t4x2")
    assert found["space.momentum.when.optimizer"].startswith('6 unknown setting (got "sgd"); did you mean optimiser?')
    assert found["bugdet"].startswith("7 unknown key; did you mean budget?")
    assert (
        found["sampler.name"]
        == '8 not one of the choices (got "tpee"); did you mean tpe? allowed: tpe, forecast, gp, random, grid, nsga2'
    )
    assert found["pools.2"].startswith('9 unknown pool (got "v100"); did you mean p100? allowed: cpu, p100, t4, t4x2')
    assert len(found) == 6


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        ("budget: {trials: '3'}", "budget.trials", 'not a whole number (got "3")'),
        ("budget: {trials: true}", "budget.trials", "not a whole number (got true)"),
        ("budget: {trials: 1.5}", "budget.trials", "not a whole number (got 1.5)"),
        ("budget: {trials: 1}", "budget.trials", "fewer than the 2 baselines (got 1); allowed: at least 2"),
        ("budget: [3]", "budget", "not a mapping"),
        ("fixed: {dice_weight: 1.5}", "fixed.dice_weight", "above 1, but iou_weight is 1 - dice_weight"),
        ("fixed: {epochs: 3}", "fixed.epochs", "decided by budget.epochs"),
        ("fixed: {encoder: vgg19}", "fixed.encoder", "searched too"),
        (
            "fixed: {decoder: unett}",
            "fixed.decoder",
            'unknown decoder (got "unett"); did you mean unet? allowed: unet, unetplusplus',
        ),
        ("fixed: {warmup_epochs: 10}", "fixed.warmup_epochs", "10 is not below budget.epochs = 10"),
        ("fixed: {accumulation: 3}", "space.batch_size", "8 is not divisible by accumulation 3"),
        ("fixed: {learning_rate: -1.0}", "fixed.learning_rate", "too small (got -1.0); allowed: above 0"),
        ("objective: val_dyce", "objective", 'not one of the choices (got "val_dyce")'),
        ("objective: [val_dice, val_dice]", "objective.2", "named twice"),
        ("objective: parameters", "objective", "parameters alone are known without training"),
        ("pruner: {grace_epochs: 11}", "pruner.grace_epochs", "above budget.epochs = 10"),
        ("placement: gpu", "placement", "gpu is not in pools"),
        ("placement: {rule: by_size}", "placement.up_to_million", "missing"),
        ("final: {pool: a100}", "final.pool", "a100 is not in pools"),
        ("pools: [cpu, cpu]", "pools.2", "listed twice"),
        ("pools: []", "pools", "too few (got []); allowed: at least 1"),
        (
            "pools: [{name: mine, gpus_per_worker: 2}]",
            "pools.1.gpus_per_worker",
            "too large (got 2); allowed: at most 1",
        ),
        ("baselines: [resnet18]", "baselines.1", "not an encoder of the space"),
        ("baselines: 3", "baselines", "neither true, false nor a list (got 3)"),
        ("study: {repeats: maybe}", "study.repeats", "not one of the choices"),
        ("study: {name: a/b}", "study.name", "not of the right form"),
        ("failures: {retries: -1}", "failures.retries", "too small (got -1); allowed: at least 0"),
    ],
)
def test_a_mistake_names_line_key_value_and_what_is_allowed(tmp_path, text, key, said):
    found = mistakes(tmp_path, SMALLEST + text + "\n")
    assert list(found) == [key], found
    line = 2 if key.startswith("space") else 3
    assert found[key].startswith(f"{line} {said}"), found[key]
    assert "allowed: " in found[key]


@pytest.mark.parametrize(
    ("axis", "said"),
    [
        ("learning_rate: 0.1", "space.learning_rate 3 a single value is not an axis"),
        ("learning_rate: {low: 0.1}", "space.learning_rate 3 high is missing"),
        ("learning_rate: {low: 0.1, high: 0.2, lgo: true}", "space.learning_rate.lgo 3 unknown key"),
        ("learning_rate: {low: 0.1, high: 20.0}", "space.learning_rate.high 3 too large (got 20.0)"),
        ("schedule: {low: 1, high: 2}", "space.schedule.low 3 not a number, so it has no range"),
        ("batch_size: {low: 1.5, high: 8}", "space.batch_size.low 3 not a whole number"),
        ("batch_size: {low: 2, high: 8, step: 0.5}", "space.batch_size.step 3 not a whole number"),
        ("batch_size: [8, eight]", "space.batch_size.2 3 not a whole number"),
        ("optimiser: [adam, adma]", 'space.optimiser.2 3 not one of the choices (got "adma")'),
        ("optimizer: [adam]", "space.optimizer 3 unknown setting"),
        ("seed: [1, 2]", "space.seed 3 decided by study.seed"),
        ("momentum: {low: 0.1, high: 0.2, when: {optimiser: sgd}}", "space.momentum.when.optimiser 3 never met"),
        (
            "momentum: {low: 0.1, high: 0.2, when: {encoder: vgg16}}",
            "space.momentum.when.encoder 3 vgg16 is no value of encoder",
        ),
        ("momentum: {low: 0.1, high: 0.2, when: {momentum: 0.1}}", "space.momentum.when.momentum 3 an axis cannot"),
    ],
)
def test_a_mistaken_axis_is_told(tmp_path, axis, said):
    found = mistakes(tmp_path, f"data: {{shards: x}}\nspace:\n  {axis}\n  encoder: [vgg19, mobilenet]\n")
    (told,) = (f"{key} {rest}" for key, rest in found.items())
    assert told.startswith(said)


def test_a_condition_on_a_range_and_a_circle_are_told(tmp_path):
    text = SMALLEST.replace(
        "{encoder",
        "{dice_weight: {low: 0.0, high: 1.0}, bce_weight: {choices: [1.0], when: {dice_weight: 0.5}}, encoder",
    )
    assert mistakes(tmp_path, text)["space.bce_weight.when.dice_weight"].startswith("2 a condition on a range")
    circle = (
        "optimiser: {choices: [adam], when: {schedule: step}}, schedule: {choices: [step], when: {optimiser: adam}}"
    )
    found = mistakes(tmp_path, SMALLEST.replace("{encoder", f"{{{circle}, encoder"))
    assert "circle" in found["space"]


def test_a_grid_over_a_continuous_axis_is_told(tmp_path):
    text = SMALLEST.replace("]}", "], dice_weight: {low: 0.0, high: 1.0}}") + "sampler: {name: grid}\n"
    assert list(mistakes(tmp_path, text)) == ["space.dice_weight"]


def test_a_normalisation_that_is_not_built_is_told(tmp_path):
    text = "data: {build: {normalisations: [clahe]}}\nspace: {normalisation: [clahe, zscore]}\n"
    assert mistakes(tmp_path, text)["space.normalisation"].startswith("2 zscore is not built")


def test_syntax_errors_and_repeated_keys_have_their_line(tmp_path):
    with pytest.raises(SettingsError, match=r"study\.yaml:4  .*expected"):
        load(tmp_path, SMALLEST + "pools: [cpu\nfinal: {}\n")
    found = mistakes(tmp_path, SMALLEST + "budget: {trials: 3}\nbudget: {trials: 4}\n")
    assert found == {"budget": "4 given twice; first on line 3"}


@pytest.mark.parametrize("text", ["", "- a\n", "just words\n", "data: [\n", "a: b: c\n", "\tx: 1\n", "&a [*a, *b]\n"])
def test_a_file_that_is_no_mapping_is_refused_with_its_line(tmp_path, text):
    with pytest.raises(SettingsError, match=r"study\.yaml:\d+  "):
        load(tmp_path, text)


def test_missing_sections_are_told_together(tmp_path):
    found = mistakes(tmp_path, "budget: {trials: 3}\n")
    assert set(found) == {"data", "space"}


def test_numbers_and_words_are_read_as_people_mean_them():
    value = parse("{a: 1e-3, b: 1E4, c: no, d: off, e: .5, f: 2024-01-01, g: true, h: 1_0}").value
    assert value == {"a": 0.001, "b": 10000.0, "c": "no", "d": "off", "e": 0.5, "f": "2024-01-01", "g": True, "h": 10}


def test_a_study_survives_writing_and_reading(tmp_path):
    for file in (ROOT / "nas.yaml", *(ROOT / "configs").glob("*.yaml")):
        config = load_study_config(file)
        again = StudyConfig.model_validate(config.model_dump(mode="json"))
        assert again.model_dump() == config.model_dump()
        assert again.search_space == config.search_space
        assert again.search_space.size() == config.search_space.size()


def test_pools_can_be_named_changed_and_described(tmp_path):
    text = "pools: [p100, {name: t4, spot: true, max_slots: 3}, {name: mine, workers: 2}]\nplacement: auto\n"
    config = load(tmp_path, SMALLEST + text)
    p100, t4, mine = config.pools
    assert p100.accelerator == "P100" and p100.price == p100.usd_per_hour
    assert (t4.max_slots, t4.price) == (3, t4.spot_usd_per_hour)
    assert mine.cpus == 2 and mine.price == 0


def test_the_default_shard_folder_depends_on_what_makes_it(tmp_path):
    build = "data: {build: {size_px: %d}}\nspace: {encoder: [vgg19]}\n"
    folders = {load(tmp_path, build % size).data.folder for size in (64, 96)}
    assert len(folders) == 2
    assert load(tmp_path, build % 64).data.folder in folders


def test_problems_found_later_have_the_lines_of_the_file(tmp_path):
    config = load(tmp_path, SMALLEST)
    error = config.error([Problem(("space", "encoder", "choices", 1), "cannot be built", "another")])
    assert 'study.yaml:2  space.encoder.2: cannot be built (got "mobilenet"); allowed: another' in str(error)


def test_trackers_are_named_on_one_line(tmp_path):
    assert load(tmp_path, SMALLEST + "track: [tensorboard]").track == ["tensorboard"]
    assert load(tmp_path, SMALLEST).track == []


def test_a_tracker_that_is_unknown_named_twice_or_not_installed_is_told_before_anything_starts(tmp_path, monkeypatch):
    assert "neptune" in mistakes(tmp_path, SMALLEST + "track: [neptune]")["track.1"]
    assert "named twice" in mistakes(tmp_path, SMALLEST + "track: [tensorboard, tensorboard]")["track.2"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'mammosearch[mlflow]'" in mistakes(tmp_path, SMALLEST + "track: [mlflow]")["track.1"]


def test_what_is_named_and_not_there_is_told_beside_all_other_mistakes(tmp_path):
    text = """\
data: {build: {source: pairs, root: /nowhere/pairs}}
space: {encoder: [vgg19, mobilnet, tu-resnet50.a1_in1k, resnet18d], learning_rate: {low: 2.0, high: 1.0}}
fixed: {encoder_weights: /nowhere/w.pth}
budget: {trials: 0}
warm_start: [/nowhere/study, s3://bucket/study]
"""
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_study_config(tmp_path / "study.yaml", also=outside)
    assert str(caught.value).replace(f"{tmp_path}/", "").splitlines() == [
        "study.yaml has 7 mistakes:",
        'study.yaml:1  data.build.root: there is no such file or folder (got "/nowhere/pairs"); allowed: one that '
        "exists",
        "study.yaml:2  space.learning_rate.low: the range is empty (high is 1.0) (got 2.0); allowed: low below high, "
        "both finite",
        'study.yaml:2  space.encoder.2: unknown encoder (got "mobilnet"); did you mean mobilenet?',
        'study.yaml:2  space.encoder.4: unknown encoder (got "resnet18d"); did you mean tu-resnet18d?',
        'study.yaml:3  fixed.encoder_weights: there is no such file (got "/nowhere/w.pth"); allowed: a file of '
        "weights, imagenet, or null",
        "study.yaml:4  budget.trials: too small (got 0); allowed: at least 1",
        'study.yaml:5  warm_start.1: holds no study (got "/nowhere/study"); allowed: the folder of an earlier study',
    ]


def test_a_study_whose_shards_are_there_needs_no_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    text = "data: {shards: shards, build: {source: pairs, root: /nowhere}}\nspace: {encoder: [vgg19]}\n"
    (tmp_path / "study.yaml").write_text(text)
    load_study_config("study.yaml", also=outside)
    (tmp_path / "study.yaml").write_text("data: {shards: none}\nspace: {encoder: [vgg19]}\n")
    with pytest.raises(SettingsError, match=r"data\.shards: there is no such folder"):
        load_study_config("study.yaml", also=outside)


def test_a_mistake_is_told_before_torch_ray_optuna_or_pandas_are_loaded(tmp_path):
    (tmp_path / "study.yaml").write_text("data: {shards: .}\nspace: {encoder: [mobilnet]}\n")
    code = (
        "import sys, typer.testing, search.run as run; "
        f"done = typer.testing.CliRunner().invoke(run.app, ['--space', {str(tmp_path / 'study.yaml')!r}]); "
        "assert done.exit_code == 2 and 'unknown encoder' in done.output, done.output; "
        "print(*{'torch', 'ray', 'optuna', 'pandas', 'timm', 'cv2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
