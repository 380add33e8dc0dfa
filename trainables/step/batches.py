"""Batches: the samples of a split, ready to be indexed, in the order of an epoch.

Shapes: N images of a split, B batch, H rows, W columns; S steps of an epoch.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trainables.config import TrialConfig
from trainables.data import Samples

ORDER_STREAM = 0
"""Keeps the draws of an epoch's order apart from others of the same seed and epoch."""
ON_DEVICE_SHARE = 0.25
"""Share of a GPU's free memory that samples may take; beyond it they stay in host memory."""


class Batches:
    """The samples of a split; on a GPU they are put there once if they fit.

    Args:
        samples: uint8 images and masks, e.g. memory maps shared by all trials of a machine.
        device: where batches are wanted.
    """

    def __init__(self, samples: Samples, device: torch.device) -> None:
        self._samples = samples
        self._device = device
        self._held: tuple[Tensor, Tensor] | None = None
        if device.type == "cuda":
            free_bytes, _ = torch.cuda.mem_get_info(device)
            if samples.images_NHW.nbytes + samples.masks_NHW.nbytes <= ON_DEVICE_SHARE * free_bytes:
                self._held = (_to_device(samples.images_NHW, device), _to_device(samples.masks_NHW, device))

    def __len__(self) -> int:
        return len(self._samples.images_NHW)

    def take(self, indices_B: np.ndarray) -> tuple[Tensor, Tensor]:
        """Images (B, 1, H, W) in [0, 1] and masks (B, 1, H, W) of 0 and 1, float32, on the device."""
        if self._held is not None:
            index_B = torch.from_numpy(indices_B).to(self._device, non_blocking=True)
            image_BHW, mask_BHW = (held.index_select(0, index_B) for held in self._held)
        else:
            image_BHW, mask_BHW = (
                self._gather(a, indices_B) for a in (self._samples.images_NHW, self._samples.masks_NHW)
            )
        return image_BHW.unsqueeze(1).float().div_(255), mask_BHW.unsqueeze(1).float()

    def lesion_px(self) -> np.ndarray:
        """How many pixels of each image are lesion: int64 (N,)."""
        masks_NHW = self._samples.masks_NHW
        return np.array([np.count_nonzero(mask_HW) for mask_HW in masks_NHW], dtype=np.int64)

    def _gather(self, array_NHW: np.ndarray, indices_B: np.ndarray) -> Tensor:
        picked = torch.from_numpy(array_NHW[indices_B])
        if self._device.type == "cuda":
            return picked.pin_memory().to(self._device, non_blocking=True)
        return picked.to(self._device)


def epoch_order(batches: Batches, config: TrialConfig, epoch: int) -> np.ndarray:
    """The images of each global batch of an epoch, from (seed, epoch) and the lesions alone: int64 (S, batch).

    Each image once, in a random order; where small lesions are favoured, as many draws with replacement. An incomplete
    last batch is left out, unless it is the only one.
    """
    images = len(batches)
    generator = np.random.default_rng([config.seed, epoch, ORDER_STREAM])
    if config.small_lesion_power:
        odds_N = draw_odds(batches.lesion_px(), config.small_lesion_power)
        order_N = generator.choice(images, size=images, p=odds_N)
    else:
        order_N = generator.permutation(images)
    batch = min(config.batch_size, images)
    return order_N[: images // batch * batch].reshape(-1, batch)


def draw_odds(lesion_px_N: np.ndarray, power: float) -> np.ndarray:
    """How probable each image is at a draw: its lesion's area to the power of -p, relative to the median lesion.

    Args:
        lesion_px_N: pixels of lesion; an image without one counts as the median.
        power: 0 for equal odds, 1 for odds as the inverse of the area.

    Returns:
        float64 (N,) that sums to 1.
    """
    area_N = lesion_px_N.astype(np.float64)
    has_lesion_N = area_N > 0
    median = np.median(area_N[has_lesion_N]) if has_lesion_N.any() else 1.0
    weight_N = np.where(has_lesion_N, np.maximum(area_N, 1) / median, 1.0) ** -power
    return weight_N / weight_N.sum()


def share(images: int, rank: int, world_size: int) -> slice:
    """The contiguous part of `images` that is this worker's; sizes differ by one at most, the first are larger."""
    even, left = divmod(images, world_size)
    start = rank * even + min(rank, left)
    return slice(start, start + even + (rank < left))


def parts_of(images: int, accumulation: int) -> int:
    """Into how many parts a worker's share of a batch is split.

    As many as are asked for; a short share that they do not divide into fewer, of two images at least: batch norm may
    have nothing to normalise by in one.
    """
    return accumulation if images % accumulation == 0 else max(min(accumulation, images // 2), 1)


def _to_device(array: np.ndarray, device: torch.device) -> Tensor:
    # A memory map is read-only, which torch warns of: a copy in host memory is needed for the transfer anyway.
    return torch.from_numpy(np.array(array)).to(device)
