"""A model that is ready: image in, probability out, whatever the file behind it.

    model = open_model("models/seresnet50")          # the chosen variant; torch is imported only where it needs it
    probability_SS = model.probability(image_SS)

Shapes: B images of a batch, S side of the sample in pixels.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from clinic.runtime.variants import Kind, Variant, read_variants
from cluster.storage import Folder
from trainables.model.info import ModelInfo, read_info

Runtime = Callable[[np.ndarray], np.ndarray]
"""From images (B, 1, S, S), float32 in [0, 1], to probabilities (B, 1, S, S), float32 in [0, 1]."""

Flip = Literal["horizontal", "vertical"]
AXES: dict[Flip, int] = {"horizontal": -1, "vertical": -2}

MODULES: dict[Kind, tuple[str, str]] = {
    "weights": ("clinic.runtime.weights", "mammosearch"),
    "pt2": ("clinic.runtime.exported", "mammosearch"),
    "onnx": ("clinic.runtime.onnx", "mammosearch[clinic]"),
    "openvino": ("clinic.runtime.openvino", "mammosearch[openvino]"),
}
"""Kind of file -> the module that runs it, imported when a model wants it; and what brings its library."""


@dataclass(frozen=True)
class Model:
    """A network with its preprocessing and its threshold."""

    info: ModelInfo
    variant: Variant
    runtime: Runtime

    def probabilities(self, images_BSS: np.ndarray, *, flips: tuple[Flip, ...] = ()) -> np.ndarray:
        """The probability of a lesion in each pixel of some images.

        Args:
            images_BSS: uint8, of the size that the model was trained at.
            flips: mirrored copies whose probabilities are mirrored back and averaged with the images' own.

        Returns:
            (B, S, S) float32 in [0, 1].

        Raises:
            ValueError: the images are of another size.
        """
        self.info.check_size(*images_BSS.shape[1:])
        image_B1SS = images_BSS[:, None].astype(np.float32) / 255
        total_BSS = self.runtime(image_B1SS)[:, 0].copy()
        for flip in flips:
            mirrored = np.ascontiguousarray(np.flip(image_B1SS, AXES[flip]))
            total_BSS += np.flip(self.runtime(mirrored)[:, 0], AXES[flip])
        return total_BSS / (1 + len(flips))

    def probability(self, image_SS: np.ndarray, *, flips: tuple[Flip, ...] = ()) -> np.ndarray:
        """`probabilities` of one image: (S, S)."""
        return self.probabilities(image_SS[None], flips=flips)[0]


def open_model(path: str, *, variant: str | None = None, threads: int | None = None) -> Model:
    """Open a model folder.

    Args:
        path: path or URI.
        variant: which of its forms; None: the one that was chosen when it was exported, else `weights`.
        threads: CPU threads of the runtime; None: the library's default.

    Raises:
        ValueError: there is no model, no such variant, a file is damaged, or the library that runs it is not installed.
    """
    folder = Folder(path)
    info = read_info(folder)
    wanted = read_variants(folder).named(variant, str(folder))
    module, extra = MODULES[wanted.kind]
    try:
        load = importlib.import_module(module).load
    except ImportError as error:
        raise ValueError(f"variant {wanted.name!r} needs {error.name}: pip install '{extra}'") from error
    return Model(info, wanted, load(folder, info, wanted, threads))
