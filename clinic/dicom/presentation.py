"""A presentation state (GSPS, PS3.3 A.33.1): the lesions' outlines as drawings that a viewer lays over the film."""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset

from clinic.dicom.source import MANUFACTURER, Maker

MOST_POINTS = 4000
"""An outline's coordinates are one value of at most 65,534 bytes (PS3.5, 7.1.2): 8,191 points of two floats."""
LAYER = "LESIONS"


def presentation(
    source: Dataset, outlines: Sequence[tuple[str, np.ndarray]], maker: Maker
) -> hd.pr.GrayscaleSoftcopyPresentationState:
    """Outlines over a film.

    Args:
        source: from `completed`.
        outlines: label and points, (K, 2) of (column, row) in the film's pixels, counted from 0.
        maker: who drew them.
    """
    layer = hd.pr.GraphicLayer(layer_name=LAYER, order=1, description="Outlines of lesions")
    annotations = []
    if outlines:
        annotations = [
            hd.pr.GraphicAnnotation(
                referenced_images=[source],
                graphic_layer=layer,
                graphic_objects=[_polyline(points) for _, points in outlines],
                text_objects=[_label(text, points) for text, points in outlines],
            )
        ]
    made = hd.pr.GrayscaleSoftcopyPresentationState(
        referenced_images=[source],
        series_instance_uid=maker.uid(source, "presentation series"),
        series_number=103,
        sop_instance_uid=maker.uid(source, "presentation"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=maker.model[:64],
        software_versions=maker.version,
        device_serial_number=maker.serial,
        content_label=LAYER,
        content_description="Outlines of lesions, not for diagnosis",
        graphic_annotations=annotations or None,
        graphic_layers=[layer] if annotations else None,
        series_description="MammoSearch outlines",
    )
    if "Laterality" in source:
        made.Laterality = source.Laterality  # type 2C where the body part is paired: highdicom leaves it out
    return made


def thinned(points_K2: np.ndarray, most: int = MOST_POINTS) -> np.ndarray:
    """Every n-th point of an outline, so that at most `most` are left."""
    step = -(-len(points_K2) // most)
    return points_K2[::step]


def _polyline(points_K2: np.ndarray) -> hd.pr.GraphicObject:
    centres = thinned(points_K2).astype(np.float32) + 1.0  # pixel coordinates count from 1 at the first pixel's centre
    closed = np.concatenate([centres, centres[:1]])
    return hd.pr.GraphicObject(graphic_type="POLYLINE", graphic_data=closed, units="PIXEL", is_filled=False)


def _label(text: str, points_K2: np.ndarray) -> hd.pr.TextObject:
    left, top = points_K2.min(axis=0)
    anchor = (float(left) + 1, float(top) + 1)
    return hd.pr.TextObject(text_value=text, units="PIXEL", anchor_point=anchor, anchor_point_visible=False)
