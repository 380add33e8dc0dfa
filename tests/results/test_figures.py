import builtins
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import results
from cluster.storage import Folder
from results.figures import load_examples, mask_pictures, validation_curves, write_figures
from tests.results.example_study import write_trial
from trainables.record import Examples


def test_curves_have_one_line_per_final_with_its_values(study: Path) -> None:
    pytest.importorskip("matplotlib")
    dice, iou = validation_curves(results.load_epochs(str(study))).axes
    assert {line.get_label(): list(line.get_ydata()) for line in dice.get_lines()} == {
        "mobilenet": [0.5, 0.72],
        "seresnet50": [0.6, 0.80],
    }
    assert iou.get_title() == "Validation IoU"


def test_while_there_are_no_finals_every_trial_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for number in range(3):
        write_trial(Folder(tmp_path / "trials" / f"{number:04d}"), dice=(0.1, 0.2))
    assert len(validation_curves(results.load_epochs(str(tmp_path))).axes[0].get_lines()) == 3


def test_no_finished_epoch_is_said_and_not_drawn(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(ValueError, match="no epoch of any trial is finished"):
        write_figures(str(tmp_path), Folder(tmp_path))


def test_pictures_state_the_dice_of_each_model(study: Path) -> None:
    pytest.importorskip("matplotlib")
    examples = load_examples(str(study))
    assert list(examples) == ["mobilenet", "seresnet50"]
    titles = [axis.get_title() for axis in mask_pictures(examples).axes]
    perfect = ["mobilenet: Dice 1.00", "seresnet50: Dice 1.00"]
    assert titles == ["a", *perfect, "b", *perfect]


def test_half_a_lesion_found_is_a_dice_of_two_thirds() -> None:
    pytest.importorskip("matplotlib")
    mask_NHW = np.zeros((1, 8, 8), np.uint8)
    mask_NHW[0, :4, :4] = 1
    half_NHW = mask_NHW.astype(np.float16)
    half_NHW[0, :2] = 0.2
    example = Examples(sample_ids=["x"], image_NHW=mask_NHW, mask_NHW=mask_NHW, probability_NHW=half_NHW)
    assert mask_pictures({"m": example}).axes[1].get_title() == "m: Dice 0.67"


def test_examples_of_other_samples_are_not_put_side_by_side(study: Path) -> None:
    examples = load_examples(str(study))
    other = replace(examples["seresnet50"], sample_ids=["c", "d"])
    with pytest.raises(ValueError, match="examples of seresnet50 are of other samples than those of mobilenet"):
        mask_pictures({**examples, "seresnet50": other})


def test_figures_are_png_files(study: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    written = write_figures(str(study), Folder(tmp_path / "out"))
    assert [Path(file).name for file in written] == ["validation_curves.png", "masks.png"]
    assert all(Path(file).read_bytes().startswith(b"\x89PNG") for file in written)


def test_without_matplotlib_the_error_names_the_extra(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def no_matplotlib(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("matplotlib"):
            raise ImportError("No module named 'matplotlib'")
        return real_import(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", no_matplotlib)
    with pytest.raises(ImportError, match=r"mammosearch\[figures\]"):
        validation_curves(results.load_epochs(str(study)))
