import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.find import pairs
from data_prep.find.cbis_ddsm import read_case_csvs
from data_prep.remarks import ks_distance, size_remarks
from data_prep.schema import BuildSettings, Lesion, Sample
from data_prep.split import assign_splits
from tests.data_prep.small_pairs import settings_for, write_pairs
from tests.data_prep.trees import SHARED

SETTINGS = BuildSettings(source="pairs", root="x")


def sample(patient: object, number: int = 0, split: str = "", kind: str = "mass", pathology: str = "BENIGN") -> Sample:
    name = f"{patient}_{number}_{split}"
    return Sample(
        sample_id=name, patient_id=str(patient), image=name, lesions=(), kind=kind, pathology=pathology, split=split
    )


def patients_of(samples: list[Sample]) -> dict[str, set[str]]:
    parts: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
    for s in samples:
        parts[s.split].add(s.patient_id)
    return parts


def official(train: int = 40, test: int = 10) -> list[Sample]:
    parts = [("train", train), ("test", test)]
    return [sample(f"{split}{n}", k, split) for split, count in parts for n in range(count) for k in range(2)]


def test_official_test_patients_stay_and_validation_comes_from_training():
    done, rejected = assign_splits(official(), SETTINGS)
    parts = patients_of(done)
    assert not rejected and {len(parts[p]) for p in ("train",)} == {34}
    assert len(parts["val"]) == 6 and all(p.startswith("train") for p in parts["val"])
    assert parts["test"] == {f"test{n}" for n in range(10)}


def test_order_of_samples_does_not_matter_but_the_seed_does():
    samples = official()
    shuffled = random.Random(1).sample(samples, len(samples))
    first = {s.sample_id: s.split for s in assign_splits(samples, SETTINGS)[0]}
    assert {s.sample_id: s.split for s in assign_splits(shuffled, SETTINGS)[0]} == first
    other = assign_splits(samples, SETTINGS.model_copy(update={"split_seed": 1}))[0]
    assert {s.sample_id: s.split for s in other} != first


def test_samples_keep_their_order():
    samples = official()
    assert [s.sample_id for s in assign_splits(samples, SETTINGS)[0]] == [s.sample_id for s in samples]


def test_patient_of_both_official_splits_is_used_in_test_alone():
    samples = [*official(), sample("both", 1, "train"), sample("both", 2, "test")]
    done, rejected = assign_splits(samples, SETTINGS)
    assert [(r.sample_id, r.reason.split(":")[0]) for r in rejected] == [("both_1_train", "split_conflict")]
    assert {s.split for s in done if s.patient_id == "both"} == {"test"}


def test_official_validation_is_kept_and_no_other_is_drawn():
    samples = [replace(s, split="val") if s.patient_id in ("train1", "train2") else s for s in official()]
    assert patients_of(assign_splits(samples, SETTINGS)[0])["val"] == {"train1", "train2"}


def test_without_official_split_all_three_parts_are_drawn_by_patient():
    samples = [sample(n, k) for n in range(50) for k in range(3)]
    done, rejected = assign_splits(samples, SETTINGS)
    parts = patients_of(done)
    assert not rejected and {k: len(v) for k, v in parts.items()} == {"train": 34, "val": 6, "test": 10}
    assert not parts["train"] & parts["val"] and not (parts["train"] | parts["val"]) & parts["test"]


def test_sample_without_split_follows_its_patient_or_trains():
    samples = [*official(), sample("test3", 9), sample("new", 9)]
    done = {s.sample_id: s.split for s in assign_splits(samples, SETTINGS)[0]}
    assert done["test3_9_"] == "test" and done["new_9_"] in ("train", "val")


def test_rare_kinds_reach_validation_in_proportion():
    rare = [sample(f"calc{n}", 0, "train", "calc", "MALIGNANT") for n in range(20)]
    done, _ = assign_splits([*official(80), *rare], SETTINGS)
    counts = Counter(s.kind for s in done if s.split == "val")
    assert counts["calc"] == 3 and counts["mass"] == 2 * 12


def test_three_patients_are_enough_and_two_are_not():
    parts = patients_of(assign_splits([sample(n) for n in range(3)], SETTINGS)[0])
    assert {len(v) for v in parts.values()} == {1}
    with pytest.raises(ValueError, match="at least 3 patients"):
        assign_splits([sample(n) for n in range(2)], SETTINGS)


def test_nothing_in_gives_nothing_out():
    assert assign_splits([], SETTINGS) == ([], [])


def test_unknown_split_is_a_mistake_of_the_user():
    with pytest.raises(ValueError, match=r"\['dev'\].*'train', 'val', 'test'"):
        assign_splits([sample(1, split="dev")], SETTINGS)


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["", "train", "val", "test"])), min_size=1, max_size=60),
    st.integers(0, 5),
)
def test_no_patient_is_ever_in_two_parts_and_no_sample_is_lost(rows, seed):
    samples = [sample(patient, n, split) for n, (patient, split) in enumerate(rows)]
    try:
        done, rejected = assign_splits(samples, SETTINGS.model_copy(update={"split_seed": seed}))
    except ValueError as error:
        assert "at least 3 patients" in str(error)
        return
    parts = patients_of(done)
    assert sum(len(p) for p in parts.values()) == len(set.union(*parts.values()))
    assert sorted(s.sample_id for s in [*done, *rejected]) == sorted(s.sample_id for s in samples)
    assert {s.split for s in done} <= {"train", "val", "test"}


def test_the_31_patients_of_both_official_splits_are_in_test_alone():
    folder = SHARED / "data" / "cbis_ddsm_csv"
    if not folder.exists():
        pytest.skip("the official CSVs are not beside this checkout")
    cases = read_case_csvs(str(folder)).drop_duplicates("image_name")
    samples = [
        Sample(
            sample_id=c.image_name,
            patient_id=c.patient_id,
            image=c.image_name,
            lesions=(),
            kind=c.kind,
            pathology=c.pathology,
            split=c.split,
        )
        for c in cases.itertuples()
    ]
    done, rejected = assign_splits(samples, SETTINGS)
    parts = patients_of(done)
    assert len({s.patient_id for s in samples if s.split == "train"} & parts["test"]) == 31
    assert len(done) + len(rejected) == 3103 and len(parts["test"]) == 349
    assert not (parts["train"] | parts["val"]) & parts["test"] and not parts["train"] & parts["val"]
    assert len(parts["val"]) == pytest.approx(0.15 * len(parts["train"] | parts["val"]), abs=1)
    kinds = {p: Counter(s.kind for s in done if s.split == p) for p in ("train", "val")}
    shares = [count["mass"] / sum(count.values()) for count in kinds.values()]
    assert shares[0] == pytest.approx(shares[1], abs=0.03)


def test_splits_are_drawn_by_lesion_size_too(tmp_path):
    """Over many seeds, splits drawn by size are nearer to each other than splits that know no size."""
    rng = np.random.default_rng(0)
    samples = [
        Sample(
            sample_id=f"s{n}",
            patient_id=f"p{n}",
            image="x",
            lesions=(Lesion(lesion_id="1", mask="m", extent=float(rng.lognormal())),),
        )
        for n in range(60)
    ]
    blind = {s.sample_id: s.lesions[0].extent for s in samples}
    unsized = [replace(s, lesions=(replace(s.lesions[0], extent=None),)) for s in samples]
    distances = {"by size": [], "blind": []}
    for seed in range(30):
        drawn = BuildSettings(split_seed=seed)
        for name, chosen in (("by size", samples), ("blind", unsized)):
            split = {s.sample_id: s.split for s in assign_splits(chosen, drawn)[0]}
            sizes = {p: [blind[i] for i, at in split.items() if at == p] for p in ("train", "test")}
            distances[name].append(ks_distance(sizes["train"], sizes["test"]))
    assert np.mean(distances["by size"]) < 0.75 * np.mean(distances["blind"])


def test_pairs_are_split_by_the_sizes_of_their_masks(tmp_path):
    root = write_pairs(tmp_path / "pairs")
    found = pairs.find_samples(settings_for(root))
    extents = [lesion.extent for sample in found.samples for lesion in sample.lesions]
    assert len(extents) == 16 and all(0.001 < extent < 0.02 for extent in extents)


@pytest.mark.parametrize(("factor", "told"), [(1.0, False), (2.0, True)])
def test_splits_whose_lesion_sizes_differ_are_told(factor, told):
    rng = np.random.default_rng(1)
    train, val = rng.lognormal(2, 0.5, 150), factor * rng.lognormal(2, 0.5, 40)
    remarks = size_remarks({"train": list(train), "val": list(val), "test": []})
    assert bool(remarks) == told
    assert not told or "lesions of val are of other sizes than those of train" in remarks[0]


def test_a_few_lesions_are_no_reason_for_a_word():
    assert not size_remarks({"train": [10.0, 12.0], "val": [30.0], "test": [5.0, 6.0]})
