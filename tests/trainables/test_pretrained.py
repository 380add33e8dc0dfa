"""python -m pytest tests/trainables/test_pretrained.py: weights files with upstream key names, and no network.

The files are made here, with random weights and the keys that the published ones have.
"""

import os
import re
import time
from pathlib import Path
from typing import Any

import huggingface_hub.constants as hub
import pytest
import safetensors.torch
import torch
from torch import Tensor

from trainables.net.architecture import Architecture
from trainables.net.models import build_model, check_model
from trainables.net.pretrained import read_state
from trainables.net.vision_ops import smp, timm


def upstream_mobilenet() -> dict[str, Tensor]:
    return timm.create_model("mobilenetv1_100").state_dict()


def upstream_inceptionv3() -> dict[str, Tensor]:
    state = timm.create_model("inception_v3").state_dict()
    scales = {key: torch.rand_like(value) for key, value in state.items() if key.endswith("bn.weight")}
    return {**state, **scales, "AuxLogits.fc.weight": torch.zeros(2, 2)}


def upstream_densenet121() -> dict[str, Tensor]:
    state = smp.encoders.get_encoder("densenet121").state_dict()
    # The published file has the dots of the first torchvision, and no counters of batches.
    state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    old = {re.sub(r"(denselayer\d+\.(?:norm|relu|conv))([12])", r"\1.\2", key): value for key, value in state.items()}
    return {**old, "classifier.weight": torch.zeros(2, 2), "classifier.bias": torch.zeros(2)}


def upstream_seresnet50() -> dict[str, Tensor]:
    state = smp.encoders.get_encoder("se_resnet50").state_dict()
    return {**state, "last_linear.weight": torch.zeros(2, 2), "last_linear.bias": torch.zeros(2)}


def upstream_vgg19() -> dict[str, Tensor]:
    state = smp.encoders.get_encoder("vgg19").state_dict()
    return {**state, "classifier.0.weight": torch.zeros(2, 2), "classifier.6.bias": torch.zeros(2)}


QUICK = ("mobilenet", "vgg19")
UPSTREAM = {
    "mobilenet": upstream_mobilenet,
    "densenet121": upstream_densenet121,
    "vgg19": upstream_vgg19,
    "inceptionv3": upstream_inceptionv3,
    "seresnet50": upstream_seresnet50,
}


def saved(state: dict[str, Tensor], file: Path) -> str:
    safetensors.torch.save_file({key: value.contiguous() for key, value in state.items()}, file)
    return str(file)


def plain(key: str) -> str:
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])", r"\1\2", key)


@pytest.mark.parametrize(
    "encoder", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in UPSTREAM]
)
def test_all_but_the_classifier_is_loaded_from_a_local_file(encoder: str, tmp_path: Path) -> None:
    state = UPSTREAM[encoder]()
    model = build_model(Architecture(encoder=encoder), encoder_weights=saved(state, tmp_path / "w.safetensors"))
    loaded = model.net.encoder.state_dict()
    given = {plain(key): value for key, value in state.items()}
    for key, value in loaded.items():
        if key.endswith("num_batches_tracked"):
            continue
        assert torch.equal(value, given[key.removeprefix("model.")]), key
    heads = ("fc.", "classifier", "last_linear", "AuxLogits", "conv_head", "bn2", "head")
    left = {key for key in given if key not in {key.removeprefix("model.") for key in loaded}}
    assert all(key.startswith(heads) for key in left), left


def test_a_torch_file_that_wraps_its_state_is_read_too(tmp_path: Path) -> None:
    state = upstream_mobilenet()
    torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "w.pth")
    model = build_model(Architecture(encoder="mobilenet"), encoder_weights=str(tmp_path / "w.pth"))
    assert torch.equal(model.net.encoder.model.conv_stem.weight, state["conv_stem.weight"])


@pytest.mark.parametrize("encoder", ["mobilenet", "densenet121"])
def test_a_file_with_a_key_missing_is_refused(encoder: str, tmp_path: Path) -> None:
    state = UPSTREAM[encoder]()
    gone = next(key for key in state if "blocks" in key or "denseblock2" in key)
    del state[gone]
    with pytest.raises(ValueError, match="does not fit the encoder"):
        build_model(Architecture(encoder=encoder), encoder_weights=saved(state, tmp_path / "w.safetensors"))


@pytest.mark.parametrize("encoder", ["mobilenet", "vgg19"])
def test_a_file_of_another_encoder_is_refused(encoder: str, tmp_path: Path) -> None:
    other = {"mobilenet": upstream_densenet121, "vgg19": upstream_mobilenet}[encoder]()
    with pytest.raises(ValueError, match="does not fit the encoder"):
        build_model(Architecture(encoder=encoder), encoder_weights=saved(other, tmp_path / "w.safetensors"))


class Payload:
    """What a pickle of it does when it is read without care: it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("wrap", [dict, lambda state: {"state_dict": state}], ids=["plain", "wrapped"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_weights_file_that_carries_code_is_refused_and_runs_none(tmp_path: Path, wrap: Any, zipped: bool) -> None:
    trap = tmp_path / "ran"
    state = wrap({"conv_stem.weight": torch.zeros(1), "payload": Payload(trap)})
    torch.save(state, tmp_path / "evil.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"evil\.pth' cannot be read as weights"):
        build_model(Architecture(encoder="mobilenet"), encoder_weights=str(tmp_path / "evil.pth"))
    assert not trap.exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert trap.exists()  # the file would have


def test_weights_are_read_without_pickle_whatever_timm_does_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}
    monkeypatch.setattr(timm.models, "load_state_dict", lambda path, **arguments: asked.update(arguments) or {})
    read_state(tmp_path / "any.pth")
    assert asked["weights_only"] is True


def test_a_file_that_is_not_there_or_not_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no file .*gone\.pt"):
        build_model(Architecture(encoder="vgg19"), encoder_weights=str(tmp_path / "gone.pt"))
    (tmp_path / "bad.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"bad\.safetensors' cannot be read as weights"):
        build_model(Architecture(encoder="mobilenet"), encoder_weights=str(tmp_path / "bad.safetensors"))


@pytest.mark.parametrize("encoder", ["vgg19", "mobilenet", "inceptionv3", "tu-convnext_atto"])
@pytest.mark.parametrize("cause", ["offline", "unreachable"])
def test_without_network_the_error_comes_at_once_and_says_what_to_set(
    encoder: str, cause: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", cause == "offline")
    monkeypatch.setattr(hub, "ENDPOINT", "http://127.0.0.1:9")
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"cannot be fetched .*set encoder_weights to null or to the path"):
        build_model(Architecture(encoder=encoder), encoder_weights="imagenet")
    assert len(check_model(Architecture(encoder=encoder), encoder_weights="imagenet")) == 1
    assert time.monotonic() - started < 10


def test_what_lies_in_the_cache_is_used_without_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--timm--mobilenetv1_100.ra4_e3600_r224_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    state = upstream_mobilenet()
    saved(state, snapshot / "model.safetensors")
    model = build_model(Architecture(encoder="mobilenet"), encoder_weights="imagenet")
    assert torch.equal(model.net.encoder.model.conv_stem.weight, state["conv_stem.weight"])
    assert check_model(Architecture(encoder="mobilenet"), encoder_weights="imagenet") == []


def test_names_of_weights_that_an_encoder_lacks_are_refused_with_those_it_has() -> None:
    (mistake,) = check_model(Architecture(encoder="resnet18"), encoder_weights="imgnet")
    assert "use one of ['imagenet', 'ssl', 'swsl'], null, or the path" in mistake
    (mistake,) = check_model(Architecture(encoder="mobilenet"), encoder_weights="imgnet")
    assert "use imagenet, null, or the path" in mistake
