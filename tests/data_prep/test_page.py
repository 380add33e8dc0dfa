from pathlib import Path

import jinja2
import pytest

from data_prep.look.page import inlined_json, inlined_script, render_page


def template(folder: Path, body: str) -> Path:
    (folder / "x.html.j2").write_text('{% extends "page.html.j2" %}{% block main %}' + body + "{% endblock %}")
    return folder


def test_values_are_escaped_and_the_title_too(tmp_path: Path) -> None:
    page = render_page(
        "x.html.j2", title="<b>", sections=[("a", "<i>")], folders=[template(tmp_path, "{{ text }}")], text="<script>"
    )
    assert "<title>&lt;b&gt; · MammoSearch</title>" in page
    assert "&lt;script&gt;" in page and "&lt;i&gt;" in page


def test_a_value_that_was_forgotten_is_an_error_and_no_gap(tmp_path: Path) -> None:
    with pytest.raises(jinja2.UndefinedError, match="text"):
        render_page("x.html.j2", title="t", sections=[], folders=[template(tmp_path, "{{ text }}")])


def test_nothing_in_a_script_or_in_json_ends_its_element() -> None:
    assert "</script" not in inlined_script('a = "</script>"')
    assert inlined_json({"a": "</script><!-- & \u2028"}) == '{"a":"\\u003c/script\\u003e\\u003c!-- \\u0026 \\u2028"}'


def test_json_has_no_nan() -> None:
    with pytest.raises(ValueError, match="JSON"):
        inlined_json([float("nan")])
