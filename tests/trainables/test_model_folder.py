"""The model folder: written from a trial, read back alone, and refused where it is not what it says."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
import yaml

from cluster.storage import Folder
from tests.clinic.fakes import CHOSEN_CUT, card, write_small_model, write_trial
from trainables.config import TrialConfig
from trainables.model.folder import load_network, read_weights, write_model
from trainables.model.info import read_info
from trainables.net.architecture import Architecture
from trainables.net.models import build_model
from trainables.net.vision_ops import smp
from trainables.record import TrialRecord
from trainables.score.tables import write_scores


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
def model(packed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "small"))


def test_the_network_of_the_folder_gives_what_the_trials_network_gave(packed: Path):
    trial = packed.parent / "small-trial"
    was = build_model(Architecture(encoder="tu-test_efficientnet", decoder="linknet", image_size_px=64))
    was.load_state_dict(safetensors.torch.load_file(trial / "weights.safetensors"))
    now = load_network(Folder(packed), read_info(Folder(packed)))
    image_B1HW = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        assert torch.equal(was.eval()(image_B1HW), now(image_B1HW))


def test_the_weights_have_the_names_of_smp_and_load_there_alone(packed: Path):
    info = read_info(Folder(packed))
    net = smp.create_model("linknet", "tu-test_efficientnet", encoder_weights=None, decoder_use_norm={
        "type": "batchnorm", "eps": 1e-3, "momentum": 0.01})  # fmt: skip
    net.load_state_dict(safetensors.torch.load_file(packed / "weights.safetensors"))
    image_B1HW = torch.rand(1, 1, 64, 64)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (info.network.mean, info.network.std))
    with torch.inference_mode():
        ours = load_network(Folder(packed), info)(image_B1HW)
        assert torch.equal(net.eval()((image_B1HW - mean) / std), ours)


def test_the_folder_says_what_the_model_was_made_for(packed: Path):
    info = read_info(Folder(packed))
    assert info.preprocessing.model_dump() == {
        "field_of_view": "whole",
        "lesion_margin": 0.5,
        "size_px": 64,
        "normalisation": "minmax",
        "crop_to_breast": True,
        "orient": True,
        "window": "header",
    }
    assert (info.name, info.epoch, info.threshold, info.data.fingerprint) == ("small", 2, 0.5, "2" * 64)
    measures = json.loads((packed / "metrics.json").read_text())
    assert measures["val"]["dice"] == 0.6
    assert measures["test"]["images"] == 12


def test_a_cut_that_validation_chose_is_the_models(tmp_path: Path):
    write_model(Folder(tmp_path / "model"), write_trial(tmp_path / "trial", threshold="validation"), card())
    assert read_info(Folder(tmp_path / "model")).threshold == CHOSEN_CUT


def test_the_card_has_the_block_that_hugging_face_reads(packed: Path):
    _, block, text = (packed / "MODEL_CARD.md").read_text().split("---\n", 2)
    data = yaml.safe_load(block)
    assert data["pipeline_tag"] == "image-segmentation"
    assert {m["type"]: m["value"] for m in data["model-index"][0]["results"][0]["metrics"]} == {
        "dice": 0.55,
        "iou": 0.4,
    }
    assert "never seen a patient" in text
    assert "not to decide about" in text


def test_the_folder_says_how_sure_its_measures_are_and_for_whom(tmp_path: Path):
    record = write_trial(tmp_path / "t")
    write_scores_of(record, patients=14)
    write_model(Folder(tmp_path / "m"), record, card())
    test = json.loads((tmp_path / "m" / "metrics.json").read_text())["test"]
    low, high = test["intervals"]["dice"]
    assert 0 < low < test["measures"]["dice"] < high < 1
    assert [(row["group"], row["images"]) for row in test["groups"]["view"]] == [("CC", 14), ("MLO", 14)]
    text = (tmp_path / "m" / "MODEL_CARD.md").read_text()
    assert "| view | MLO | 14 | 14 |" in text
    assert f"({low:.3f} to {high:.3f})" in text


def test_a_group_that_is_everybody_is_not_told(tmp_path: Path):
    record = write_trial(tmp_path / "t")
    write_scores_of(record, patients=2)
    write_model(Folder(tmp_path / "m"), record, card())
    test = json.loads((tmp_path / "m" / "metrics.json").read_text())["test"]
    assert "density" not in test["groups"]
    assert test["intervals"] == {}, "two patients are too few for an interval"


def write_scores_of(record: TrialRecord, *, patients: int) -> None:
    """`test.parquet` of two views a patient, with a square that is found more or less."""
    rng = np.random.default_rng(0)
    masks_NHW = np.zeros((2 * patients, 32, 32), np.uint8)
    found_NHW = np.zeros(masks_NHW.shape, np.float32)
    masks_NHW[:, 8:20, 8:20] = 1
    for number, edge in enumerate(rng.integers(10, 24, len(masks_NHW))):
        found_NHW[number, 8:edge, 8:20] = 0.9
    rows = [
        {"sample_id": f"{n}", "patient_id": f"p{n // 2}", "view": ("CC", "MLO")[n % 2], "density": 2, "kind": "mass"}
        for n in range(len(masks_NHW))
    ]
    samples = SimpleNamespace(images_NHW=np.arange(len(rows)), masks_NHW=masks_NHW, table=pd.DataFrame(rows))
    write_scores(record.folder, lambda numbers: found_NHW[numbers], samples, split="test", threshold=0.5)


def test_a_model_that_was_not_tested_claims_no_test_figure(tmp_path: Path):
    write_model(Folder(tmp_path / "m"), write_trial(tmp_path / "t", test=False), card())
    text = (tmp_path / "m" / "MODEL_CARD.md").read_text()
    assert "model-index" not in text
    assert "| test |" not in text


def test_nothing_in_the_folder_is_a_pickle(packed: Path):
    assert {file.suffix for file in packed.iterdir()} == {".json", ".md", ".safetensors"}
    assert not any(file.read_bytes()[:2] == b"\x80\x02" for file in packed.iterdir())


def test_damaged_weights_are_refused(model: Path):
    content = bytearray((model / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (model / "weights.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.safetensors is damaged"):
        read_weights(Folder(model), read_info(Folder(model)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 2}, "format 2"),
        ({"threshold": 7}, "threshold"),
        ({"name": "../x"}, "name"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_model_json_that_cannot_be_right_is_refused_by_name(model: Path, change: dict, says: str):
    value = json.loads((model / "model.json").read_text())
    (model / "model.json").write_text(json.dumps({**value, **change}))
    with pytest.raises(ValueError, match=says):
        read_info(Folder(model))


def test_where_there_is_no_model_the_command_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"python -m clinic\.run pack"):
        read_info(Folder(tmp_path))


def test_a_trial_without_weights_is_refused(tmp_path: Path):
    record = write_trial(tmp_path / "t")
    (tmp_path / "t" / "weights.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has no weights\.safetensors"):
        write_model(Folder(tmp_path / "m"), record, card())
    assert not (tmp_path / "m" / "model.json").exists()


def test_weights_of_another_architecture_are_refused(tmp_path: Path):
    record = write_trial(tmp_path / "t")
    other = TrialConfig(encoder="tu-test_efficientnet", decoder="unet")
    record.write_info(record.info().model_copy(update={"config": other}))
    with pytest.raises(ValueError, match="do not fit tu-test_efficientnet with unet"):
        write_model(Folder(tmp_path / "m"), record, card())


def test_images_of_another_size_are_refused_with_both_sizes(packed: Path):
    with pytest.raises(ValueError, match="64 x 64 px and is given 96 x 64"):
        read_info(Folder(packed)).check_size(*np.zeros((96, 64)).shape)
