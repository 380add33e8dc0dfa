"""One HTML page that needs nothing beside it: style and scripts inlined, no network, every text from a file escaped.

The page of a shard folder's quality and the report of a study are templates that extend `web/page.html.j2`. Its
Content-Security-Policy lets the browser load nothing and run only the scripts whose hashes stand in it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

WEB = Path(__file__).parent / "web"


def render_page(
    template: str,
    *,
    title: str,
    sections: Sequence[tuple[str, str]],
    folders: Sequence[Path] = (),
    styles: Sequence[Path] = (),
    scripts: Sequence[Path] = (),
    **values: Any,
) -> str:
    """Fill a template that extends `page.html.j2`.

    Args:
        template: its file name in one of `folders`, or beside `page.html.j2`.
        title: of the page; plain text.
        sections: (id, name) of the sections that the bar at the top leads to.
        folders: where templates are looked for, besides `web/`.
        styles: CSS files that follow the shared one.
        scripts: JavaScript files that run after the shared one, in this order.
        values: what the template needs. Text is escaped; `Markup` is not.

    Raises:
        jinja2.UndefinedError: the template uses a value that was not given.
    """
    inlined = [inlined_script(file.read_text(encoding="utf-8")) for file in (WEB / "page.js", *scripts)]
    page = environment(*folders).get_template(template)
    return page.render(
        title=title,
        sections=sections,
        styles=[Markup(file.read_text(encoding="utf-8")) for file in (WEB / "page.css", *styles)],
        scripts=inlined,
        script_hashes=Markup(" ".join(_hash(script) for script in inlined)),
        **values,
    )


def environment(*folders: Path) -> jinja2.Environment:
    """Templates in `folders` and beside this module: autoescaped, and strict about values that are missing."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, WEB]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def inlined_script(text: str) -> Markup:
    """A script as the content of a `<script>`: nothing in it can end the element."""
    return Markup(text.replace("</script", "<\\/script").replace("<!--", "<\\!--"))


def inlined_json(value: Any) -> Markup:
    """A value as the content of a `<script type="application/json">`.

    Raises:
        ValueError: it holds a NaN or an infinity, which JSON does not have.
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    # JavaScript before 2019 took the two line separators for the end of a line.
    for character in ("<", ">", "&", "\u2028", "\u2029"):
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _hash(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"
