"""The page in a browser: a person accepts, redraws, rejects; nothing leaves it but to the service."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from clinic.archive.identity import Pseudonyms
from clinic.serve import pages
from clinic.serve.answer import Answerer, AnswerJob
from clinic.serve.app import Service, make_app
from clinic.serve.corrections import Corrections
from clinic.serve.gate import Gate, ServiceLimits
from clinic.serve.metrics import Metrics
from clinic.serve.server import Here
from data_prep.read.masks import read_mask
from tests.clinic.fakes import bright_model, draw_film, film_file, write_small_model
from tests.clinic.services import TOKEN, listening

CHROMIUM = Path("/usr/bin/chromium")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `browser`)")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="/usr/bin/chromium is not installed"),
]


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept"


@pytest.fixture
def address(tmp_path: Path, kept: Path) -> Iterator[str]:
    answerer: Answerer = AnswerJob(models=(str(write_small_model(tmp_path / "small")),), threads=1).open()
    answerer.models[:] = [bright_model()]
    gate = Gate(TOKEN, ServiceLimits())
    corrections = Corrections(kept, Pseudonyms(b"0123456789abcdef0123456789abcdef"))
    service = Service(
        gate=gate, metrics=Metrics(gate), backend=Here(answerer, 1), model="bright", corrections=corrections
    )
    with listening(make_app(service, pages.router)) as found:
        yield found


@pytest.fixture
def page(address: str) -> Iterator:
    """The page, with what its console said and where its requests went."""
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1200, "height": 900})
        opened.said, opened.asked = [], []
        opened.on("console", lambda message: opened.said.append(message.text))
        opened.on("pageerror", lambda error: opened.said.append(str(error)))
        opened.on("request", lambda request: opened.asked.append(request.url))
        opened.goto(f"{address}/roi")
        yield opened
        browser.close()


def open_films(page, *films: Path, token: str = TOKEN) -> None:
    page.fill("#token", token)
    page.set_input_files("#films", [str(film) for film in films])


def decisions(kept: Path) -> list[str]:
    return list(pd.read_csv(kept / "decisions.csv").decision)


def test_a_person_accepts_redraws_and_rejects(page, address: str, kept: Path, tmp_path: Path):
    films = [film_file(tmp_path / "in", name) for name in ("one", "two", "three")]
    open_films(page, *films)
    page.wait_for_selector("main:not([hidden])", timeout=60_000)
    assert "1 of 3: one.dcm" in page.inner_text("#place")
    assert "Lesion 1" in page.inner_text("#found")
    page.click("#accept")
    page.wait_for_selector("#place:has-text('2 of 3')", timeout=60_000)
    page.keyboard.press("r")
    frame = page.locator("#lines").bounding_box()
    corners = [(40, 200), (140, 200), (140, 290), (40, 290), (40, 205)]
    x, y = ([frame[k] + (v[n] + 0.5) * frame[s] / size for v in corners] for n, (k, s, size) in enumerate(
        [("x", "width", 320), ("y", "height", 480)]))  # fmt: skip
    page.mouse.move(x[0], y[0])
    page.mouse.down()
    for across, down in zip(x[1:], y[1:], strict=True):
        page.mouse.move(across, down, steps=8)
    page.mouse.up()
    page.keyboard.press("s")
    page.wait_for_selector("#place:has-text('3 of 3')", timeout=60_000)
    page.keyboard.press("x")
    page.wait_for_selector("main[hidden]", state="attached", timeout=60_000)
    assert decisions(kept) == ["accept", "redraw", "reject"]
    table = pd.read_csv(kept / "pairs.csv")
    drawn_HW = read_mask(kept / table["mask"][1]).full()
    expected_HW = np.zeros((480, 320), np.uint8)
    expected_HW[200:291, 40:141] = 1
    assert (drawn_HW & expected_HW).sum() / (drawn_HW | expected_HW).sum() > 0.93
    assert page.locator("#done a").count() == 3
    assert page.said == []
    assert all(url.startswith((address, "blob:", "data:")) for url in page.asked)


def test_a_wrong_token_and_a_broken_film_are_said_in_words(page, tmp_path: Path):
    film = film_file(tmp_path / "in", "one")
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(b"nonsense")
    open_films(page, film, token="wrong")
    page.wait_for_selector("#status.bad", timeout=60_000)
    assert "token is needed" in page.inner_text("#status")
    open_films(page, broken, film)
    page.wait_for_selector("main:not([hidden])", timeout=60_000)
    assert "not usable: not_dicom" in page.inner_text("#done")
    assert page.inner_text("#place").startswith("2 of 2")


PAINTED = """() => {
    const canvas = document.getElementById("lines");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const across = [], down = [];
    for (let at = 3, n = 0; at < data.length; at += 4, n++)
        if (data[at] > 128) {
            across.push((n % canvas.width) / canvas.width);
            down.push(Math.floor(n / canvas.width) / canvas.height);
        }
    const ends = (values) => values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [1, 0]);
    return [...ends(across), ...ends(down)];
}"""
"""Left, right, top and bottom of what is painted, as shares of the film."""
ZOOM = """value => {
    const zoom = document.getElementById("zoom");
    zoom.value = value;
    zoom.dispatchEvent(new Event("input"));
}"""


def test_the_outline_lies_over_the_lesion_at_every_zoom(page, tmp_path: Path):
    open_films(page, film_file(tmp_path / "in", "one", draw_film()[0]))
    page.wait_for_selector("main:not([hidden])", timeout=60_000)
    for zoom in ("1", "2.5"):
        page.evaluate(ZOOM, zoom)
        left, right, top, bottom = page.evaluate(PAINTED)
        assert [left * 320, right * 320] == pytest.approx([60, 121], abs=5)
        assert [top * 480, bottom * 480] == pytest.approx([210, 271], abs=5)


def test_the_page_stays_usable_on_a_narrow_screen(page, tmp_path: Path):
    page.set_viewport_size({"width": 390, "height": 800})
    open_films(page, film_file(tmp_path / "in", "one"))
    page.wait_for_selector("main:not([hidden])", timeout=60_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    picture = page.screenshot()
    assert cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).shape[1] == 390
