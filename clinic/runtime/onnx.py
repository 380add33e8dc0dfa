"""An ONNX file, in float32 or int8, run by ONNX Runtime on the CPU."""

from __future__ import annotations

import numpy as np
import onnxruntime

from clinic.runtime.variants import Variant, read_checked
from cluster.storage import Folder
from trainables.model.info import ModelInfo


def load(folder: Folder, info: ModelInfo, variant: Variant, threads: int | None) -> OnnxRuntime:
    """A session of the variant's file. Raises ValueError where it is damaged."""
    return OnnxRuntime(read_checked(folder, variant, next(iter(variant.files))), threads=threads)


class OnnxRuntime:
    """A session of ONNX Runtime, as a runtime.

    Args:
        content: of an ONNX file with the input `image` and the output `probability`.
        threads: of one prediction; None: one a core.
    """

    def __init__(self, content: bytes, *, threads: int | None) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads or 0
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def __call__(self, image_B1SS: np.ndarray) -> np.ndarray:
        """Probabilities, float32."""
        return np.asarray(self._session.run(["probability"], {"image": image_B1SS})[0])
