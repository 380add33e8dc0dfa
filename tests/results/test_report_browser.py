"""The report in headless Chromium: no message on the console, no request, and everything by keyboard and by mouse.

Skipped where there is no Chromium or no playwright (the extra `browser`).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import Folder
from results.report import write_report
from tests.results.example_study import write_trial
from tests.results.synthetic_study import write_synthetic

playwright = pytest.importorskip("playwright.sync_api", reason="the extra browser is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.soak,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
]
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)
READY = "document.documentElement.dataset.ready > 0"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = write_synthetic(tmp_path_factory.mktemp("browser") / "study", trials=80, patients=24, size_px=48)
    return Path(write_report(str(study), Folder(study))[0])


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield opened
        opened.close()


class Watched:
    """A page, with everything that it said on the console and asked of the network."""

    def __init__(self, browser: Any, file: Path, *, width: int = 1280, scheme: str = "light", anchor: str = "") -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(f"file://{file}{anchor}")
        self.page.wait_for_function(READY)

    def scroll_through(self) -> None:
        """Every chart is drawn when it comes near the window."""
        self.page.evaluate(
            "async () => { for (let y = 0; y < document.body.scrollHeight; y += 300) "
            "{ scrollTo(0, y); await new Promise(r => setTimeout(r, 60)) } }"
        )

    def listed(self) -> list[str]:
        """The ids of the rows that the list shows."""
        return list(self.page.locator("#list tbody tr td:first-child").all_inner_texts())

    def shown(self) -> int:
        """How many trials the list says that it shows."""
        return int(self.page.inner_text("#count").split()[0])

    def trials(self, condition: str = "true") -> int:
        """How many trials of the page's data fulfil a condition in JavaScript."""
        return int(self.page.evaluate(f"TRIALS.filter(trial => {condition}).length"))


@pytest.fixture
def watched(browser: Any, page_file: Path) -> Iterator[Watched]:
    page = Watched(browser, page_file)
    yield page
    page.context.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_every_chart_is_drawn_without_a_message_a_request_or_sideways_scrolling(
    browser: Any, page_file: Path, width: int, scheme: str
) -> None:
    seen = Watched(browser, page_file, width=width, scheme=scheme)
    seen.scroll_through()
    assert seen.page.locator(".chart canvas").count() == 6
    assert seen.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert seen.said == []
    assert [url for url in seen.asked if not url.startswith(("file:", "data:"))] == []
    seen.context.close()


def test_the_list_is_sorted_by_a_click_and_by_the_keyboard(watched: Watched) -> None:
    assert watched.shown() == watched.trials() == 89
    dice = [float(text) for text in watched.page.locator("#list tbody tr td:nth-child(4)").all_inner_texts()]
    assert dice == sorted(dice, reverse=True)
    watched.page.locator("#list thead th").first.click()
    assert watched.listed()[:2] == ["0000", "0001"]
    heading = watched.page.locator("#list thead th").first
    heading.locator("[tabindex='0']").first.focus()
    watched.page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert watched.listed()[0].endswith("/3")


def test_the_list_is_searched_by_the_slash_key(watched: Watched) -> None:
    watched.page.keyboard.press("/")
    watched.page.keyboard.type("failed")
    failed = watched.trials("trial.status === 'failed'")
    assert failed
    watched.page.wait_for_function(f"document.querySelector('#count').textContent.startsWith('{failed} of')")
    watched.page.fill("#q", "no such trial")
    assert "No trial is left" in watched.page.inner_text("#list tbody")


def test_chips_filter_charts_and_list_at_once_by_mouse_and_keyboard(watched: Watched) -> None:
    watched.scroll_through()
    pruned = watched.page.locator(".chips.statuses button", has_text="pruned")
    pruned.click()
    assert watched.shown() == watched.trials("trial.status !== 'pruned'") < watched.trials()
    pruned.focus()
    watched.page.keyboard.press("Space")
    assert watched.shown() == watched.trials()
    watched.page.locator("#search .chips.encoders button").first.click()
    pressed = watched.page.locator(".chips.encoders button[aria-pressed=false]")
    assert pressed.count() == 2  # the same encoder above the charts and above the list
    assert watched.said == []


def test_a_trial_has_its_own_address_and_the_arrows_walk_the_list(browser: Any, page_file: Path) -> None:
    seen = Watched(browser, page_file)
    failed = seen.page.evaluate("TRIALS.find(trial => trial.status === 'failed')")
    seen.page.evaluate(f"location.hash = '#trial-{failed['id']}'")
    seen.page.wait_for_function("document.querySelector('#trial').open")
    assert failed["why"] in seen.page.inner_text("#trial")
    assert "Traceback" in seen.page.locator("#trial pre").first.inner_text()
    seen.page.keyboard.press("Escape")
    seen.page.wait_for_function("!document.querySelector('#trial').open")
    assert seen.page.evaluate("location.hash") == "#trials"
    first, second = seen.listed()[:2]
    seen.page.locator("#list tbody tr a").first.focus()
    seen.page.keyboard.press("Enter")
    seen.page.wait_for_function("document.querySelector('#trial').open")
    assert seen.page.inner_text("#t-title") == f"Trial {first}"
    seen.page.keyboard.press("ArrowRight")
    seen.page.wait_for_function(f"document.querySelector('#t-title').textContent === 'Trial {second}'")
    assert seen.page.locator("#t-curve canvas").count() == 1
    assert seen.said == []
    seen.context.close()


def test_a_range_brushed_on_an_axis_is_what_the_list_shows(watched: Watched) -> None:
    watched.page.locator("#parallel").scroll_into_view_if_needed()
    watched.page.wait_for_selector("#parallel canvas")
    box = watched.page.locator("#parallel").bounding_box()
    x, y = box["x"] + box["width"] - 44, box["y"] + 45
    watched.page.mouse.move(x, y)
    watched.page.mouse.down()
    watched.page.mouse.move(x, y + 60, steps=6)
    watched.page.mouse.up()
    watched.page.wait_for_function(f"!document.querySelector('#count').textContent.startsWith('{watched.trials()} ')")
    scores = [float(text) for text in watched.page.locator("#list tbody tr td:nth-child(4)").all_inner_texts()]
    best = watched.page.evaluate("Math.max(...SEARCHED.map(trial => trial.dice ?? 0))")
    assert scores and min(scores) > 0.5 * best
    watched.page.click("#unbrush")
    assert watched.shown() == watched.trials()
    assert watched.said == []


def test_light_and_dark_by_the_button_recolour_the_charts(watched: Watched) -> None:
    watched.scroll_through()
    before = watched.page.locator("#pareto canvas").evaluate("c => c.toDataURL()")
    watched.page.click("#theme")
    assert watched.page.evaluate("document.documentElement.style.colorScheme") == "dark"
    assert watched.page.locator("#pareto canvas").evaluate("c => c.toDataURL()") != before


def test_outlines_are_switched_off_by_a_key(watched: Watched) -> None:
    watched.page.keyboard.press("o")
    assert watched.page.locator(".pic path").first.evaluate("p => getComputedStyle(p).visibility") == "hidden"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_shut_out(browser: Any, page_file: Path, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the extra browser is not installed")
    seen = Watched(browser, page_file, scheme=scheme)
    seen.scroll_through()
    violations = axe.Axe().run(seen.page).response["violations"]
    assert [(found["id"], found["nodes"][0]["html"][:200]) for found in violations] == []
    seen.context.close()


@pytest.mark.parametrize("trials", [0, 1])
def test_a_study_of_one_trial_or_none_has_a_page_that_works(browser: Any, tmp_path: Path, trials: int) -> None:
    (tmp_path / "study.json").write_text("{}")
    for number in range(trials):
        write_trial(Folder(tmp_path / "trials" / f"{number:04d}"), status="running")
    seen = Watched(browser, Path(write_report(str(tmp_path), Folder(tmp_path))[0]))
    seen.scroll_through()
    assert seen.said == []
    seen.context.close()


def test_text_from_the_study_runs_nothing(browser: Any, tmp_path: Path) -> None:
    nasty = "</script><script>document.title='x'</script><img src=x onerror=\"document.title='x'\">"
    settings = {"status": "failed", "reason": nasty, "traceback": nasty, "encoder": nasty}
    write_trial(Folder(tmp_path / "trials" / "0000"), **settings)  # type: ignore[arg-type]
    write_trial(Folder(tmp_path / "trials" / nasty.replace("/", "")), dice=(0.1, 0.2), encoder=nasty)
    file = Path(write_report(str(tmp_path), Folder(tmp_path))[0])
    seen = Watched(browser, file, anchor="#trial-0000")
    seen.page.keyboard.press("Escape")
    seen.scroll_through()
    seen.page.locator("#list tbody tr a").first.click()
    assert "MammoSearch" in seen.page.title()
    assert seen.page.locator("img").count() == 0
    assert seen.said == []
    seen.context.close()
