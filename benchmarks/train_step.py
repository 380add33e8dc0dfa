"""Images per second of a trial, against a hand-written loop and against the usual script, in one interleaved run.

    OMP_NUM_THREADS=1 python -m benchmarks.train_step                       # CPU: batch 8, 224 px, the paper's five
    python -m benchmarks.train_step --device cuda --batches 8 32 128        # a GPU, where there is one
    python -m benchmarks.train_step --encoders mobilenet --size 64 --rounds 3
    OMP_NUM_THREADS=1 python -m benchmarks.train_step --clock cpu           # on a machine that does other work too

- `trial`: the training of an epoch as a trial does it, with the paper's settings, rotation included.
- `hand-written`: the same model, loss, optimiser, number format, memory layout and batch in a bare PyTorch loop, with
  the data in memory and no augmentation: all that a trial adds must be paid for from the difference.
- `usual`: smp.Unet and DiceLoss of segmentation-models-pytorch in fp32, a DataLoader that turns each image with OpenCV,
  the loss read after every step.

Each round runs all three for the same number of steps. Rates are those of the median round; ratios are the median of
the rounds' own ratios, since what else the machine does falls on all sides then. `--clock cpu` counts seconds of the
process's CPU time instead of the clock's: with one thread that is what an idle core would take. Also printed: the share
that the trial reaches of the rate of a large matrix product in the same number format, measured here. Ends with status
1 if a trial is slower than 0.97 of the hand-written loop, or not ahead of the usual script.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from trainables.config import PAPER_ENCODERS, PAPER_TO_SMP, TrialConfig
from trainables.net.architecture import Architecture
from trainables.net.models import build_model, meta_model
from trainables.net.vision_ops import smp
from trainables.step import loop
from trainables.step.batches import Batches
from trainables.step.learner import build_learner
from trainables.step.losses import segmentation_loss
from trainables.step.precision import DTYPES, Precision, best_precision
from trainables.step.worker import Worker, default_device, seed_everything

AIM_HAND_WRITTEN = 0.97
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

Contestant = Callable[[], float]
"""Trains for some steps and gives its images per second."""


@dataclass(frozen=True)
class Arrays:
    """Samples of noise with a disc."""

    images_NHW: np.ndarray
    masks_NHW: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Case:
    """What the three contestants train."""

    encoder: str
    batch: int
    size_px: int
    steps: int
    device: torch.device
    precision: Precision
    now_s: Callable[[], float]
    """The clock."""


def samples(case: Case, images: int) -> Arrays:
    generator = np.random.default_rng(0)
    image_NHW = generator.integers(0, 255, (images, case.size_px, case.size_px), dtype=np.uint8)
    mask_NHW = np.zeros_like(image_NHW)
    quarter = case.size_px // 4
    mask_NHW[:, quarter : 2 * quarter, quarter : 2 * quarter] = 1
    return Arrays(image_NHW, mask_NHW)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def trial(case: Case) -> Contestant:
    config = TrialConfig(encoder=case.encoder, batch_size=case.batch, epochs=10_000, precision=case.precision)
    count = case.batch * case.steps
    seed_everything(0)
    learner = build_learner(config, image_size_px=case.size_px, worker=Worker(), device=case.device)
    batches, epochs = Batches(samples(case, count), case.device), itertools.count()

    def run() -> float:
        started = case.now_s()
        loop.train_epoch(learner, batches, config, next(epochs))
        synchronise(case.device)
        return count / (case.now_s() - started)

    return run


def hand_written(case: Case) -> Contestant:
    torch.manual_seed(0)
    config = TrialConfig(encoder=case.encoder)
    device, count = case.device, case.batch * case.steps
    model: Any = build_model(Architecture(encoder=case.encoder))
    model = model.to(device, memory_format=torch.channels_last).train()
    optimiser = torch.optim.Adam(model.parameters(), fused=True)
    scaler = torch.amp.GradScaler(device.type, enabled=case.precision == "fp16")
    data = samples(case, count)
    image_NHW, mask_NHW = (torch.from_numpy(array).to(device) for array in (data.images_NHW, data.masks_NHW))

    def run() -> float:
        synchronise(device)
        started = case.now_s()
        for index in torch.randperm(count, device=device).split(case.batch):
            image_B1HW = image_NHW[index].unsqueeze(1).float() / 255
            mask_B1HW = mask_NHW[index].unsqueeze(1).float()
            optimiser.zero_grad()
            with torch.autocast(device.type, dtype=DTYPES[case.precision], enabled=case.precision != "fp32"):
                logits_B1HW = model(image_B1HW)
            loss = segmentation_loss(logits_B1HW, mask_B1HW, config)[0].mean()
            scaler.scale(loss).backward()
            scaler.step(optimiser)
            scaler.update()
        synchronise(device)
        return count / (case.now_s() - started)

    return run


class TurnedImages(Dataset):
    """As such a script does it: one image at a time, turned with OpenCV, as three float channels."""

    def __init__(self, data: Arrays) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data.images_NHW)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image_HW, mask_HW = self.data.images_NHW[index], self.data.masks_NHW[index]
        rows, columns = image_HW.shape
        turn = cv2.getRotationMatrix2D((columns / 2, rows / 2), float(np.random.uniform(-15, 15)), 1.0)
        image_HW = cv2.warpAffine(image_HW, turn, (columns, rows))
        mask_HW = cv2.warpAffine(mask_HW, turn, (columns, rows), flags=cv2.INTER_NEAREST)
        image_CHW = np.repeat(image_HW[None].astype(np.float32) / 255, 3, axis=0)
        return torch.from_numpy(image_CHW), torch.from_numpy(mask_HW[None].astype(np.float32))


def usual(case: Case) -> Contestant:
    torch.manual_seed(0)
    device, count = case.device, case.batch * case.steps
    model = smp.Unet(PAPER_TO_SMP[case.encoder], encoder_weights=None).to(device).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss_of = smp.losses.DiceLoss("binary")
    on_gpu = device.type == "cuda"
    # On a GPU machine a script has cores to spare for loading; on a CPU they would be taken from the training.
    loader = DataLoader(
        TurnedImages(samples(case, count)),
        batch_size=case.batch,
        shuffle=True,
        num_workers=4 if on_gpu else 0,
        pin_memory=on_gpu,
        persistent_workers=on_gpu,
    )

    def run() -> float:
        synchronise(device)
        started = case.now_s()
        for image_BCHW, mask_B1HW in loader:
            optimiser.zero_grad()
            loss = loss_of(model(image_BCHW.to(device)), mask_B1HW.to(device))
            loss.backward()
            optimiser.step()
            loss.item()
        synchronise(device)
        return count / (case.now_s() - started)

    return run


def race(case: Case, rounds: int) -> dict[str, list[float]]:
    """Images per second of each contestant in each of `rounds`, after one that does not count."""
    contestants = {"trial": trial(case), "hand-written": hand_written(case), "usual": usual(case)}
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for turn in range(rounds + 1):
        # Another order each time, so that none always runs after the same neighbour.
        for name in names[turn % 3 :] + names[: turn % 3]:
            rates[name].append(contestants[name]())
    return {name: values[1:] for name, values in rates.items()}


def median_ratio(above: list[float], below: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def matmul_tflops(device: torch.device, precision: Precision, now_s: Callable[[], float]) -> float:
    """The rate of a large square matrix product, in 1e12 operations a second: the best of some."""
    side = 8192 if device.type == "cuda" else 2048
    a = torch.rand(side, side, device=device, dtype=DTYPES[precision])
    b = torch.rand(side, side, device=device, dtype=DTYPES[precision])
    best = float("inf")
    for _ in range(8):
        synchronise(device)
        started = now_s()
        torch.mm(a, b)
        synchronise(device)
        best = min(best, now_s() - started)
    return 2 * side**3 / best / 1e12


def training_flops(encoder: str, size_px: int) -> float:
    """Operations of forward and backward for one image, a multiply-add being two."""
    model = meta_model(Architecture(encoder=encoder, image_size_px=size_px))
    with FlopCounterMode(display=False) as counter:
        logits_B1HW = model(torch.zeros(2, 1, size_px, size_px, device="meta"))
        torch.autograd.grad(logits_B1HW.sum(), list(model.parameters()), allow_unused=True)
    return counter.get_total_flops() / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default=default_device())
    parser.add_argument("--encoders", nargs="+", default=list(PAPER_ENCODERS), choices=PAPER_ENCODERS)
    parser.add_argument("--batches", type=int, nargs="+", default=[8])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, help="steps of a round; default: 50 on a GPU, 3 on a CPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    parser.add_argument("--precision", choices=tuple(DTYPES), help="default: what `precision: auto` means here")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    precision = arguments.precision or best_precision(device)
    steps = arguments.steps or (50 if device.type == "cuda" else 3)
    now_s = CLOCKS[arguments.clock]
    rate = matmul_tflops(device, precision, now_s)
    print(f"{device}, {precision}, {arguments.size} px, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"matrix product: {rate:.2f} TFLOP/s\n")
    print("encoder       batch    trial  hand-written    usual  of hand-written  of usual  of matrix product")
    failed = False
    for encoder in arguments.encoders:
        operations = training_flops(encoder, arguments.size)
        for batch in arguments.batches:
            case = Case(
                encoder=encoder,
                batch=batch,
                size_px=arguments.size,
                steps=steps,
                device=device,
                precision=precision,
                now_s=now_s,
            )
            rates = race(case, arguments.rounds)
            found = {name: statistics.median(values) for name, values in rates.items()}
            of_hand = median_ratio(rates["trial"], rates["hand-written"])
            of_usual = median_ratio(rates["trial"], rates["usual"])
            share = found["trial"] * operations / 1e12 / rate
            failed |= of_hand < AIM_HAND_WRITTEN or of_usual <= 1
            print(
                f"{encoder:<12} {batch:>6} {found['trial']:>8.2f} {found['hand-written']:>13.2f} {found['usual']:>8.2f}"
                f" {of_hand:>16.3f} {of_usual:>9.2f} {share:>18.1%}",
                flush=True,
            )
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
