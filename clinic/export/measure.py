"""What a variant does on this machine: size, latency and memory in a process of its own, and Dice on samples.

Shapes: N samples, S side of the sample in pixels.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np

from clinic.runtime.model import Runtime
from data_prep.shards import Samples
from trainables.data import Samples as TrialSamples

BATCH = 8
PROBE_TIMEOUT_S = 600


def probe(model: str, variant: str, *, threads: int) -> dict[str, float]:
    """Latency and peak memory of a variant, in a fresh process that does nothing else.

    Returns:
        `p50_ms`, `p95_ms` of one image, `peak_memory_mb`.

    Raises:
        RuntimeError: the process failed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "clinic.export.probe", model, variant, str(threads)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=PROBE_TIMEOUT_S, env=environment
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise RuntimeError(f"variant {variant!r} could not be measured: {last[0]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def mean_dice(runtime: Runtime, samples: Samples | TrialSamples, threshold: float) -> float:
    """Hard Dice per image at the threshold, averaged; 1 where mask and prediction are both empty."""
    dices = []
    for start in range(0, len(samples.images_NHW), BATCH):
        image_N1SS = np.asarray(samples.images_NHW[start : start + BATCH])[:, None].astype(np.float32) / 255
        predicted_NSS = runtime(np.ascontiguousarray(image_N1SS))[:, 0] > threshold
        true_NSS = np.asarray(samples.masks_NHW[start : start + BATCH]) > 0
        sizes_N = predicted_NSS.sum((1, 2)) + true_NSS.sum((1, 2))
        both_N = (predicted_NSS & true_NSS).sum((1, 2))
        dices += list(np.where(sizes_N == 0, 1.0, 2 * both_N / np.maximum(sizes_N, 1)))
    return float(np.mean(dices))


def machine(threads: int) -> str:
    """The processor and the threads that were used, in words."""
    return f"{_processor()}, {threads} thread{'s' * (threads > 1)}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
