"""The network as other libraries take it: grey image in, probability out; and how far a copy may be from it.

Shapes: B images of a batch, S side of the sample in pixels.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

TOLERANCE = 1e-4
"""Largest difference of a probability that needs no excuse."""


class Probability(nn.Module):
    """A network that gives logits, made to give probabilities.

    Args:
        network: images (B, 1, S, S) in [0, 1] to logits of the same shape.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Probabilities (B, 1, S, S) in [0, 1]."""
        return torch.sigmoid(self.network(image))


@torch.inference_mode()
def probabilities(network: nn.Module, image_B1SS: np.ndarray, dtype: torch.dtype = torch.float32) -> np.ndarray:
    """What a network says in a number format, as float64."""
    exact = copy.deepcopy(network).to("cpu", dtype).eval()
    logits_B1SS = torch.cat([exact(image[None].to(dtype)) for image in torch.from_numpy(image_B1SS)])
    return torch.sigmoid(logits_B1SS).double().numpy()


def check_copy(network: nn.Module, copied_B1SS: np.ndarray, image_B1SS: np.ndarray, what: str) -> float:
    """Make sure that a copy in float32 is as near to float64 as torch's own float32 is, within a factor of two.

    float32 itself is not exact: of some networks (Inception-v3) torch's own result differs from float64 by more than
    1e-4, so a fixed distance from torch would refuse copies that are as right as torch is.

    Args:
        network: gives logits.
        copied_B1SS: probabilities of the copy.
        image_B1SS: the images they are of, float32 in [0, 1].
        what: the copy's name, for the message.

    Returns:
        The copy's largest distance from float64.

    Raises:
        ValueError: the copy is farther away.
    """
    exact_B1SS = probabilities(network, image_B1SS, torch.float64)
    own = float(np.abs(probabilities(network, image_B1SS) - exact_B1SS).max())
    distance = float(np.abs(copied_B1SS - exact_B1SS).max())
    if distance > max(2 * own, TOLERANCE):
        raise ValueError(
            f"{what} differs from the network by up to {distance:.1e} in probability (torch in float32 by {own:.1e}); "
            "it is not kept"
        )
    return distance
