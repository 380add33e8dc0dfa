"""One film, segmented: where the breast is, what the models say, and the way back to the film's own pixels.

    prediction = predict_film(image_HW, models, options)
    prediction.mask_HW, prediction.probability_HW, prediction.regions

The way back goes by probability: the network's map is enlarged to the film and then cut at the threshold. A mask cut
first and enlarged afterwards would have stairs of several film pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clinic.predict.lesions import Region, find_regions
from clinic.runtime.model import Flip, Model
from data_prep.schema import ReadError
from data_prep.shape.geometry import Box, Geometry, find_geometry, lesion_box
from data_prep.shape.normalise import normalised_sample
from trainables.model.info import ModelInfo


class BoxError(ValueError):
    """A lesion's box that is not on its film."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What may be chosen about a prediction."""

    threshold: float | None = None
    """Probability above which a pixel is lesion; None: the first model's own."""
    flips: tuple[Flip, ...] = ()
    """Mirrored copies that are averaged in."""

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ValueError(f"threshold: {self.threshold} is not between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the models see on a film."""

    probability_HW: np.ndarray
    """float32, on the film's own grid; 0 outside of what the models were shown."""
    mask_HW: np.ndarray
    """uint8 of 0 and 1."""
    threshold: float
    box: Box
    """The part of the film that the models were shown."""
    flipped: bool
    regions: list[Region]


def check_models(infos: Sequence[ModelInfo]) -> None:
    """Refuse an ensemble whose models want to be shown different things. Raises ValueError."""
    views = {info.preprocessing.field_of_view for info in infos}
    if len(views) > 1:
        names = ", ".join(f"{info.name}: {info.preprocessing.field_of_view}" for info in infos)
        raise ValueError(f"models of different views cannot be one ensemble ({names}); give models of one view")


def check_view(info: ModelInfo, *, with_box: bool) -> None:
    """Refuse to show a model what it was not made for. Raises ValueError that says what to do."""
    wants_box = info.preprocessing.field_of_view == "lesion"
    if wants_box and not with_box:
        raise ValueError(
            f"{info.name} was trained on crops around a lesion and would mark healthy tissue on a whole film: give the "
            "lesion's box (--box TOP,LEFT,BOTTOM,RIGHT in pixels, or --boxes FILE.csv), or use a model of whole views"
        )
    if with_box and not wants_box:
        raise ValueError(f"{info.name} was trained on whole films: leave the box out, or use a lesion-view model")


def predict_film(
    image_HW: np.ndarray,
    models: Sequence[Model],
    options: Options = Options(),
    *,
    lesion: Box | None = None,
    spacing_mm: tuple[float, float] | None = None,
) -> Prediction:
    """Segment one film.

    Args:
        image_HW: grey values, uint8 or uint16, bright tissue on dark ground.
        models: one, or an ensemble (`check_models`) whose probabilities are averaged.
        options: threshold and flips.
        lesion: the lesion's box, for models of the lesion view.
        spacing_mm: of the film's rows and columns, where it is known.

    Raises:
        ValueError: the models were not made for what they are given.
        ReadError: no breast is on the film.
        BoxError: the lesion's box leaves the film.
    """
    total_HW: np.ndarray | None = None
    for model in models:
        geometry = film_geometry(image_HW, model, lesion)
        sample_SS = normalised_sample(image_HW, geometry, model.info.preprocessing.normalisation)
        film_HW = geometry.undo(model.probability(sample_SS, flips=options.flips))
        total_HW = film_HW if total_HW is None else np.add(total_HW, film_HW, out=total_HW)
    assert total_HW is not None, "an ensemble of no models"
    if len(models) > 1:
        total_HW /= len(models)
    threshold = options.threshold or models[0].info.threshold
    mask_HW = (total_HW > threshold).view(np.uint8)
    return Prediction(
        probability_HW=total_HW,
        mask_HW=mask_HW,
        threshold=threshold,
        box=geometry.box,
        flipped=geometry.flipped,
        regions=find_regions(mask_HW, total_HW, spacing_mm),
    )


def film_geometry(image_HW: np.ndarray, model: Model, lesion: Box | None) -> Geometry:
    """How a film becomes what a model was trained on.

    Raises:
        ValueError: the model wants a lesion's box and has none, or has one and wants none.
        ReadError: no breast is on the film.
        BoxError: the lesion's box leaves the film.
    """
    steps = model.info.preprocessing
    check_view(model.info, with_box=lesion is not None)
    whole = find_geometry(image_HW, size_px=steps.size_px, crop_to_breast=steps.crop_to_breast, orient=steps.orient)
    if whole is None:
        shape = f"{image_HW.shape[0]} x {image_HW.shape[1]}"
        raise ReadError("no_breast", f"nothing on the film of {shape} looks like one")
    if lesion is None:
        return whole
    return _around(lesion, whole, steps.lesion_margin)


def _around(lesion: Box, whole: Geometry, margin: float) -> Geometry:
    if not Box(0, 0, whole.rows, whole.columns).covers(lesion) or lesion.rows < 1 or lesion.columns < 1:
        film = f"{whole.rows} x {whole.columns}"
        raise BoxError(f"box_outside: the box {tuple(lesion)} is empty or leaves the film of {film} pixels")
    box = lesion_box(lesion, rows=whole.rows, columns=whole.columns, margin=margin)
    return Geometry(rows=whole.rows, columns=whole.columns, box=box, flipped=whole.flipped, size_px=whole.size_px)
