"""A study's finals as model folders."""

from pathlib import Path

from cluster.storage import Folder
from search.models import finals_of, write_models
from tests.clinic.fakes import card, write_trial
from trainables.model.info import read_info


def test_every_final_with_weights_becomes_a_model_folder(tmp_path: Path):
    write_trial(tmp_path / "final" / "mobilenet")
    write_trial(tmp_path / "final" / "vgg19" / "0")
    write_trial(tmp_path / "final" / "vgg19" / "1")
    (tmp_path / "final" / "failed").mkdir()
    told: list[str] = []
    write_models(Folder(tmp_path), card(), "nas", tell=told.append)
    assert told == []
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["mobilenet", "vgg19-0", "vgg19-1"]
    info = read_info(Folder(tmp_path / "models" / "vgg19-1"))
    assert (info.study, info.name, info.data.fingerprint) == ("nas", "vgg19-1", card().fingerprint)


def test_a_model_folder_that_is_there_stays(tmp_path: Path):
    write_trial(tmp_path / "final" / "mobilenet")
    write_models(Folder(tmp_path), card(), "nas", tell=print)
    before = (tmp_path / "models" / "mobilenet" / "model.json").read_bytes()
    write_models(Folder(tmp_path), card(), "nas", tell=print)
    assert (tmp_path / "models" / "mobilenet" / "model.json").read_bytes() == before


def test_a_final_that_cannot_be_packed_is_told_and_the_others_are(tmp_path: Path):
    write_trial(tmp_path / "final" / "a")
    (tmp_path / "final" / "a" / "weights.safetensors").write_bytes(b"damaged")
    write_trial(tmp_path / "final" / "b")
    told: list[str] = []
    write_models(Folder(tmp_path), card(), "nas", tell=told.append)
    assert len(told) == 1
    assert told[0].startswith("no model folder of a: ")
    assert (tmp_path / "models" / "b" / "model.json").exists()


def test_a_study_without_finals_has_no_models(tmp_path: Path):
    assert list(finals_of(Folder(tmp_path))) == []
    write_models(Folder(tmp_path), card(), "nas", tell=print)
    assert not (tmp_path / "models").exists()
