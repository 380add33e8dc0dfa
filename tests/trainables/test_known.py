"""The encoders that are known without their libraries are those that the libraries have."""

import json

import pytest

from trainables.config import PAPER_ENCODERS, TrialConfig
from trainables.net import known
from trainables.net.known import encoder_problems, known_encoders, name_problems
from trainables.net.list_encoders import listing


def test_the_list_is_current() -> None:
    listed = json.loads(known.FILE.read_text())
    if listed["versions"] != known.installed_versions():
        pytest.skip(f"the list is of {listed['versions']}, and others are installed")
    assert listed == listing(), "run `python -m trainables.net.list_encoders`"
    assert known_encoders()[:5] == PAPER_ENCODERS


def test_an_unknown_encoder_is_told_with_the_one_that_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "known_encoders", lambda: ("vgg19", "tu-resnet18d"))
    told = {name: [p.meant for p in encoder_problems(name, ("encoder",))] for name in ("vgg91", "resnet18d", "zzz", "")}
    assert told == {"vgg91": ["vgg19"], "resnet18d": ["tu-resnet18d"], "zzz": [""], "": [""]}
    assert list(encoder_problems("vgg19", ())) == list(encoder_problems("tu-resnet18d.ra2_in1k", ())) == []


def test_where_other_versions_are_installed_the_list_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "installed_versions", lambda: {"timm": "99.0"})
    known_encoders.cache_clear()
    try:
        assert known_encoders() == ()
        assert list(encoder_problems("mobilnet", ())) == []
    finally:
        known_encoders.cache_clear()


def test_names_of_a_configuration_are_checked_together() -> None:
    wrong = TrialConfig(encoder="mobilnet", decoder="unett")
    assert [(p.path, p.meant) for p in name_problems(wrong)] == [(("encoder",), "mobilenet"), (("decoder",), "unet")]
