"""ONNX: the network for ONNX Runtime, in float32 and in int8."""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

from clinic.export.network import Probability, check_copy
from clinic.runtime.onnx import OnnxRuntime

OPSET = 18


def to_onnx(network: nn.Module, image_B1SS: np.ndarray) -> bytes:
    """The network as an ONNX file: `image` (B, 1, S, S) to `probability`, checked against float64.

    Args:
        network: on the CPU; gives logits.
        image_B1SS: real samples to check it on, float32 in [0, 1].

    Raises:
        ValueError: the network cannot be written as ONNX, or the file does not give what the network gives.
    """
    buffer = io.BytesIO()
    example_B1SS = torch.from_numpy(np.ascontiguousarray(np.resize(image_B1SS, (2, *image_B1SS.shape[1:]))))
    batch = {"image": {0: "batch"}, "probability": {0: "batch"}}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter warns of itself, and of every shape that it traces
            torch.onnx.export(
                Probability(network).eval(),
                (example_B1SS,),
                cast(Any, buffer),  # torch takes a file in memory, its annotations do not
                dynamo=False,  # as exact, and many times faster to write
                opset_version=OPSET,
                input_names=["image"],
                output_names=["probability"],
                dynamic_axes=batch,
            )
    except Exception as error:  # torch's exporters have no exception of their own
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"onnx: this network cannot be written as ONNX: {reason}") from error
    content = buffer.getvalue()
    onnx.checker.check_model(content)
    check_copy(network, OnnxRuntime(content, threads=None)(image_B1SS), image_B1SS, "onnx")
    return content


def to_int8(content: bytes, image_B1SS: np.ndarray) -> bytes:
    """An ONNX file in 8-bit integers (QDQ, U8S8, per channel, MinMax), calibrated on images.

    Args:
        content: from `to_onnx`.
        image_B1SS: training samples, float32 in [0, 1].
    """
    logging.getLogger("root").addFilter(_no_advice)  # it recommends what has been done
    try:
        with tempfile.TemporaryDirectory() as folder:
            plain, ready, small = (Path(folder) / name for name in ("plain.onnx", "ready.onnx", "small.onnx"))
            plain.write_bytes(content)
            quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
            quantize_static(
                str(ready),
                str(small),
                _Images(image_B1SS),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
            return small.read_bytes()
    finally:
        logging.getLogger("root").removeFilter(_no_advice)


def _no_advice(record: logging.LogRecord) -> bool:
    return "pre-processing" not in record.getMessage()


class _Images(CalibrationDataReader):
    """Images one by one, as the quantiser asks for them."""

    def __init__(self, image_B1SS: np.ndarray) -> None:
        self._left: Iterator[np.ndarray] = iter(image_B1SS)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next image, or None."""
        image_1SS = next(self._left, None)
        return None if image_1SS is None else {"image": image_1SS[None]}
