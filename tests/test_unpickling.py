"""python -m pytest tests/test_unpickling.py: nothing that comes from outside can bring code with it."""

import ast
from collections.abc import Iterator

import pytest

from tests.file_tree import ROOT

FORBIDDEN = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle")
"""Modules whose reading runs what the file says."""
PACKAGES = [file.parent for file in ROOT.glob("*/__init__.py") if file.parent.name != "tests"]
OUR_OWN = ("data_prep/on_ray.py: pickle",)
"""What our own processes hand each other on one Ray, which pickles whatever it carries: nothing from outside."""
FILES = [path for package in PACKAGES for path in sorted(package.rglob("*.py"))]


def found(text: str) -> Iterator[str]:
    """What a source reads without a guard, with its line."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (f"line {node.lineno}: {name}" for name in names if name.split(".")[0] in FORBIDDEN)
        if isinstance(node, ast.Call) and (fault := _fault(node)):
            yield f"line {node.lineno}: {fault}"


def _fault(call: ast.Call) -> str:
    name = ast.unparse(call.func)
    told = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if name in ("torch.load", "timm.models.load_state_dict") and told.get("weights_only") != "True":
        return f"{name} without weights_only=True"
    if name in ("torch.jit.load", "pd.read_pickle", "pandas.read_pickle", "torch.hub.load"):
        return name
    if told.get("allow_pickle", "False") != "False":
        return f"{name} with allow_pickle"
    if (name.startswith("yaml.") and name.endswith(("unsafe_load", "full_load"))) or told.get("typ") == "'unsafe'":
        return name
    return ""


def test_no_module_reads_what_may_hold_code() -> None:
    seen = {path.relative_to(ROOT).as_posix(): list(found(path.read_text())) for path in FILES}
    assert len(seen) > 150
    faults = {f"{path}: {fault.split(': ')[-1]}" for path, faults in seen.items() for fault in faults}
    assert faults == set(OUR_OWN)


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "timm.models.load_state_dict(path)",
        "np.load(file, allow_pickle=True)",
        "pd.read_pickle(file)",
        "YAML(typ='unsafe')",
        "yaml.unsafe_load(text)",
    ],
)
def test_what_may_hold_code_is_seen(text: str) -> None:
    assert len(list(found(text))) == 1


@pytest.mark.parametrize(
    "text", ["torch.load(file, weights_only=True)", "np.load(file)", "YAML(typ='safe')", "model.load_state_dict(state)"]
)
def test_what_holds_none_passes(text: str) -> None:
    assert list(found(text)) == []
