"""Augmentation of whole batches on the device that trains: rotation (the paper's), flips, brightness, contrast.

The random values of an epoch are drawn at once for all its images in their order, on the CPU, from (seed, epoch)
alone: one worker and two therefore see the same images, and a resumed epoch the same as an uninterrupted one. Each
kind is drawn whether it is switched on or not, so that switching one on does not change the others.

Shapes: N images of an epoch in their order, B batch, H rows, W columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.config import TrialConfig

AUGMENT_STREAM = 1
"""Keeps these draws apart from others of the same seed and epoch."""


@dataclass(frozen=True)
class Augmentation:
    """What is done to each of some images. A tensor is None where nothing of its kind is done to any."""

    theta_N22: Tensor | None
    """Rotations and flips: matrices from a place (x, y) of the new image to the place of the old one, float32, both
    measured from the image's centre."""
    shift_N: Tensor | None
    """Added to the image, float32."""
    factor_N: Tensor | None
    """Stretches the image around its mean, float32."""

    def __getitem__(self, part: slice) -> Augmentation:
        """Those of some of the images."""
        return Augmentation(*(None if t is None else t[part] for t in (self.theta_N22, self.shift_N, self.factor_N)))


def draw(config: TrialConfig, *, epoch: int, images: int, device: torch.device) -> Augmentation:
    """Random augmentations for the images of an epoch, in their order.

    Args:
        config: ranges of rotation, flips, brightness and contrast, and the seed.
        epoch: which epoch, from 0.
        images: how many.
        device: where the values are put.
    """
    generator = np.random.default_rng([config.seed, epoch, AUGMENT_STREAM])
    turn_N, across_N, down_N, shift_N, factor_N = generator.uniform(-1, 1, size=(5, images))

    def put(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(device)

    flip_x_N = np.where((across_N > 0) & config.flip_horizontal, -1.0, 1.0)
    flip_y_N = np.where((down_N > 0) & config.flip_vertical, -1.0, 1.0)
    moves = config.rotation_degrees > 0 or config.flip_horizontal or config.flip_vertical
    return Augmentation(
        theta_N22=put(_affine(turn_N * math.radians(config.rotation_degrees), flip_x_N, flip_y_N)) if moves else None,
        shift_N=put(shift_N * config.brightness) if config.brightness else None,
        factor_N=put(1 + factor_N * config.contrast) if config.contrast else None,
    )


def apply(image_B1HW: Tensor, mask_B1HW: Tensor, augmentation: Augmentation) -> tuple[Tensor, Tensor]:
    """Augment a batch: images bilinear, masks nearest, black and no lesion where the frame leaves the image.

    Args:
        image_B1HW: float32 in [0, 1].
        mask_B1HW: float32, 0 and 1.
        augmentation: of B images.

    Returns:
        Images in [0, 1] and masks of 0 and 1, of the same shapes and types.
    """
    if augmentation.theta_N22 is not None:
        grid_BHW2 = _grid(augmentation.theta_N22, image_B1HW.shape[2], image_B1HW.shape[3])
        image_B1HW = F.grid_sample(image_B1HW, grid_BHW2, mode="bilinear", align_corners=False)
        mask_B1HW = F.grid_sample(mask_B1HW, grid_BHW2, mode="nearest", align_corners=False)
    if augmentation.factor_N is not None:
        mean_B111 = image_B1HW.mean((1, 2, 3), keepdim=True)
        image_B1HW = (image_B1HW - mean_B111) * augmentation.factor_N.view(-1, 1, 1, 1) + mean_B111
    if augmentation.shift_N is not None:
        image_B1HW = image_B1HW + augmentation.shift_N.view(-1, 1, 1, 1)
    if augmentation.factor_N is not None or augmentation.shift_N is not None:
        image_B1HW = image_B1HW.clamp(0, 1)
    return image_B1HW, mask_B1HW


def _affine(radians_N: np.ndarray, flip_x_N: np.ndarray, flip_y_N: np.ndarray) -> np.ndarray:
    """(N, 2, 2) matrices that turn, then mirror; the image is square, so angles are angles."""
    cos_N, sin_N = np.cos(radians_N), np.sin(radians_N)
    x_N2 = np.stack([cos_N * flip_x_N, -sin_N * flip_x_N], axis=1)
    y_N2 = np.stack([sin_N * flip_y_N, cos_N * flip_y_N], axis=1)
    return np.stack([x_N2, y_N2], axis=1)


def _grid(theta_B22: Tensor, rows: int, columns: int) -> Tensor:
    """Where each pixel comes from, for `grid_sample`: (B, H, W, 2) in [-1, 1].

    What `torch.nn.functional.affine_grid` gives, in a tenth of its time on a CPU.
    """
    x_W = (torch.arange(columns, device=theta_B22.device) * 2 + 1) / columns - 1
    y_H = (torch.arange(rows, device=theta_B22.device) * 2 + 1) / rows - 1
    place_2P = torch.stack([x_W.expand(rows, columns), y_H.unsqueeze(1).expand(rows, columns)]).view(2, -1)
    return (theta_B22 @ place_2P).view(-1, 2, rows, columns).permute(0, 2, 3, 1)
