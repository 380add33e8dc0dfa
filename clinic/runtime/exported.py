"""A .pt2 file, run by torch alone: neither segmentation-models-pytorch nor timm is imported.

torch's loader unpickles what such an archive marks as pickled, and evaluates expressions in it. A file that has either
is refused before torch sees it.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from typing import Any

import numpy as np
import torch

from clinic.runtime.variants import Variant, read_checked
from cluster.storage import Folder
from trainables.model.info import ModelInfo

PLAIN_ENTRY = re.compile(
    r"[^/]+/(?:data/weights/(?:weight_\d+|model_weights_config\.json)"
    r"|data/constants/(?:tensor_\d+|model_constants_config\.json)"
    r"|models/model\.json|archive_format|archive_version|byteorder|\.data/(?:version|serialization_id)|version)"
)
"""Entries that hold numbers or JSON; torch pickles nothing into them."""
EMPTY_ENTRY = re.compile(r"[^/]+/data/sample_inputs/model\.pt")
"""Would hold the example inputs as a pickle; empty in ours."""
PLAIN_EXPRESSION = re.compile(r"[A-Za-z]\w{0,30}|\d{1,9}|Symbol\('[a-z]\d{1,6}'(, (positive|integer)=True)*\)")
"""A symbol or a number. torch evaluates such text as Python, so any other is refused."""
MOST_JSON_BYTES = 64 * 1024 * 1024


def load(folder: Folder, info: ModelInfo, variant: Variant, threads: int | None) -> ExportedRuntime:
    """The program of the variant's file. Raises ValueError where it is damaged or holds more than a network."""
    content = read_checked(folder, variant, next(iter(variant.files)))
    check_archive(content, f"{folder}: {variant.name}")
    return load_exported(content, device="cuda" if torch.cuda.is_available() else "cpu", threads=threads)


def check_archive(content: bytes, where: str) -> None:
    """Refuse a .pt2 file that holds a pickle, code, or an expression that would be evaluated. Raises ValueError."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for entry in archive.infolist():
                if not (PLAIN_ENTRY.fullmatch(entry.filename) or _is_empty(entry)):
                    raise ValueError(
                        f"{where}: the file holds {entry.filename!r}, which may be a pickle, and is not loaded; what "
                        "`python -m clinic.run export` writes with torch 2.9 or newer holds none"
                    )
                if entry.filename.endswith(".json"):
                    if entry.file_size > MOST_JSON_BYTES:
                        raise ValueError(f"{where}: {entry.filename!r} is larger than that of any network")
                    _check_json(json.loads(archive.read(entry)), where)
    except (zipfile.BadZipFile, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{where}: the .pt2 file is damaged: {error}") from error


def _is_empty(entry: zipfile.ZipInfo) -> bool:
    return bool(EMPTY_ENTRY.fullmatch(entry.filename)) and entry.file_size == 0


def _check_json(value: Any, where: str) -> None:
    """Look through a JSON value, without recursion."""
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            if part.get("use_pickle"):
                raise ValueError(f"{where}: the .pt2 file marks a part of it as a pickle, and is not loaded")
            expression = part.get("expr_str")
            if expression is not None and not PLAIN_EXPRESSION.fullmatch(str(expression)):
                raise ValueError(
                    f"{where}: the .pt2 file holds an expression, {str(expression)[:40]!r}; it is not loaded"
                )
            pending += part.values()
        elif isinstance(part, list):
            pending += part


def load_exported(content: bytes, *, device: str, threads: int | None) -> ExportedRuntime:
    """The program of a checked .pt2 file (`check_archive`), as a runtime."""
    return ExportedRuntime(torch.export.load(io.BytesIO(content)).module(), device=device, threads=threads)


class ExportedRuntime:
    """A program that gives probabilities, as a runtime.

    Args:
        program: images (B, 1, S, S) in [0, 1] to probabilities of the same shape.
        device: where it runs.
        threads: CPU threads of torch, for the whole process; None leaves them as they are.
    """

    def __init__(self, program: torch.nn.Module, *, device: str, threads: int | None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._device = torch.device(device)
        self._program = program.to(self._device)

    @torch.inference_mode()
    def __call__(self, image_B1SS: np.ndarray) -> np.ndarray:
        """Probabilities, float32."""
        return np.asarray(self._program(torch.from_numpy(image_B1SS).to(self._device)).float().cpu().numpy())
