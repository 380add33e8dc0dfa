"""Films as bytes -> DICOM objects about them, several films in one batch. Runs in the service or in a replica of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from clinic.dicom.source import SourceError
from clinic.predict.outputs import Output, Result, dicom_objects
from clinic.predict.prediction import Options, Prediction, Prepared, check_models, predict_prepared, prepare_film
from clinic.predict.predictor import maker_of, read_film, spacing_of
from clinic.runtime.model import Model, open_model
from clinic.serve.review import Decision, Review, look_json, review
from data_prep.schema import ReadError

LOG = logging.getLogger(__name__)
FAILED = "failed"
NO_IDENTITY = "no_identity"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of one film: objects about it, or a code that says why there are none."""

    code: str = ""
    """Empty, a code of `data_prep.schema.REASONS`, `no_identity`, or `failed`."""
    sop_class_uid: str = ""
    sop_uid: str = ""
    """Of the film, where its header says so."""
    objects: dict[Output, bytes] = field(default_factory=dict)
    lesions: int = 0


@dataclass(frozen=True, kw_only=True)
class AnswerJob:
    """What is answered; can be sent to another process."""

    models: tuple[str, ...]
    variant: str | None = None
    options: Options = field(default_factory=Options)
    plane_geometry: bool = False
    threads: int | None = None

    def open(self) -> Answerer:
        """The models in this process. Raises ValueError where one cannot be opened, or is of the lesion view."""
        return Answerer(self)


@dataclass(frozen=True)
class _Read:
    """A film that can be segmented."""

    image_HW: np.ndarray
    header: Dataset
    prepared: Prepared


class Answerer:
    """Answers by one job; may be called by several threads at a time."""

    def __init__(self, job: AnswerJob) -> None:
        self._job = job
        self.models: list[Model] = [open_model(path, variant=job.variant, threads=job.threads) for path in job.models]
        check_models([model.info for model in self.models])
        if self.models[0].info.preprocessing.field_of_view != "whole":
            raise ValueError(
                f"{self.models[0].info.name} was trained on crops around a lesion, and a service is sent whole films: "
                "give a model of whole views"
            )
        self.maker = maker_of(self.models, job.options)

    def __call__(self, contents: Sequence[bytes], outputs: tuple[Output, ...]) -> list[Answer]:
        """One answer a film, in their order. Never raises for what is wrong with a film."""
        read = [self._read(content) for content in contents]
        films = [film for film in read if isinstance(film, _Read)]
        predictions = iter(
            predict_prepared([film.prepared for film in films], self.models, self._job.options) if films else ()
        )
        return [self._write(film, next(predictions), outputs) if isinstance(film, _Read) else film for film in read]

    def look(self, content: bytes) -> dict[str, Any]:
        """A film's picture and the model's outlines. Raises ReadError."""
        image_HW, _, prediction = self._seen(content)
        return look_json(image_HW, prediction, self.maker.model)

    def review(self, content: bytes, decision: Decision, outlines: list[Any]) -> Review:
        """What comes of a person's decision about a film.

        Raises:
            ReadError: the film cannot be used.
            SourceError: nothing can refer to the film.
            ValueError: what was drawn is no outline on the film.
        """
        return review(
            *self._seen(content),
            self.maker,
            decision=decision,
            outlines=outlines,
            plane_geometry=self._job.plane_geometry,
        )

    def _seen(self, content: bytes) -> tuple[np.ndarray, Dataset | None, Prediction]:
        image_HW, header = read_film(content, self.models)
        prepared = prepare_film(image_HW, self.models, spacing_mm=spacing_of(header))
        return image_HW, header, predict_prepared([prepared], self.models, self._job.options)[0]

    def _read(self, content: bytes) -> _Read | Answer:
        try:
            image_HW, header = read_film(content, self.models)
            if header is None:
                return Answer(code="not_dicom")
            prepared = prepare_film(image_HW, self.models, spacing_mm=spacing_of(header))
        except ReadError as error:
            return Answer(code=error.code)
        except MemoryError:
            return Answer(code="absurd_size")
        return _Read(image_HW, header, prepared)

    def _write(self, film: _Read, prediction: Prediction, outputs: tuple[Output, ...]) -> Answer:
        film_class, film_uid = (str(film.header.get(name) or "") for name in ("SOPClassUID", "SOPInstanceUID"))
        result = Result(film.image_HW, film.header, prediction, self.maker, self._job.plane_geometry)
        try:
            objects = dicom_objects(result, outputs)
        except SourceError:
            return Answer(code=NO_IDENTITY, sop_class_uid=film_class, sop_uid=film_uid)
        except Exception as error:  # a header may hold anything, and the writers' complaints have no end
            LOG.warning("no object could be made about a film: %s", type(error).__name__)
            return Answer(code=FAILED, sop_class_uid=film_class, sop_uid=film_uid)
        lesions = len(prediction.regions)
        return Answer(sop_class_uid=film_class, sop_uid=film_uid, objects=objects, lesions=lesions)
