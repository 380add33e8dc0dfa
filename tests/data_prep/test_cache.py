"""What this machine remembers of films: no names, for nobody else, and gone when asked.

pytest tests/data_prep/test_cache.py
"""

from __future__ import annotations

import stat
from pathlib import Path

from typer.testing import CliRunner

from data_prep.build import build
from data_prep.cache import cache_folder, forget, remembered
from data_prep.run import app
from data_prep.schema import BuildSettings
from data_prep.shards import open_shards
from tests.data_prep.small_pairs import contents, draw_film, draw_lesion
from tests.data_prep.trees import write_dicom


def hospital_pairs(root: Path) -> BuildSettings:
    """DICOM films whose PatientID and folders hold names."""
    rows = ["image,mask,patient_id"]
    for number in range(8):
        person = f"Schmidt-{number}"
        write_dicom(root / person / "film.dcm", draw_film(number), name=f"SCHMIDT^ANNA^{number}")
        write_dicom(root / person / "mask.dcm", draw_lesion(30, 90, 8), name=f"SCHMIDT^ANNA^{number}")
        rows.append(f"{person}/film.dcm,{person}/mask.dcm,{person}")
    (root / "index.csv").write_text("\n".join(rows))
    settings = {"source": "pairs", "root": str(root), "index_csv": str(root / "index.csv"), "size_px": 64}
    return BuildSettings.model_validate(settings)


def test_headers_are_remembered_without_names_and_for_the_owner_alone(tmp_path, own_cache):
    build(hospital_pairs(tmp_path / "films"), str(tmp_path / "out"), workers=0)
    kept = contents(own_cache)
    assert [name for name in kept if name.startswith("index/")]
    for name, content in kept.items():
        for word in (b"SCHMIDT", b"Schmidt"):
            assert word not in content and word.decode() not in name
        assert stat.S_IMODE((own_cache / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((own_cache / "index").stat().st_mode) == 0o700


def test_second_look_reads_no_header(tmp_path, monkeypatch):
    from data_prep.find import index

    settings = hospital_pairs(tmp_path / "films")
    build(settings, str(tmp_path / "a"), workers=0)
    monkeypatch.setattr(index, "read_any_header", lambda path: (_ for _ in ()).throw(AssertionError(path)))
    build(settings, str(tmp_path / "b"), workers=0)


def test_forget_removes_all_of_it_and_nothing_else(tmp_path, own_cache):
    build(hospital_pairs(tmp_path / "films"), str(tmp_path / "out"), workers=0)
    open_shards(tmp_path / "out").load("train", "clahe")
    (own_cache / "weights").mkdir()
    (own_cache / "weights" / "encoder.safetensors").write_bytes(b"1")
    assert len(remembered()) == 2
    done = CliRunner().invoke(app, ["forget"])
    assert done.exit_code == 0, done.output
    assert "index" in done.output
    assert contents(own_cache) == {"weights/encoder.safetensors": b"1"}
    assert forget() == 0


def test_folder_that_others_could_read_is_closed(own_cache):
    (own_cache / "index").mkdir(mode=0o755, parents=True)
    (own_cache / "index").chmod(0o755)
    assert stat.S_IMODE(cache_folder("index").stat().st_mode) == 0o700
