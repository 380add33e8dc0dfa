"""A process that loads one variant, predicts one image many times, and says how long it took and how much memory.

python -m clinic.export.probe MODEL VARIANT THREADS      used by `clinic.export.measure`
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

from clinic.runtime.model import open_model

WARM_UP, CALLS = 3, 30


def main(path: str, variant: str, threads: int) -> None:
    """Print `p50_ms`, `p95_ms` and `peak_memory_mb` as one line of JSON."""
    model = open_model(path, variant=variant, threads=threads)
    size_px = model.info.preprocessing.size_px
    image_SS = np.random.default_rng(0).integers(0, 256, (size_px, size_px)).astype(np.uint8)
    times_ms = []
    for _ in range(WARM_UP + CALLS):
        began = time.perf_counter()
        model.probability(image_SS)
        times_ms.append(1000 * (time.perf_counter() - began))
    p50_ms, p95_ms = np.percentile(times_ms[WARM_UP:], [50, 95])
    print(json.dumps({"p50_ms": float(p50_ms), "p95_ms": float(p95_ms), "peak_memory_mb": peak_memory_mb()}))


def peak_memory_mb() -> float:
    """The most memory that this process has held, in MB (1e6 bytes)."""
    try:
        # Not ru_maxrss: on Linux it begins with the memory of the process that started this one.
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(float(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
