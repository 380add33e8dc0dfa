"""A dry run says what a study would do, need and cost, and every mistake with its line, and trains nothing."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from cluster.settings.source import SettingsError
from search.bill.dry_run import dry_run, expected_epochs
from search.bill.show import hours, print_dry_run, show
from search.settings.config import load_study_config
from tests.file_tree import ROOT

STUDY = """\
data:
  build: {source: phantom, size_px: 64}
space:
  encoder: [mobilenet, vgg19]
  batch_size: [8, 16]
  dice_weight: {low: 0.0, high: 1.0}
budget: {trials: 10, epochs: 9}
pruner: {grace_epochs: 1, reduction_factor: 3}
pools: [{name: t4, usd_per_hour: 3.6, fast_precision: fp32}]
final: {top: 3, epochs: 20}
"""


def load(tmp_path: Path, text: str):
    (tmp_path / "study.yaml").write_text(text)
    return load_study_config(tmp_path / "study.yaml")


def test_the_bill_adds_up(tmp_path):
    report = dry_run(load(tmp_path, STUDY))
    assert not report.problems
    baselines, search, finals = report.parts
    assert (baselines.trials, baselines.epochs) == (2, 18)
    assert (search.trials, search.epochs) == (8, 8 * (1 + 2 / 3 + 6 / 9))
    assert (finals.trials, finals.epochs) == (6, 120)  # two encoders, so two winners, with three seeds each
    mean_s = sum(row.epoch_s for row in report.rows) / len(report.rows)
    assert baselines.slot_h == pytest.approx(18 * mean_s / 3600)
    assert report.usd == pytest.approx(3.6 * sum(part.slot_h for part in report.parts))


def test_finals_that_go_on_from_their_trials_are_billed_for_their_new_epochs(tmp_path):
    report = dry_run(load(tmp_path, STUDY.replace("epochs: 20", "epochs: 20, seeds: 1")))
    assert (report.parts[2].trials, report.parts[2].epochs) == (2, 22)
    assert "11 of its 20 epochs are new" in "\n".join(report.notes)
    stretched = STUDY.replace("epochs: 20", "epochs: 20, seeds: 1") + "fixed: {schedule: cosine}\n"
    report = dry_run(load(tmp_path, stretched))
    assert (report.parts[2].trials, report.parts[2].epochs) == (2, 40)


@pytest.mark.parametrize(
    ("loss", "warned"), [("", True), ("fixed: {tversky_weight: 1}\n", True), ("fixed: {bce_weight: 0.2}\n", False)]
)
def test_images_without_a_lesion_under_a_loss_that_they_teach_nothing_are_warned_of(tmp_path, loss, warned):
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    data = f"build: {{source: pairs, root: {pairs}, healthy: keep, size_px: 64}}"
    report = dry_run(load(tmp_path, STUDY.replace("build: {source: phantom, size_px: 64}", data) + loss))
    assert any("without a lesion will teach next to nothing" in note for note in report.notes) == warned


def test_every_model_is_there_at_its_real_size(tmp_path):
    report = dry_run(load(tmp_path, STUDY))
    assert {row.encoder: row.parameters for row in report.rows} == {"mobilenet": 8_312_465, "vgg19": 29_057_937}
    for row in report.rows:
        assert row.batch_sizes == (8, 16)
        assert row.need_gb[0] < row.need_gb[1] < row.limit_gb
    assert report.data.samples is not None and not report.data.built


def test_what_is_printed_has_rungs_memory_hours_and_dollars(tmp_path):
    text = io.StringIO()
    show(dry_run(load(tmp_path, STUDY)), Console(file=text, width=140))
    for words in ("compared after epochs 1, 3", "8.31", "memory", "by the clock", "dollars", "to be built"):
        assert words in text.getvalue()


def test_mistakes_that_need_the_models_have_their_line_and_come_after_the_tables(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    text = STUDY.replace("[mobilenet, vgg19]", "[mobilenet, tu-vit_tiny_patch16_224]")
    text = text.replace("source: phantom", "source: pairs, root: /nowhere") + "fixed: {encoder_weights: imagenet}\n"
    out = io.StringIO()
    with pytest.raises(SettingsError) as caught:
        print_dry_run(load(tmp_path, text), Console(file=out, width=140))
    said = str(caught.value)
    assert 'study.yaml:2  data.build.root: there is no such file or folder (got "/nowhere")' in said
    assert "study.yaml:4  space.encoder.2: encoder 'tu-vit_tiny_patch16_224' cannot be used with decoder 'unet'" in said
    assert "study.yaml:11  fixed.encoder_weights:" in said
    assert "the bill" in out.getvalue()


def test_a_trial_that_fits_no_pool_is_told_before_anything_starts(tmp_path):
    text = STUDY.replace("usd_per_hour: 3.6", "gpu_memory_gb: 1.0").replace("[8, 16]", "[8, 256]")
    report = dry_run(load(tmp_path, text))
    assert any("mobilenet with unet (8.31M parameters), batch 256: fits no pool" in p.message for p in report.problems)


def test_a_missing_shard_folder_is_told(tmp_path):
    report = dry_run(load(tmp_path, STUDY.replace("build: {source: phantom, size_px: 64}", f"shards: {tmp_path}/none")))
    assert [p.path for p in report.problems] == [("data", "shards")]


def test_without_pruning_every_trial_trains_in_full(tmp_path):
    config = load(tmp_path, STUDY.replace("{grace_epochs: 1, reduction_factor: 3}", "{name: none}"))
    assert expected_epochs(config) == 9


def test_a_baseline_that_is_not_the_papers_is_said(tmp_path):
    report = dry_run(load(tmp_path, STUDY.replace("[8, 16]", "[16, 32]")))
    assert report.notes[0] == "the baseline of mobilenet differs from the paper's setting: batch_size 16"


@pytest.mark.parametrize("study", ["nas.yaml", "configs/paper.yaml", "long"])
def test_at_80_columns_every_figure_has_its_digits(tmp_path, study):
    if study == "long":
        text = STUDY.replace("[mobilenet, vgg19]", "[tu-swinv2_cr_tiny_ns_224, tu-mobilenetv4_conv_small_050]")
        text = text.replace("name: t4,", "name: a_pool_of_our_very_own, gpus_per_worker: 1, gpu_memory_gb: 15.75,")
        text = text.replace("fast_precision: fp32", "tflops: 0.123").replace("trials: 10", "trials: 100000")
        config = load(tmp_path, text)
    else:
        config = load_study_config(ROOT / study)
    out = io.StringIO()
    report = dry_run(config)
    show(report, Console(file=out, width=80))
    text = out.getvalue()
    assert "…" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    for row in report.rows:
        assert f"{row.parameters / 1e6:.2f}" in text
        assert row.encoder[:7] in text
    for part in report.parts:
        assert f"{part.epochs:.0f}" in text


def test_the_bill_has_the_time_by_the_clock(tmp_path):
    text = STUDY.replace(
        "pools: [{name: t4, usd_per_hour: 3.6, fast_precision: fp32}]", "pools: [{name: t4, max_slots: 3}]"
    )
    report = dry_run(load(tmp_path, text))
    assert report.slots == 3
    baselines, search, finals = report.parts
    assert baselines.wall_h == pytest.approx(baselines.slot_h / 2)  # two at once: there are no more
    assert search.wall_h == pytest.approx(search.slot_h * 3 / 8)  # eight in three rounds
    assert finals.wall_h == pytest.approx(finals.slot_h / 3)  # two winners with three seeds each
    unknown = dry_run(load(tmp_path, STUDY))
    assert unknown.slots is None and unknown.parts[0].wall_h is None


def test_times_are_said_in_the_unit_that_people_use():
    assert [hours(h) for h in (0.0, 40 / 3600, 0.2, 1.9, 2.0, 34.5, None)] == [
        "0 s",
        "40 s",
        "12 min",
        "114 min",
        "2.0 h",
        "34.5 h",
        "?",
    ]


def test_an_earlier_study_that_is_not_there_is_told_by_a_dry_run_too(tmp_path):
    config = load(tmp_path, STUDY + f"warm_start: [{tmp_path}/none]\n")
    assert [p.path for p in dry_run(config).problems] == [("warm_start", 0)]
