"""One model folder, and the forms of its network that are asked for: made, checked, measured, chosen.

weights         float32, as trained
recalibrated    the same with its batch statistics made anew; kept where that raises the validation Dice, and then
                all others are made of it
onnx            float32 for ONNX Runtime
int8            8-bit integers for ONNX Runtime, calibrated on training images
pt2             float32 for torch alone
openvino        8-bit integers for OpenVINO
pruned50        half of the channels taken out (any two digits), fine-tuned; for ONNX Runtime
pruned50-int8   the same in 8-bit integers
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import safetensors.torch
from torch import nn

from clinic.export.choose import Limits, choose
from clinic.export.measure import machine, mean_dice, probe
from clinic.export.onnx import to_int8, to_onnx
from clinic.export.prune import fine_tune, prune, recalibrate, to_input
from clinic.export.pt2 import to_pt2
from clinic.export.show import variants_section
from clinic.runtime.model import open_model
from clinic.runtime.variants import VARIANTS, Kind, Measured, Variant, Variants, read_variants
from clinic.runtime.weights import TorchRuntime
from cluster.storage import Folder
from data_prep.shards import open_shards
from trainables.config import TrialConfig
from trainables.data import Split, TrialData
from trainables.model.describe import model_card
from trainables.model.folder import METRICS, MODEL_CARD, load_network
from trainables.model.info import ModelInfo, read_info

PRUNED = re.compile(r"pruned([1-9]\d)(-int8)?")
NAMES = ("onnx", "int8", "pt2", "openvino", "pruned50", "pruned50-int8")
CALIBRATION_IMAGES = 64
CHECKED_IMAGES = 8
WORTH = 0.001
"""Validation Dice that new batch statistics must bring, at least, to be kept."""

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ExportOrder:
    """What is to be exported, and how."""

    model: str
    """Path or URI of the model folder."""
    shards: str
    """Path or URI of the shard folder that it was trained on."""
    variants: tuple[str, ...]
    limits: Limits = field(default_factory=Limits)
    epochs: int = 8
    """Of fine-tuning after pruning."""
    threads: int = 1
    """At which latency is measured."""


def check_names(names: Sequence[str]) -> None:
    """Refuse variants that there are not. Raises ValueError."""
    unknown = [name for name in names if name not in NAMES and not PRUNED.fullmatch(name)]
    if unknown or not names:
        raise ValueError(
            f"variants: {', '.join(unknown) or 'none'}; there are {', '.join(NAMES)} (pruned10 to pruned99)"
        )


def export(order: ExportOrder, tell: Tell) -> Variants:
    """Make the variants, measure all that the folder has, and write which one is chosen.

    Args:
        order: what to make.
        tell: given a line at each step.

    Raises:
        ValueError: the shards are not what the model was trained on, or a variant cannot be made.
        RuntimeError: no variant keeps the limits; everything is written all the same, and `weights` stays chosen.
    """
    check_names(order.variants)
    folder = Folder(order.model)
    info = read_info(folder)
    data = _data(order.shards, info)
    works = _Works(folder, info, data, order, tell)
    made = works.make_all()
    kept = [variant for variant in read_variants(folder).variants if variant.name not in {new.name for new in made}]
    _write(folder, Variants(variants=(*kept, *made)))
    measured = [works.measured(variant) for variant in (*kept, *made)]
    done = Variants(variants=tuple(measured), machine=machine(order.threads))
    try:
        done = done.model_copy(update={"chosen": choose(measured, order.limits).name})
    finally:
        _write(folder, done)
        card = model_card(info, folder.read_json(METRICS), extra=variants_section(done))
        folder.write_text(MODEL_CARD, card)
    return done


class _Works:
    """The steps of one export, which share the network, its samples and the ONNX files made so far."""

    def __init__(self, folder: Folder, info: ModelInfo, data: TrialData, order: ExportOrder, tell: Tell) -> None:
        self._folder, self._info, self._data, self._order, self._tell = folder, info, data, order, tell
        self._network = load_network(folder, info)
        self._config = TrialConfig.model_validate(info.config)
        self._splits: tuple[Split, ...] = (
            ("val",) if data.test is None or not len(data.test.images_NHW) else ("val", "test")
        )
        self._onnx: dict[str, bytes] = {}

    def make_all(self) -> list[Variant]:
        """Make what was asked for, after better batch statistics where they can be had."""
        made = self._recalibrated()
        for name in dict.fromkeys(self._order.variants):
            self._tell(f"making {name}")
            made.append(self._made(name))
        return made

    def _recalibrated(self) -> list[Variant]:
        fresh = recalibrate(self._network, self._data.split("train").images_NHW)
        before, after = (self._val_dice(network) for network in (self._network, fresh))
        better = after >= before + WORTH
        verdict = "kept" if better else "not kept"
        self._tell(f"batch statistics made anew: val Dice {before:.4f} -> {after:.4f}, {verdict}")
        if not better:
            return []
        self._network = fresh
        weights = {key: value.contiguous() for key, value in fresh.get_submodule("net").state_dict().items()}
        files = {"variants/recalibrated.safetensors": safetensors.torch.save(weights)}
        return [self._stored("recalibrated", "weights", files, "batch statistics made anew on the training images")]

    def _made(self, name: str) -> Variant:
        pruned = PRUNED.fullmatch(name)
        if name == "pt2":
            return self._stored(name, "pt2", {"variants/model.pt2": to_pt2(self._network, self._checked())}, "float32")
        if name == "openvino":
            to_openvino = importlib.import_module("clinic.export.openvino").to_openvino
            files = to_openvino(self._plain_onnx(""), self._calibration())
            named = {f"variants/openvino{suffix}": content for suffix, content in files.items()}
            return self._stored(name, "openvino", named, "int8 by NNCF, calibrated on training images")
        share = pruned[1] if pruned else ""
        content = self._plain_onnx(share)
        how = f"{share} % of the channels pruned, fine-tuned for {self._order.epochs} epochs, " if share else ""
        if name.endswith("int8"):
            content, how = to_int8(content, self._calibration()), f"{how}int8, calibrated on training images"
        else:
            how += "float32"
        return self._stored(name, "onnx", {f"variants/{name}.onnx": content}, how)

    def _plain_onnx(self, share: str) -> bytes:
        """The network, or the pruned one, as ONNX in float32; made once."""
        if share not in self._onnx:
            network = self._smaller(share) if share else self._network
            self._onnx[share] = to_onnx(network, self._checked())
        return self._onnx[share]

    def _smaller(self, share: str) -> nn.Module:
        smaller = prune(self._network, int(share) / 100, self._info.preprocessing.size_px)
        fresh = recalibrate(smaller, self._data.split("train").images_NHW)
        self._tell(f"{share} % of the channels pruned: val Dice {self._val_dice(fresh):.4f}")
        return fine_tune(
            fresh, self._data, self._config, epochs=self._order.epochs, val_dice=self._val_dice, tell=self._tell
        )

    def _stored(self, name: str, kind: Kind, files: dict[str, bytes], made: str) -> Variant:
        for file, content in files.items():
            self._folder.write_bytes(file, content)
        sums = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
        return Variant(name=name, kind=kind, files=sums, made=made)

    def measured(self, variant: Variant) -> Variant:
        """A variant with what it does on this machine and on the samples."""
        self._tell(f"measuring {variant.name}")
        files = list(variant.files) or ["weights.safetensors"]
        size = sum(len(self._folder.read_bytes(file)) for file in files)
        model = open_model(self._folder.uri, variant=variant.name, threads=self._order.threads)
        dices = {
            f"{split}_dice": mean_dice(model.runtime, self._data.split(split), self._info.threshold)
            for split in self._splits
        }
        times = probe(self._folder.uri, variant.name, threads=self._order.threads)
        measured = Measured(size_mb=size / 1e6, threads=self._order.threads, **times, **dices)
        return variant.model_copy(update={"measured": measured})

    def _val_dice(self, network: nn.Module) -> float:
        return mean_dice(TorchRuntime(network, device="cpu", threads=None), self._data.val, self._info.threshold)

    def _checked(self) -> np.ndarray:
        return _spread(self._data.val.images_NHW, CHECKED_IMAGES)

    def _calibration(self) -> np.ndarray:
        return _spread(self._data.train.images_NHW, CALIBRATION_IMAGES)


def _data(shards: str, info: ModelInfo) -> TrialData:
    """The samples that the model was trained on. Raises ValueError if they are others."""
    card = open_shards(shards).card
    if card.fingerprint != info.data.fingerprint:
        raise ValueError(
            f"{shards} is not what {info.name} was trained on: its fingerprint is {card.fingerprint[:16]}, the model's "
            f"{info.data.fingerprint[:16]}"
        )
    return TrialData.open(shards, info.preprocessing.normalisation)


def _spread(images_NHW: np.ndarray, count: int) -> np.ndarray:
    """Images spread evenly over a split: (count, 1, S, S) float32 in [0, 1]."""
    chosen = np.unique(np.linspace(0, len(images_NHW) - 1, min(count, len(images_NHW))).astype(int))
    return np.ascontiguousarray(to_input(np.asarray(images_NHW[chosen])).numpy())


def _write(folder: Folder, variants: Variants) -> None:
    folder.write_json(VARIANTS, variants.model_dump(mode="json"))
