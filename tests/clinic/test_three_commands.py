"""From nothing to a DICOM Segmentation by the README's three commands: a study of whole films, pack, predict."""

from pathlib import Path

import pydicom
import pytest
import yaml
from typer.testing import CliRunner

from clinic.run import app as clinic
from search.run import app as search
from tests.clinic.fakes import SMALL
from tests.file_tree import ROOT

FILM = "Mass-Test_P_*_CC/*/*/*.dcm"
SMALLER = {"patients": 12, "rows": 256, "seed": 0}


def run(app, *words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.slow
def test_a_study_of_whole_films_ends_in_a_segmentation_of_a_phantom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The settings are those of configs/whole.yaml, with fewer and smaller phantoms and a network of 95,000 weights."""
    monkeypatch.chdir(tmp_path)
    settings = yaml.safe_load((ROOT / "configs" / "whole.yaml").read_text())
    settings["data"]["build"] |= {"phantom": SMALLER, "size_px": 64}
    settings["space"]["encoder"] = [SMALL["encoder"]]
    settings["fixed"]["decoder"] = SMALL["decoder"]
    settings |= {"budget": {"trials": 1, "epochs": 1}, "final": {"top": 1, "epochs": 1}}
    Path("whole.yaml").write_text(yaml.safe_dump(settings))

    run(search, "--space", "whole.yaml", "--here")
    [film] = sorted(Path(settings["data"]["build"]["root"]).glob(f"CBIS-DDSM/{FILM}"))[:1]
    run(clinic, "pack", f"runs/whole/final/{SMALL['encoder']}", "models/whole")
    run(clinic, "predict", "models/whole", film, "--out", "masks", "--workers", 0)

    [found] = Path("masks").rglob("*.seg.dcm")
    segmentation, source = pydicom.dcmread(found), pydicom.dcmread(film)
    assert segmentation.Modality == "SEG"
    assert (segmentation.Rows, segmentation.Columns) == (source.Rows, source.Columns)
    assert segmentation.PatientID == source.PatientID
    assert [path.name for path in Path("runs/whole/models").iterdir()], (
        "the study wrote the model folder itself as well"
    )
