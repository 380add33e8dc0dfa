"""A predictor: models in memory, one film after the other from its file to its results. Runs in any process."""

from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import cv2
import numpy as np
from pydicom.dataset import Dataset

from clinic.dicom.source import Maker, spacing_mm
from clinic.films import FilmFile
from clinic.predict.lesions import Region
from clinic.predict.outputs import DEFAULT_OUTPUTS, OF_DICOM, SUFFIXES, Output, Result, render
from clinic.predict.prediction import BoxError, Options, Prediction, check_models, predict_film
from clinic.runtime.model import Model, open_model
from clinic.stream import Outcome
from cluster.storage import Folder
from data_prep.read.dicom import read_tagged_film
from data_prep.read.files import FilePath
from data_prep.schema import ReadError

FilmStatus = Literal["segmented", "partly", "left_out"]
"""`partly`: pictures and mask are there, the DICOM objects are not."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a predictor is to do with each film; can be sent to another process."""

    models: tuple[str, ...]
    """Paths or URIs of model folders: one, or an ensemble."""
    out: str
    """Path or URI of the folder of the results."""
    variant: str | None = None
    """Of every model; None: each model's chosen one."""
    options: Options = field(default_factory=Options)
    outputs: tuple[Output, ...] = DEFAULT_OUTPUTS
    plane_geometry: bool = False
    """See `clinic.dicom.source.completed`."""
    threads: int | None = None
    """CPU threads of one prediction; None: the library's default."""

    def open(self) -> Predictor:
        """A predictor in this process. Raises ValueError where a model cannot be opened."""
        return Predictor(self)


class Predictor:
    """Films to results, by one order.

    Raises:
        ValueError: a model cannot be opened, or the models do not go together.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        if order.threads is not None:
            cv2.setNumThreads(order.threads)
        self.models = [open_model(path, variant=order.variant, threads=order.threads) for path in order.models]
        check_models([model.info for model in self.models])
        self._maker = maker_of(self.models, order.options)
        self._out = Folder(order.out)

    def __call__(self, film: FilmFile) -> Outcome:
        """Segment one film and write its files. A film that cannot be used comes back as a row with the reason."""
        row: dict[str, Any] = {"film": film.shown, "name": film.name, "status": "left_out", "reason": ""}
        began = time.perf_counter()
        try:
            image_HW, header = read_film(film.path, self.models)
            read = time.perf_counter()
            spacing = spacing_of(header)
            prediction = predict_film(
                image_HW, self.models, self._order.options, lesion=film.lesion, spacing_mm=spacing
            )
        except (ReadError, BoxError, MemoryError) as error:
            reason = str(error) if isinstance(error, ValueError) else "too_large: there is not enough memory for it"
            return Outcome(row={**row, "reason": reason})
        predicted = time.perf_counter()
        result = Result(image_HW, header, prediction, self._maker, self._order.plane_geometry)
        status, reason = self._write(film, result)
        row |= {"status": status, "reason": reason, **_facts(prediction, spacing)}
        row |= {"read_s": round(read - began, 4), "predict_s": round(predicted - read, 4)}
        row |= {"write_s": round(time.perf_counter() - predicted, 4)}
        return Outcome(row=row, lesions=[_lesion_row(film, region) for region in prediction.regions])

    def _write(self, film: FilmFile, result: Result) -> tuple[FilmStatus, str]:
        pictures = [name for name in self._order.outputs if name not in OF_DICOM]
        objects = [name for name in self._order.outputs if name in OF_DICOM]
        self._put(film, render(result, pictures))
        if result.header is None and objects:
            return "segmented", "not DICOM: no DICOM objects"
        try:
            self._put(film, render(result, objects))
        except OSError:
            raise
        except Exception as error:  # a header may hold anything, and the writers' complaints have no end
            text = " ".join(str(error).split())[:200]
            return "partly", f"no DICOM objects: {text if isinstance(error, ValueError) else type(error).__name__}"
        return "segmented", ""

    def _put(self, film: FilmFile, files: dict[Output, bytes]) -> None:
        for kind, content in files.items():
            self._out.write_bytes(film.name + SUFFIXES[kind], content)


def read_film(path: FilePath, models: Sequence[Model]) -> tuple[np.ndarray, Dataset | None]:
    """The pixels of a film as the models want them and, if it is DICOM, every tag before them. Raises ReadError."""
    film, header = read_tagged_film(path, models[0].info.preprocessing.film_window)
    return film.image_HW, header


def spacing_of(header: Dataset | None) -> tuple[float, float] | None:
    """Millimetres between rows and between columns, where there is a header and it tells."""
    return None if header is None else spacing_mm(header)


def maker_of(models: Sequence[Model], options: Options) -> Maker:
    """What the objects of these models say about who made them."""
    settings = {
        "models": [(model.info.weights_sha256, model.variant.name, model.variant.files) for model in models],
        "options": asdict(options),
    }
    return Maker(
        model="+".join(model.info.name for model in models),
        version=importlib.metadata.version("mammosearch"),
        settings=json.dumps(settings, sort_keys=True),
    )


def _facts(prediction: Prediction, spacing: tuple[float, float] | None) -> dict[str, Any]:
    rows, columns = prediction.mask_HW.shape
    return {
        "rows": rows,
        "columns": columns,
        "spacing_mm": "" if spacing is None else f"{spacing[0]:g} x {spacing[1]:g}",
        "flipped": prediction.flipped,
        **dict(zip(("top", "left", "bottom", "right"), prediction.box, strict=True)),
        "threshold": prediction.threshold,
        "lesions": len(prediction.regions),
        "area_px": sum(region.area_px for region in prediction.regions),
        "max_probability": round(float(prediction.probability_HW.max()), 4),
    }


def _lesion_row(film: FilmFile, region: Region) -> dict[str, Any]:
    return {
        "film": film.shown,
        "name": film.name,
        "lesion": region.number,
        **dict(zip(("top", "left", "bottom", "right"), region.box, strict=True)),
        "area_px": region.area_px,
        "area_mm2": None if region.area_mm2 is None else round(region.area_mm2, 2),
        "diameter_px": round(region.diameter_px, 1),
        "diameter_mm": None if region.diameter_mm is None else round(region.diameter_mm, 2),
        "mean_probability": round(region.mean_probability, 4),
        "max_probability": round(region.max_probability, 4),
    }
