"""The safetensors file of a model folder, run by torch: on a GPU where there is one."""

from __future__ import annotations

import numpy as np
import torch

from clinic.runtime.variants import Variant, read_checked
from cluster.storage import Folder
from trainables.model.folder import load_network
from trainables.model.info import ModelInfo
from trainables.step.worker import default_device


def load(folder: Folder, info: ModelInfo, variant: Variant, threads: int | None) -> TorchRuntime:
    """The network of a model folder, with the variant's own weights where it has some.

    Raises:
        ValueError: the weights are damaged, or do not fit.
    """
    own = next(iter(variant.files), None)
    content = None if own is None else read_checked(folder, variant, own)
    return TorchRuntime(load_network(folder, info, content), device=default_device(), threads=threads)


class TorchRuntime:
    """A network that gives logits, as a runtime.

    Args:
        network: images (B, 1, S, S) in [0, 1] to logits of the same shape.
        device: where it runs.
        threads: CPU threads of torch, for the whole process; None leaves them as they are.
    """

    def __init__(self, network: torch.nn.Module, *, device: str, threads: int | None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._device = torch.device(device)
        self._network = network.to(self._device).eval()

    @torch.inference_mode()
    def __call__(self, image_B1SS: np.ndarray) -> np.ndarray:
        """Probabilities, float32."""
        logits_B1SS = self._network(torch.from_numpy(image_B1SS).to(self._device))
        return logits_B1SS.float().sigmoid().cpu().numpy()
