"""OpenVINO's form of a network, run on the CPU. Needs the extra `openvino`."""

from __future__ import annotations

import numpy as np
import openvino

from clinic.runtime.variants import Variant, read_checked
from cluster.storage import Folder
from trainables.model.info import ModelInfo


def load(folder: Folder, info: ModelInfo, variant: Variant, threads: int | None) -> OpenVinoRuntime:
    """The compiled network of the variant's two files. Raises ValueError where one is damaged."""
    xml, weights = (read_checked(folder, variant, file) for file in variant.files)
    return OpenVinoRuntime(xml, weights, threads=threads)


class OpenVinoRuntime:
    """A compiled network, as a runtime.

    Args:
        xml: the network's structure.
        weights: its weights.
        threads: of one prediction; None: as many as OpenVINO likes.
    """

    def __init__(self, xml: bytes, weights: bytes, *, threads: int | None) -> None:
        core = openvino.Core()
        settings: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        self._compiled = core.compile_model(core.read_model(xml, weights), "CPU", settings)

    def __call__(self, image_B1SS: np.ndarray) -> np.ndarray:
        """Probabilities, float32."""
        request = self._compiled.create_infer_request()  # one each, so that threads may predict side by side
        return np.array(request.infer([image_B1SS])[0])
