"""OpenVINO: the network in 8-bit integers by NNCF, for Intel's processors. Needs the extra `openvino`."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from pathlib import Path

import nncf
import numpy as np
import openvino


def to_openvino(content: bytes, image_B1SS: np.ndarray) -> dict[str, bytes]:
    """An ONNX file in OpenVINO's form, quantised: its `.xml` and its `.bin`.

    Args:
        content: from `clinic.export.onnx.to_onnx`.
        image_B1SS: training samples, float32 in [0, 1].
    """
    nncf.set_log_level(logging.ERROR)
    model = openvino.Core().read_model(content)
    images = nncf.Dataset([image_1SS[None] for image_1SS in image_B1SS])
    with contextlib.redirect_stdout(io.StringIO()):  # its moving line is not ours
        small = nncf.quantize(model, images, preset=nncf.QuantizationPreset.MIXED, subset_size=len(image_B1SS))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(small, path)
        return {suffix: path.with_suffix(suffix).read_bytes() for suffix in (".xml", ".bin")}
