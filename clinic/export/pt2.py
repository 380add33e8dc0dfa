"""`.pt2`: the network by torch.export, in a file that loads with torch alone."""

from __future__ import annotations

import io

import numpy as np
import torch
from torch import nn

from clinic.export.network import Probability, check_copy
from clinic.runtime.exported import check_archive, load_exported


def to_pt2(network: nn.Module, image_B1SS: np.ndarray) -> bytes:
    """The network as the content of a .pt2 file without a pickle in it, checked against float64.

    Raises:
        ValueError: the network cannot be exported, or this torch writes pickles into the file.
    """
    two_B1SS = torch.from_numpy(np.ascontiguousarray(np.resize(image_B1SS, (2, *image_B1SS.shape[1:]))))
    batch = torch.export.Dim("batch")
    try:
        # A batch of one would be taken for a constant: torch.export specialises 0 and 1.
        program = torch.export.export(Probability(network).eval(), (two_B1SS,), dynamic_shapes={"image": {0: batch}})
    except Exception as error:  # whatever the tracer meets
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"pt2: torch.export cannot trace this network: {reason}") from error
    program._example_inputs = None  # they would be kept as a pickle
    buffer = io.BytesIO()
    buffer.name = "model.pt2"
    torch.export.save(program, buffer)
    content = buffer.getvalue()
    check_archive(content, "pt2")
    check_copy(network, load_exported(content, device="cpu", threads=None)(image_B1SS), image_B1SS, "pt2")
    return content
