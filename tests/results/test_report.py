import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cluster.storage import Folder
from results.report import render_report, write_report
from tests.results.example_study import write_trial


class _Tags(HTMLParser):
    """Which tags open and close, and every address that the page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(written_study: Path) -> str:
    return render_report(str(written_study))


def test_the_page_is_well_formed_and_needs_nothing_from_outside(page: str) -> None:
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    assert all(address.startswith(("data:", "#")) for address in tags.fetched)


def test_the_page_has_tables_curves_failures_trials_and_settings(page: str) -> None:
    pytest.importorskip("matplotlib")
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings == [
        "Architecture search (table II)",
        "Full training (table III)",
        "Validation curves",
        "Test images: truth green, prediction red",
        "Failures",
        "Trials",
        "Settings",
    ]
    assert "12 trials (10 complete, 1 pruned, 1 failed)" in page


def test_text_from_the_study_cannot_become_markup(page: str) -> None:
    assert "<loss>" not in page
    assert "&lt;loss&gt; is nan" in page


def test_a_study_without_an_epoch_has_a_page(tmp_path: Path) -> None:
    write_trial(Folder(tmp_path / "trials" / "0000"), role="baseline", status="pending")
    written = write_report(str(tmp_path), Folder(tmp_path))
    assert "1 trials (1 pending)" in Path(written[0]).read_text()
