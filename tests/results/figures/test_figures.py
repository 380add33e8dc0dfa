"""What the figures show; how they look is looked at by people (docs/log.md)."""

import builtins
import importlib
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pandas as pd
import pytest

pytest.importorskip("matplotlib")

from matplotlib.text import Text

from cluster.storage import Folder
from data_prep.shards import open_shards
from results.examples import cases, load_examples, pictures
from results.figures import curves, scores, search
from results.figures.pictures import masks, normalisations, window_around
from results.figures.style import COLUMN_IN, PAPER_IN, encoded, end_labels, marks_of, new_figure
from results.figures.write import FIGURES, WIDTHS, write_figures
from results.front import front_table
from results.lanes import lanes_of
from results.read import Read, read_study
from results.run import Figures, Width
from results.table import load
from tests.results.example_study import write_trial
from tests.results.synthetic_study import write_synthetic
from trainables.config import PAPER_ENCODERS
from trainables.score.tables import found_mask


@pytest.fixture(scope="session")
def made_up(synthetic: Path) -> Read:
    return read_study(str(synthetic))


def texts(figure: Any) -> str:
    """Every text of a figure."""
    return " ".join(text.get_text() for text in figure.findobj(Text))


@pytest.mark.parametrize("width", ["paper", "column"])
@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_of_a_whole_study_is_drawn_at_both_widths(made_up: Read, name: str, width: Width) -> None:
    figure = FIGURES[name](made_up, WIDTHS[width])
    assert figure is not None
    assert figure.get_figwidth() == WIDTHS[width]
    png, svg = encoded(figure, "png"), encoded(figure, "svg")
    assert png.startswith(b"\x89PNG")
    assert b"<text" in svg  # letters stay letters
    assert len(svg) < 600_000


@pytest.mark.parametrize("kind", ["none", "one", "running"])
@pytest.mark.parametrize("name", FIGURES)
def test_a_study_that_has_little_is_drawn_or_has_nothing(tmp_path: Path, name: str, kind: str) -> None:
    how: dict[str, dict[str, int]] = {
        "none": {"trials": 0},
        "one": {"trials": 1},
        "running": {"trials": 12, "running": 3},
    }
    study = read_study(str(write_synthetic(tmp_path / "s", finals=0, **how[kind])))  # type: ignore[arg-type]
    figure = FIGURES[name](study, PAPER_IN)
    assert figure is None or encoded(figure, "png").startswith(b"\x89PNG")
    if kind == "none":
        assert figure is None


def test_the_same_study_gives_the_same_bytes(made_up: Read) -> None:
    for file_format in ("png", "svg"):
        one, other = (encoded(FIGURES["training"](made_up, PAPER_IN), file_format) for _ in range(2))  # type: ignore[arg-type]
        assert one == other


def test_the_training_figure_has_every_final_and_each_seeds_best_epoch(
    made_up: Read,
) -> None:
    figure = curves.training(made_up, PAPER_IN)
    assert figure is not None
    dice = figure.get_axes()[0]
    best = [line for line in dice.get_lines() if line.get_linestyle() == "None"]
    drawn = sorted(float(y) for line in best for y in np.atleast_1d(line.get_ydata()))
    finals = made_up.trials[made_up.trials.role == "final"]
    assert drawn == pytest.approx(sorted(finals.val_dice))
    written = texts(figure)
    for word in ("Validation Dice", "Loss", "Learning rate", "Seconds an epoch", *made_up.finals.final):
        assert word in written


def test_every_trial_with_an_epoch_is_a_curve_and_rungs_say_how_many_went_on(made_up: Read) -> None:
    figure = curves.trials(made_up, PAPER_IN)
    assert figure is not None
    bundles = [len(c.get_paths()) for c in figure.get_axes()[0].collections]
    epochs = made_up.epochs[made_up.epochs.role != "final"].groupby("trial_id").epoch.max()
    assert sum(bundles) == int((epochs > 1).sum())
    pruned = made_up.trials[made_up.trials.status == "pruned"]
    first = int(pruned.epochs.min())
    there = int((epochs >= first).sum())
    assert f"{there} → {there - int((pruned.epochs == first).sum())}" in texts(figure)


def test_the_front_is_ringed_and_is_that_of_the_table(made_up: Read) -> None:
    figure = search.front(made_up, PAPER_IN)
    assert figure is not None
    ringed = next(line for line in figure.get_axes()[0].get_lines() if line.get_markerfacecolor() == "none")
    assert sorted(np.asarray(ringed.get_ydata(), float)) == pytest.approx(sorted(front_table(made_up.trials).val_dice))


def test_a_pixel_counts_once_in_the_reliability_and_the_bins_give_the_dice_at_the_threshold(made_up: Read) -> None:
    images = made_up.images[made_up.images.final == made_up.images.final.iloc[0]]
    predicted, share = scores.reliability(images)
    assert ((predicted >= 0) & (predicted <= 1) & (share >= 0) & (share <= 1)).all()
    by_threshold = scores.dice_by_threshold(images)
    assert by_threshold[9] == pytest.approx(images.dice.mean())  # 0.5 is the tenth of the thresholds


def test_the_pictures_are_those_at_the_stated_quantiles_and_name_their_dice(made_up: Read) -> None:
    figure = masks(made_up, PAPER_IN)
    assert figure is not None
    written = texts(figure)
    assert "90th, 50th, 10th percentile of the mean Dice over the finals, of 6 test images" in written
    for case in ("best", "median", "worst"):
        assert case in written
    known = pictures(made_up.study, made_up.trials.attrs["study"])
    chosen = dict(cases(made_up.images, set(known)))
    mean = made_up.images[made_up.images.sample_id.isin(known)].groupby("sample_id").dice.mean()
    assert mean[chosen["best"]] >= mean[chosen["median"]] >= mean[chosen["worst"]]
    rows = made_up.images[(made_up.images.sample_id == chosen["best"])].sort_values("trial_id").drop_duplicates("final")
    for dice in rows.dice:
        assert f"Dice {dice:.2f}" in written


def test_all_test_images_are_there_where_the_shards_are_at_hand(tiny_shards: Path, synthetic: Path) -> None:
    card = open_shards(tiny_shards).card
    about = {"dataset": str(tiny_shards), "dataset_fingerprint": card.fingerprint}
    known = pictures(str(synthetic), about)
    assert len(known) == card.samples["test"]
    assert all(picture.truth_HW.any() for picture in known.values())
    assert len(pictures(str(synthetic), {**about, "dataset_fingerprint": "another"})) == 6  # those that finals kept


def test_a_window_holds_its_lesion_and_lies_in_the_image() -> None:
    for top, left in ((0, 0), (90, 2), (50, 50), (95, 95)):
        truth = np.zeros((100, 100), bool)
        truth[top : top + 5, left : left + 5] = True
        window = window_around(truth)
        assert window is not None
        x0, x1, y1, y0 = window
        assert x0 <= left and left + 4 <= x1 and y0 <= top and top + 4 <= y1
        assert 0 <= x0 < x1 <= 99 and 0 <= y0 < y1 <= 99
    assert window_around(np.zeros((100, 100), bool)) is None
    assert window_around(np.ones((100, 100), bool)) is None


def test_a_study_whose_finals_found_nothing_is_drawn(made_up: Read) -> None:
    images = made_up.images.copy()
    empty = cv2.imencode(".png", np.zeros((48, 48), np.uint8))[1].tobytes()
    images["found"] = [empty] * len(images)
    assert not found_mask(empty).any()
    read = Read(made_up.study, made_up.trials)
    read.__dict__["images"] = images
    figure = masks(read, PAPER_IN)
    assert figure is not None
    assert encoded(figure, "png").startswith(b"\x89PNG")


def test_slots_show_every_trial_that_began_once(made_up: Read) -> None:
    figure = search.slots(made_up, PAPER_IN)
    assert figure is not None
    assert len(figure.get_axes()[0].patches) == int(made_up.trials.started_at.notna().sum())


def test_the_paper_s_encoders_always_look_alike_and_no_two_look_the_same() -> None:
    alone, among = marks_of(["vgg19"]), marks_of([*PAPER_ENCODERS, "resnet18"])
    assert alone["vgg19"] == among["vgg19"]
    assert len({(m.colour, m.symbol) for m in among.values()}) == 6
    assert len({str(among[name].dash) for name in PAPER_ENCODERS}) == 5


def test_names_at_line_ends_do_not_overlap() -> None:
    figure = new_figure(COLUMN_IN, 2.0)
    axis = figure.add_subplot()
    axis.set(xlim=(0, 1), ylim=(0, 1))
    figure.get_layout_engine().execute(figure)  # type: ignore[union-attr]
    end_labels(axis, [(1.0, 0.98 + 0.001 * n, f"name {n}", "black") for n in range(8)])
    places = sorted(text.xyann[1] for text in axis.texts)
    height_in = axis.get_position().height * figure.get_figheight()
    assert all((upper - lower) * height_in >= 7 / 72 for lower, upper in pairwise(places))  # letters of 7 points
    assert places[-1] <= 1.0 + 1e-9


def test_names_in_files_are_no_mathematics(tmp_path: Path) -> None:
    for number in range(6):
        name = r"a$\frac{1}$b_[x]" if number % 2 else "$"
        write_trial(Folder(tmp_path / "trials" / f"{number:04d}"), encoder=name, dice=(0.1, 0.2 + number / 100))
    read = read_study(str(tmp_path))
    for name, draw in FIGURES.items():
        figure = draw(read, PAPER_IN)
        assert figure is None or encoded(figure, "png"), name


def test_figures_are_written_as_png_and_svg_below_figures(synthetic: Path, tmp_path: Path) -> None:
    written = write_figures(str(synthetic), Folder(tmp_path), only=["finals", "cost"], width="column")
    assert [str(Path(file).relative_to(tmp_path)) for file in written] == [
        *("figures/finals.png", "figures/finals.svg", "figures/cost.png", "figures/cost.svg")
    ]
    assert all(Path(file).stat().st_size > 1000 for file in written)


def test_the_command_knows_every_figure_and_width() -> None:
    assert [name.value for name in Figures] == list(FIGURES)
    assert get_args(Width) == tuple(WIDTHS)


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(ValueError, match="has nothing to draw yet"):
        write_figures(str(tmp_path), Folder(tmp_path))


def test_a_figure_that_is_not_there_is_named_with_those_that_are(study: Path) -> None:
    with pytest.raises(ValueError, match="no figure 'curve'; there is summary, finals, training"):
        write_figures(str(study), Folder(study), only=["curve"])


def test_figure_one_is_made_of_a_film_and_a_film_that_is_none_is_named(tmp_path: Path) -> None:
    y, x = np.mgrid[0:300, 0:200]
    breast = np.where((x / 150) ** 2 + ((y - 150) / 120) ** 2 < 1, 140 + 40 * np.sin(x / 9) + 20 * np.cos(y / 7), 0)
    film = tmp_path / "film.png"
    cv2.imwrite(str(film), breast.clip(0, 255).astype(np.uint8))
    figure = normalisations(str(film), PAPER_IN)
    assert figure is not None
    written = texts(figure)
    for word in ("original", "min-max", "z-score", "CLAHE", "film.png"):
        assert word in written
    (tmp_path / "none.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"none\.png"):
        normalisations(str(tmp_path / "none.png"), PAPER_IN)


def test_damaged_examples_are_left_out(synthetic: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(synthetic, tmp_path / "copy")
    files = sorted(copy.glob("final/*/*/examples.npz"))
    for file, content in zip(files, (b"", b"PK\x03\x04nonsense", b"x" * 200), strict=False):
        file.write_bytes(content)
    assert len(load_examples(str(copy))) == len(files) - 3


def test_without_matplotlib_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def no_matplotlib(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("matplotlib"):
            raise ImportError("No module named 'matplotlib'")
        return real_import(name, *args, **kwargs)  # type: ignore[arg-type]

    for module in [name for name in sys.modules if name.startswith(("results.figures", "matplotlib"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", no_matplotlib)
    with pytest.raises(ImportError, match=r"mammosearch\[figures\]"):
        importlib.import_module("results.figures")


def test_lanes_that_the_study_names_are_taken_as_they_are(synthetic: Path) -> None:
    trials = load(str(synthetic))
    side_by_side = lanes_of(trials)
    for _, rows in side_by_side.groupby("lane"):
        starts, ends = rows.start_s.to_numpy(), rows.end_s.to_numpy()
        assert (starts[1:] >= ends[:-1] - 1).all()
    named = lanes_of(trials.assign(slot="cpu-0"))
    assert set(named.lane) == {"cpu-0"}
    assert lanes_of(trials.head(0)).empty
    assert isinstance(side_by_side, pd.DataFrame)
