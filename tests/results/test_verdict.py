import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import results
from cluster.storage import Folder
from results.verdict import judge
from tests.results.example_study import write_trial

ENCODERS = ("inceptionv3", "seresnet50", "mobilenet", "vgg19")
PARAMETERS = dict(zip(ENCODERS, (29.9e6, 35.05e6, 8.31e6, 29.06e6), strict=True))


def study_of(levels: list[float], *, seeds: int = 3, patients: int = 40) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of a study whose finals have these test Dice."""
    rng = np.random.default_rng(0)
    patient_P = rng.normal(0, 0.15, patients)
    trials, images = [], []
    for name, level in zip(ENCODERS, levels, strict=False):
        for seed in range(seeds):
            trial_id = f"{name}/{seed}"
            cost = {
                "parameters": PARAMETERS[name],
                "slot_s": PARAMETERS[name] / 1e5,
                "usd": 40 - PARAMETERS[name] / 1e6,
            }
            trials.append({"trial_id": trial_id, "final": name, "encoder": name, "role": "final", **cost})
            dice = np.clip(level + patient_P + rng.normal(0, 0.01) + rng.normal(0, 0.05, patients), 0, 1)
            rows = {"sample_id": [f"s{p}" for p in range(patients)], "patient_id": [f"p{p}" for p in range(patients)]}
            images.append(pd.DataFrame({**rows, "dice": dice, "final": name, "trial_id": trial_id}))
    return pd.DataFrame(trials), pd.concat(images, ignore_index=True)


def test_the_best_alone_is_named_with_its_interval() -> None:
    verdict = judge(*study_of([0.7, 0.4, 0.5]))
    assert verdict.sentence.startswith("inceptionv3 is the best of three finals: test Dice 0.")
    assert " to " in verdict.sentence
    assert list(verdict.finals.tied) == [True, False, False]
    assert verdict.cheapest == "inceptionv3"


def test_of_tied_finals_the_cheapest_is_named_by_parameters_seconds_or_dollars() -> None:
    trials, images = study_of([0.6, 0.6, 0.6, 0.3])
    by_size = judge(trials, images).sentence
    assert by_size.startswith("Three of four finals cannot be told apart (")
    assert by_size.endswith("; mobilenet is the cheapest, 8.31M parameters.")
    assert judge(trials, images, cheapest_by="seconds").cheapest == "mobilenet"
    assert judge(trials, images, cheapest_by="dollars").sentence.endswith("seresnet50 is the cheapest, $4.95.")


def test_two_that_are_tied_are_all_of_them() -> None:
    sentence = judge(*study_of([0.6, 0.6])).sentence
    assert sentence.startswith("The two finals cannot be told apart")
    assert "seresnet50 is the cheaper" in sentence or "inceptionv3 is the cheaper, 29.90M parameters" in sentence


def test_one_seed_compares_networks_and_shows_no_ties() -> None:
    verdict = judge(*study_of([0.7, 0.3], seeds=1))
    assert "with one seed each this compares these networks, not their configurations" in verdict.sentence
    assert verdict.finals.tied.isna().all()
    assert verdict.cheapest is None


def test_few_patients_tell_nothing_apart() -> None:
    verdict = judge(*study_of([0.7, 0.3], patients=9))
    assert verdict.sentence.endswith("; 9 patients are too few to tell finals apart.")
    assert verdict.finals.p.isna().all()


def test_one_final_has_nothing_to_be_compared_with() -> None:
    sentence = judge(*study_of([0.7])).sentence
    assert sentence.startswith("One final, inceptionv3: test Dice 0.")
    assert "nothing to compare it with" in sentence


def test_only_images_that_every_final_was_tested_on_count() -> None:
    trials, images = study_of([0.7, 0.4])
    cut = images[~((images.final == "seresnet50") & images.sample_id.isin([f"s{n}" for n in range(10)]))]
    assert "30 images of 30 patients" in judge(trials, cut).explained[0]


def test_every_seed_is_told_with_its_own_mean() -> None:
    trials, images = study_of([0.7, 0.4])
    row = judge(trials, images).finals.iloc[0]
    assert row.network_dice == pytest.approx(tuple(images[images.final == row.final].groupby("trial_id").dice.mean()))
    assert row.dice == pytest.approx(np.mean(row.network_dice))
    assert row.low < row.dice < row.high


def test_before_a_final_is_tested_the_best_trial_is_named(study: Path, tmp_path: Path) -> None:
    verdict = results.verdict_of(str(study))  # its finals have no rows of their images
    assert verdict.sentence == (
        "No final is tested image by image yet; "
        "the best of 8 complete trials is 0005 (mobilenet), validation Dice 0.700."
    )
    assert verdict.finals.empty
    write_trial(Folder(tmp_path / "trials" / "0000"), role="baseline", status="running", dice=(0.1,))
    assert results.verdict_of(str(tmp_path)).sentence == "No trial is complete yet."


def test_a_study_on_disk_has_its_verdict(synthetic: Path) -> None:
    verdict = results.verdict_of(str(synthetic))
    assert len(verdict.finals) == 3
    assert verdict.finals.p.max() == 1
    assert "3 seeds each" in verdict.explained[0]
    assert not math.isnan(verdict.finals.parameters.iloc[0])


def test_a_damaged_file_of_one_seed_is_named_and_the_rest_compared(synthetic: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(synthetic, tmp_path / "copy")
    broken = sorted(copy.glob("final/*/2/test.parquet"))[0]
    broken.write_bytes(b"nonsense")
    images = results.load_images(str(copy))
    assert len(images.attrs["problems"]) == 1
    assert str(broken.relative_to(copy / "final").parent) in images.attrs["problems"][0]
    assert "2 to 3 seeds each" in results.verdict_of(str(copy)).explained[0]
