"""The file tree of docs/layout.md, made from what each file says of itself: `make tree` writes it, a test compares it.

A module's comment is the first sentence of its docstring, a Markdown file's its first heading, any other file's its
first comment line.
"""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAYOUT = ROOT / "docs" / "layout.md"
FOLDERS = ("cluster", "data_prep", "trainables", "search", "results", "mammosearch", "configs", "docs", "benchmarks")
BEGIN, END = "<!-- tree: begin (made by `make tree`) -->", "<!-- tree: end -->"


def render(root: Path = ROOT) -> str:
    """The tree as a Markdown code block."""
    lines: list[str] = []
    for folder in FOLDERS:
        if files := _files(root, folder):
            lines += ["", *_folder(root, Path(folder), files)]
    return "\n".join(["```", *lines[1:], "```"])


def comment(file: Path) -> str:
    """One line on what a file is for, from the file itself; empty if it does not say."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        docstring = ast.get_docstring(ast.parse(text)) or ""
        marked = "  [Ray]" if "[Ray]" in docstring.split("\n\n")[0] else ""
        paragraph = re.sub(r"\s*\[Ray\]", "", " ".join(docstring.split("\n\n")[0].split()))
        return re.split(r"(?<=\.)\s", paragraph)[0].rstrip(".:") + marked if paragraph else ""
    starts = ("# ",) if file.suffix == ".md" else ("# ", "// ")
    lines = (line for line in text.splitlines() if line.startswith(starts) and "yaml-language-server" not in line)
    line = next(lines, "")
    return line.lstrip("#/ ").rstrip(".:")


def in_layout() -> str:
    """What stands between the marks of the LAYOUT."""
    text = LAYOUT.read_text(encoding="utf-8")
    return text.split(BEGIN)[1].split(END)[0].strip()


def write() -> None:
    """Put the tree between the marks of the LAYOUT."""
    text = LAYOUT.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    LAYOUT.write_text(f"{before}{BEGIN}\n{render()}\n{END}{after}", encoding="utf-8")


def _folder(root: Path, folder: Path, files: list[str]) -> list[str]:
    """A folder's line, its files, then its folders."""
    depth = "  " * (len(folder.parts) - 1)
    about = comment(root / folder / "__init__.py") if f"{folder}/__init__.py" in files else ""
    here = [Path(file) for file in files if Path(file).parent == folder and "__init__" not in file]
    inside = sorted({folder / Path(file).relative_to(folder).parts[0] for file in files if Path(file).parent != folder})
    lines = [_line(f"{depth}{folder.name}/", about)]
    lines += [_line(f"{depth}  {file.name}", comment(root / file)) for file in here]
    return lines + [
        line for sub in inside for line in _folder(root, sub, [f for f in files if Path(f).is_relative_to(sub)])
    ]


def _files(root: Path, folder: str) -> list[str]:
    """The folder's files that git knows; the command first."""
    command = ["git", "-C", str(root), "ls-files", "--", folder]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    present = {file for file in listed if (root / file).exists() and not file.endswith("/py.typed")}
    return sorted(present, key=lambda file: (not file.endswith("/run.py"), file))


def _line(name: str, about: str) -> str:
    return f"{name:<24}{about}".rstrip()


if __name__ == "__main__":
    write()
