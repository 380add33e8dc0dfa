import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import results
from cluster.storage import Folder
from results.examples import Picture, pictures
from results.gallery import films
from results.hero import axis_ticks, forest, groups
from results.lanes import waited_for
from results.read import read_study
from results.report import WEB, render_report, write_report
from results.report_data import page_data, rungs, sizes
from tests.results.example_study import write_trial

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)>'\"&"


class _Tags(HTMLParser):
    """Which tags open and close, every address that the page would fetch, and every handler that would run."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br", "link", "input"):
            self.open.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def tags_of(page: str) -> _Tags:
    tags = _Tags()
    tags.feed(page)
    return tags


def data_of(page: str) -> dict:  # type: ignore[type-arg]
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


@pytest.fixture(scope="module")
def page(written_study: Path) -> str:
    return render_report(str(written_study))


def test_the_page_is_well_formed_and_needs_nothing_from_outside(page: str) -> None:
    tags = tags_of(page)
    assert tags.open == []
    assert all(address.startswith(("data:", "#")) for address in tags.fetched)
    assert tags.handlers == []


def test_the_browser_is_told_to_load_nothing_and_to_run_only_the_pages_own_scripts(page: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy and policy[1].startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy[1]
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    assert re.findall(r"'sha256-([^']*)'", policy[1]) == hashes
    assert len(hashes) == 8


def test_the_first_heading_is_what_came_of_it_and_every_section_is_there(page: str) -> None:
    heading = "the best of 8 complete trials is 0005 (mobilenet), validation Dice 0.700."
    assert re.findall("<h1>(.*?)</h1>", page) == [f"No final is tested image by image yet; {heading}"]
    assert re.findall("<h2>(.*?)</h2>", page) == [
        "Tables",
        "The search",
        "Trials",
        "Data, reproduction, limits",
    ]


def test_every_trial_has_its_curve_settings_cost_and_error(page: str) -> None:
    data = data_of(page)
    trials = {trial["id"]: trial for trial in data["trials"]}
    assert len(trials) == 12
    assert trials["0005"]["curve"] == [0.2, 0.45, 0.7]
    assert dict(zip(data["settings"], trials["0005"]["set"], strict=True))["learning_rate"] == 2e-3
    assert trials["0008"]["why"] == "ValueError: <loss> is nan"
    assert "Traceback" in trials["0008"]["trace"]
    assert trials["0009"]["repeat"] == "0005"
    assert trials["mobilenet"]["test"] == 0.68


def test_text_from_the_study_cannot_become_markup_or_script(study: Path) -> None:
    nasty = {"role": "search", "status": "failed", "reason": NASTY, "traceback": NASTY}
    write_trial(Folder(study / "trials" / "0010"), **nasty, encoder=NASTY)  # type: ignore[arg-type]
    info = json.loads((study / "study.json").read_text())
    (study / "study.json").write_text(json.dumps({**info, "name": NASTY, "dataset": NASTY, "created_at": NASTY}))
    page = render_report(str(study))
    assert "<img src=x" not in page
    assert page.count("<script>") == 8
    assert tags_of(page).handlers == []
    assert data_of(page)["trials"][10]["why"] == NASTY


def test_films_stand_once_and_the_outlines_over_them_are_paths(synthetic: Path) -> None:
    page = render_report(str(synthetic))
    read = read_study(str(synthetic))
    shown = films(read.images, pictures(str(synthetic), {}), list(read.verdict.finals.final))
    count = sum(len(group) for _, group in shown)
    assert page.count("data:image/jpeg;base64,") == count > 0
    assert len(re.findall(r'<path class="truth" d="M[^"]+Z"/>', page)) == count * 4


def test_films_are_chosen_by_their_mean_dice_over_all_networks(synthetic: Path) -> None:
    images = read_study(str(synthetic)).images
    mean = images.groupby("sample_id").dice.mean().sort_values(ascending=False, kind="stable")
    picture = Picture(np.zeros((8, 8), np.uint8), np.zeros((8, 8), bool))
    groups = dict(films(images, dict.fromkeys(mean.index, picture), ["mobilenet", *images.final.unique()]))
    assert [film.sample_id for film in groups["Best"]] == list(mean.index[:2])
    assert [film.sample_id for film in groups["Worst"]] == list(mean.index[-3:])
    middle = [mean[film.sample_id] for film in groups["Median"]]
    assert min(middle) <= mean.median() <= max(middle)
    numbers = [film.number for films_ in groups.values() for film in films_]
    assert numbers == list(range(8))


def test_a_damaged_mask_has_no_outline_and_no_picture_is_no_section(synthetic: Path) -> None:
    images = read_study(str(synthetic)).images
    sample, final = images.sample_id.iloc[0], images.final.iloc[0]
    picture = Picture(np.zeros((8, 8), np.uint8), np.zeros((8, 8), bool))
    groups = films(images.assign(found=b"no PNG"), {sample: picture}, [final])
    assert [found.path for found in groups[0][1][0].found] == [""]
    assert films(images, {}, [final]) == []


def test_a_study_of_one_failed_trial_has_a_page(tmp_path: Path) -> None:
    write_trial(Folder(tmp_path / "trials" / "0000"), role="baseline", status="failed", reason="out of memory")
    page = render_report(str(tmp_path))
    assert "No trial is complete yet." in page
    assert "1 trial failed" in page


def test_a_study_without_a_trial_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("{}")
    written = write_report(str(tmp_path), Folder(tmp_path))
    text = Path(written[0]).read_text(encoding="utf-8")
    assert text.count("No trial has begun yet.") == 2 + text.count('"No trial has begun yet."')


def test_a_running_study_says_so(tmp_path: Path) -> None:
    write_trial(Folder(tmp_path / "trials" / "0000"), role="baseline", dice=(0.1, 0.2))
    write_trial(Folder(tmp_path / "trials" / "0001"), status="running", dice=(0.1,))
    page = render_report(str(tmp_path))
    assert "1 trial under way, or interrupted" in page
    assert "the best of 1 complete trial is 0000 (mobilenet), validation Dice 0.200" in page


def test_a_measure_that_is_not_finite_is_absent_and_breaks_no_json(tmp_path: Path) -> None:
    write_trial(Folder(tmp_path / "trials" / "0000"), dice=(0.5, float("nan"), 0.25))
    assert data_of(render_report(str(tmp_path)))["trials"][0]["curve"] == [0.5, None, 0.25]


def test_rungs_are_where_trials_were_pruned_with_how_many_went_on(tmp_path: Path) -> None:
    for number, epochs in enumerate((1, 1, 2, 3)):
        status = "pruned" if epochs < 3 else "complete"
        write_trial(Folder(tmp_path / "trials" / f"{number:04d}"), status=status, dice=(0.5,) * epochs)  # type: ignore[arg-type]
    found = rungs(results.load(str(tmp_path)))
    assert found == [{"epoch": 1, "in": 4, "kept": 2}, {"epoch": 2, "in": 2, "kept": 1}]


def test_a_thousand_trials_are_less_than_half_a_megabyte(written_study: Path) -> None:
    trials, epochs = results.load(str(written_study)), results.load_epochs(str(written_study))
    trials, epochs = trials[trials.role == "search"], epochs[epochs.role == "search"]
    many = pd.concat([trials.assign(trial_id=trials.trial_id + f"-{n}") for n in range(1000 // len(trials))])
    many.attrs = trials.attrs
    rows = [epochs.assign(trial_id=epochs.trial_id + f"-{n}") for n in range(1000 // len(trials))]
    assert len(json.dumps(page_data(many, pd.concat(rows)))) < 500_000


def test_the_finals_stand_on_one_axis_with_seeds_intervals_and_ties(synthetic: Path) -> None:
    read = read_study(str(synthetic))
    drawn = forest(read.verdict, read.trials)
    assert drawn is not None
    assert [row["name"] for row in drawn["rows"]] == list(read.verdict.finals.final)
    assert drawn["tested"] and drawn["intervals"] and drawn["seeds"]
    for row in drawn["rows"]:
        assert 0 <= row["low_at"] <= row["at"] <= row["low_at"] + row["width"] <= 100
        assert len(row["seeds_at"]) == 3
    assert sum(row["cheapest"] != "" for row in drawn["rows"]) == int(read.verdict.finals.tied.sum() > 1)


def test_the_groups_of_the_best_final_hold_each_of_its_images_once(synthetic: Path) -> None:
    read = read_study(str(synthetic))
    best = read.verdict.finals.final[0]
    shown = groups(read.images, best)
    assert shown is not None and shown["final"] == best
    images = read.images[read.images.final == best].sample_id.nunique()
    for part in shown["parts"]:
        assert sum(row["images"] for row in part["rows"]) == images, part["name"]
        assert all(0 <= row["low_at"] <= row["at"] <= 100 for row in part["rows"] if row["width"])
    assert groups(read.images, "no such final") is None


def test_lesion_size_stands_against_dice_once_for_every_image_with_a_lesion(synthetic: Path) -> None:
    images = read_study(str(synthetic)).images
    found = sizes(images)
    for final in found["sizes"]:
        with_lesion = images[(images.final == final["name"]) & (images.lesion_px > 0)]
        assert len(final["points"]) == with_lesion.sample_id.nunique()
        sample, _, dice = final["points"][0]
        assert dice == pytest.approx(with_lesion[with_lesion.sample_id == sample].dice.mean(), abs=6e-4)
    assert sizes(images.head(0))["sizes"] == []


def test_the_page_of_finals_over_seeds_begins_with_the_verdict(synthetic: Path) -> None:
    page = render_report(str(synthetic))
    assert re.findall("<h1>(.*?)</h1>", page) == [read_study(str(synthetic)).verdict.sentence]
    assert "Lesion size and Dice" in page
    assert page.count("Data: made-up; field of view") == 1  # a note is said once, not under every table
    assert len(page) < 3_000_000


def test_axes_are_round_and_hold_their_values() -> None:
    assert axis_ticks(0.412, 0.457) == [0.41, 0.42, 0.43, 0.44, 0.45, 0.46]
    assert axis_ticks(0.5, 0.5) == [0.5, 0.51, 0.52]
    assert axis_ticks(0.0, 1.0)[-1] == 1.0


def test_vendored_libraries_are_the_files_that_their_table_names() -> None:
    table = (WEB / "vendor" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w.]+)` \|.*\| `([0-9a-f]{64})` \|$", table, re.MULTILINE)
    assert {name for name, _ in rows} == {file.name for file in (WEB / "vendor").glob("*.js")}
    for name, digest in rows:
        assert hashlib.sha256((WEB / "vendor" / name).read_bytes()).hexdigest() == digest
        assert (WEB / "vendor" / f"{name.split('.')[0]}.LICENSE").exists()


def test_a_setting_that_is_searched_on_a_logarithmic_scale_is_drawn_on_one(synthetic: Path, tmp_path: Path) -> None:
    assert page_data(results.load(str(synthetic)), results.load_epochs(str(synthetic)))["log"] == ["learning_rate"]
    for number, decay in enumerate((1e-6, 1e-5, 1e-2)):  # without study.json its values decide
        write_trial(Folder(tmp_path / "trials" / f"{number:04d}"), dice=(0.1,), weight_decay=decay)
    assert page_data(results.load(str(tmp_path)), results.load_epochs(str(tmp_path)))["log"] == ["weight_decay"]


def test_the_page_says_how_busy_the_slots_were_and_what_the_rest_waited_for(tmp_path: Path) -> None:
    write_trial(Folder(tmp_path) / "trials/0000")
    counted = {"busy_s": 80.0, "idle_s": {f"finals {NASTY}": 20.2, "the next": 0.1}, "busy_share": 0.798}
    Folder(tmp_path).write_json("slots.json", counted)
    page = render_report(str(tmp_path))
    assert "its slots were busy 80% of the time; the rest waited 20 s for finals &lt;/script&gt;" in page
    assert "the next" not in page and NASTY not in page


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '{"busy_share": "x", "idle_s": {}}', '{"busy_share": 1, "idle_s": [2]}']
)
def test_a_damaged_count_of_the_slots_is_left_out(tmp_path: Path, content: str) -> None:
    (tmp_path / "slots.json").write_text(content)
    assert waited_for(Folder(tmp_path)) == "" == waited_for(Folder(tmp_path / "none"))
