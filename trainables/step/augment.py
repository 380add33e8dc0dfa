"""Augmentation of whole batches on the device that trains: rotation (the paper's), flips, zoom, elastic, grey values.

The random values of an epoch are drawn at once for all its images in their order, on the CPU, from (seed, epoch)
alone: one worker and two therefore see the same images, and a resumed epoch the same as an uninterrupted one. Each
kind is drawn whether it is switched on or not, so that switching one on does not change the others. Libraries of
augmentations draw from a process's own random state, image by image, and could promise neither.

All that moves pixels is one resampling, so that an image is smoothed once.

Shapes: N images of an epoch in their order, B batch, H rows, W columns, G control points a side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.config import TrialConfig

AUGMENT_STREAM = 1
"""Keeps these draws apart from others of the same seed and epoch."""
CONTROL_POINTS = 5
"""A side, of the elastic deformation: neighbours are a quarter of the image apart."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is done to each of some images. A tensor is None where nothing of its kind is done to any."""

    theta_N22: Tensor | None = None
    """Rotations, flips and zooms: matrices from a place (x, y) of the new image to the place of the old one, float32,
    both measured from the image's centre."""
    warp_N2GG: Tensor | None = None
    """Elastic: how far (x, y) the place of the old image is moved at each control point, in half sides, float32."""
    shift_N: Tensor | None = None
    """Added to the image, float32."""
    factor_N: Tensor | None = None
    """Stretches the image around its mean, float32."""
    exponent_N: Tensor | None = None
    """Gamma: the power that grey values are raised to, float32."""
    centre_N2: Tensor | None = None
    """Cutout: centre (x, y) of the black square, in half sides from the image's centre, float32."""
    half_side: float = 0.0
    """Cutout: half the square's side, in half sides of the image."""

    def __getitem__(self, part: slice) -> Augmentation:
        """Those of some of the images."""
        changes: dict[str, Any] = {
            field.name: value[part] for field in fields(self) if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **changes)


def draw(config: TrialConfig, *, epoch: int, images: int, device: torch.device) -> Augmentation:
    """Random augmentations for the images of an epoch, in their order.

    Args:
        config: the ranges, and the seed.
        epoch: which epoch, from 0.
        images: how many.
        device: where the values are put.
    """
    generator = np.random.default_rng([config.seed, epoch, AUGMENT_STREAM])
    turn_N, across_N, down_N, shift_N, factor_N = generator.uniform(-1, 1, size=(5, images))
    zoom_N, gamma_N, x_N, y_N = generator.uniform(-1, 1, size=(4, images))
    warp_N2GG = generator.uniform(-1, 1, size=(images, 2, CONTROL_POINTS, CONTROL_POINTS))

    def put(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(device)

    flip_x_N = np.where((across_N > 0) & config.flip_horizontal, -1.0, 1.0)
    flip_y_N = np.where((down_N > 0) & config.flip_vertical, -1.0, 1.0)
    smaller_N = (1 + config.zoom) ** -zoom_N
    theta_N22 = _affine(turn_N * math.radians(config.rotation_degrees), flip_x_N * smaller_N, flip_y_N * smaller_N)
    moves = config.rotation_degrees > 0 or config.flip_horizontal or config.flip_vertical or config.zoom > 0
    return Augmentation(
        theta_N22=put(theta_N22) if moves else None,
        warp_N2GG=put(warp_N2GG * 2 * config.elastic) if config.elastic else None,
        shift_N=put(shift_N * config.brightness) if config.brightness else None,
        factor_N=put(1 + factor_N * config.contrast) if config.contrast else None,
        exponent_N=put((1 + config.gamma) ** gamma_N) if config.gamma else None,
        centre_N2=put(np.stack([x_N, y_N], axis=1)) if config.cutout else None,
        half_side=config.cutout,
    )


def apply(image_B1HW: Tensor, mask_B1HW: Tensor, augmentation: Augmentation) -> tuple[Tensor, Tensor]:
    """Augment a batch: images bilinear, masks nearest, black and no lesion where the frame leaves the image.

    Args:
        image_B1HW: float32 in [0, 1].
        mask_B1HW: float32, 0 and 1.
        augmentation: of B images.

    Returns:
        Images in [0, 1] and masks of 0 and 1, of the same shapes and types. A cutout leaves the mask as it is.
    """
    if augmentation.theta_N22 is not None or augmentation.warp_N2GG is not None:
        grid_BHW2 = _grid(augmentation, image_B1HW)
        image_B1HW = F.grid_sample(image_B1HW, grid_BHW2, mode="bilinear", align_corners=False)
        mask_B1HW = F.grid_sample(mask_B1HW, grid_BHW2, mode="nearest", align_corners=False)
    image_B1HW = _greys(image_B1HW, augmentation)
    if augmentation.centre_N2 is not None:
        image_B1HW = image_B1HW * _outside_square(augmentation.centre_N2, augmentation.half_side, image_B1HW)
    return image_B1HW, mask_B1HW


def _greys(image_B1HW: Tensor, augmentation: Augmentation) -> Tensor:
    """Contrast, brightness and gamma, kept within [0, 1]."""
    if augmentation.factor_N is not None:
        mean_B111 = image_B1HW.mean((1, 2, 3), keepdim=True)
        image_B1HW = (image_B1HW - mean_B111) * augmentation.factor_N.view(-1, 1, 1, 1) + mean_B111
    if augmentation.shift_N is not None:
        image_B1HW = image_B1HW + augmentation.shift_N.view(-1, 1, 1, 1)
    if augmentation.factor_N is not None or augmentation.shift_N is not None:
        image_B1HW = image_B1HW.clamp(0, 1)
    if augmentation.exponent_N is not None:
        image_B1HW = image_B1HW ** augmentation.exponent_N.view(-1, 1, 1, 1)
    return image_B1HW


def _outside_square(centre_B2: Tensor, half_side: float, image_B1HW: Tensor) -> Tensor:
    """0 within the square and 1 elsewhere: (B, 1, H, W)."""
    x_W, y_H = _places(image_B1HW.shape[3], centre_B2), _places(image_B1HW.shape[2], centre_B2)
    in_x_BW = (x_W - centre_B2[:, :1]).abs() < half_side
    in_y_BH = (y_H - centre_B2[:, 1:]).abs() < half_side
    return (~(in_y_BH.unsqueeze(2) & in_x_BW.unsqueeze(1))).unsqueeze(1).to(image_B1HW.dtype)


def _affine(radians_N: np.ndarray, flip_x_N: np.ndarray, flip_y_N: np.ndarray) -> np.ndarray:
    """(N, 2, 2) matrices that turn, then mirror and zoom; the image is square, so angles are angles."""
    cos_N, sin_N = np.cos(radians_N), np.sin(radians_N)
    x_N2 = np.stack([cos_N * flip_x_N, -sin_N * flip_x_N], axis=1)
    y_N2 = np.stack([sin_N * flip_y_N, cos_N * flip_y_N], axis=1)
    return np.stack([x_N2, y_N2], axis=1)


def _grid(augmentation: Augmentation, image_B1HW: Tensor) -> Tensor:
    """Where each pixel comes from, for `grid_sample`: (B, H, W, 2) in [-1, 1].

    Without a warp it is what `torch.nn.functional.affine_grid` gives, in a tenth of its time on a CPU.
    """
    images, _, rows, columns = image_B1HW.shape
    x_W, y_H = _places(columns, image_B1HW), _places(rows, image_B1HW)
    place_2HW = torch.stack([x_W.expand(rows, columns), y_H.unsqueeze(1).expand(rows, columns)])
    if augmentation.theta_N22 is None:
        place_B2HW = place_2HW.expand(images, -1, -1, -1)
    else:
        place_B2HW = (augmentation.theta_N22 @ place_2HW.view(2, -1)).view(-1, 2, rows, columns)
    if augmentation.warp_N2GG is not None:
        size = (rows, columns)
        place_B2HW = place_B2HW + F.interpolate(augmentation.warp_N2GG, size=size, mode="bicubic", align_corners=True)
    return place_B2HW.permute(0, 2, 3, 1)


def _places(pixels: int, like: Tensor) -> Tensor:
    """The centres of a row's pixels, from -1 to 1 over the image's side."""
    return (torch.arange(pixels, device=like.device) * 2 + 1) / pixels - 1
