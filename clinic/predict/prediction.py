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
from data_prep.shape.box import Box, lesion_box
from data_prep.shape.breast import Breast, find_breast
from data_prep.shape.geometry import Geometry, geometry_of
from data_prep.shape.normalise import breast_levels, normalised_sample
from trainables.model.info import ModelInfo, Preprocessing


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
    if len({info.preprocessing.window for info in infos}) > 1:
        names = ", ".join(f"{info.name}: {info.preprocessing.window}" for info in infos)
        raise ValueError(f"models that read a film by different windows cannot be one ensemble ({names})")


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


@dataclass(frozen=True)
class Prepared:
    """A film made ready: for each model what it is shown, and the way back."""

    shape: tuple[int, int]
    """Rows and columns of the film."""
    samples: tuple[np.ndarray, ...]
    """(S, S) uint8, one a model; S may differ."""
    geometries: tuple[Geometry, ...]
    spacing_mm: tuple[float, float] | None


def prepare_film(
    image_HW: np.ndarray,
    models: Sequence[Model],
    *,
    lesion: Box | None = None,
    spacing_mm: tuple[float, float] | None = None,
) -> Prepared:
    """Cut, mirror, normalise and shrink a film as each model's training samples were.

    Args:
        image_HW: grey values, uint8 or uint16, bright tissue on dark ground, read with the models' `film_window`.
        models: one, or an ensemble (`check_models`).
        lesion: the lesion's box, for models of the lesion view.
        spacing_mm: of the film's rows and columns, where it is known.

    Raises:
        ValueError: the models were not made for what they are given.
        ReadError: no breast is on the film.
        BoxError: the lesion's box leaves the film.
    """
    breast = find_breast(image_HW)
    if breast is None:
        raise ReadError("no_breast", f"nothing on the film of {image_HW.shape[0]} x {image_HW.shape[1]} looks like one")
    geometries = tuple(film_geometry(breast, model.info, lesion) for model in models)
    samples = tuple(
        _sample(image_HW, breast, geometry, model.info.preprocessing)
        for geometry, model in zip(geometries, models, strict=True)
    )
    return Prepared(image_HW.shape, samples, geometries, spacing_mm)


def predict_prepared(
    films: Sequence[Prepared], models: Sequence[Model], options: Options = Options()
) -> list[Prediction]:
    """Segment films that are ready, all in one batch a model.

    Args:
        films: from `prepare_film` with the same models.
        models: their probabilities are averaged.
        options: threshold and flips.
    """
    maps = [
        model.probabilities(np.stack([film.samples[number] for film in films]), flips=options.flips)
        for number, model in enumerate(models)
    ]
    threshold = options.threshold or models[0].info.threshold
    return [_put_back(film, [map_NSS[place] for map_NSS in maps], threshold) for place, film in enumerate(films)]


def predict_film(
    image_HW: np.ndarray,
    models: Sequence[Model],
    options: Options = Options(),
    *,
    lesion: Box | None = None,
    spacing_mm: tuple[float, float] | None = None,
) -> Prediction:
    """`prepare_film` and `predict_prepared` of one film."""
    return predict_prepared([prepare_film(image_HW, models, lesion=lesion, spacing_mm=spacing_mm)], models, options)[0]


def _put_back(film: Prepared, maps: Sequence[np.ndarray], threshold: float) -> Prediction:
    """The models' maps enlarged to the film, averaged, and then cut."""
    total_HW = film.geometries[0].undo(maps[0])
    for geometry, map_SS in zip(film.geometries[1:], maps[1:], strict=True):
        total_HW += geometry.undo(map_SS)
    if len(maps) > 1:
        total_HW /= len(maps)
    mask_HW = (total_HW > threshold).view(np.uint8)
    return Prediction(
        probability_HW=total_HW,
        mask_HW=mask_HW,
        threshold=threshold,
        box=film.geometries[-1].box,
        flipped=film.geometries[-1].flipped,
        regions=find_regions(mask_HW, total_HW, film.spacing_mm),
    )


def film_geometry(breast: Breast, info: ModelInfo, lesion: Box | None) -> Geometry:
    """How a film becomes what a model was trained on.

    Raises:
        ValueError: the model wants a lesion's box and has none, or has one and wants none.
        BoxError: the lesion's box leaves the film.
    """
    steps = info.preprocessing
    check_view(info, with_box=lesion is not None)
    whole = geometry_of(breast, size_px=steps.size_px, crop_to_breast=steps.crop_to_breast, orient=steps.orient)
    return whole if lesion is None else _around(lesion, whole, steps.lesion_margin)


def _sample(image_HW: np.ndarray, breast: Breast, geometry: Geometry, steps: Preprocessing) -> np.ndarray:
    levels = breast_levels(image_HW, breast) if steps.window == "breast" else None
    return normalised_sample(image_HW, geometry, steps.normalisation, levels)


def _around(lesion: Box, whole: Geometry, margin: float) -> Geometry:
    if not Box(0, 0, whole.rows, whole.columns).covers(lesion) or lesion.rows < 1 or lesion.columns < 1:
        film = f"{whole.rows} x {whole.columns}"
        raise BoxError(f"box_outside: the box {tuple(lesion)} is empty or leaves the film of {film} pixels")
    box = lesion_box(lesion, rows=whole.rows, columns=whole.columns, margin=margin)
    return Geometry(rows=whole.rows, columns=whole.columns, box=box, flipped=whole.flipped, size_px=whole.size_px)
