"""Predicted against measured peak memory of a training step, for the paper's five models at batch 8 and 16.

    OMP_NUM_THREADS=1 python -m benchmarks.memory            # CPU: the allocator's own figures, from torch's profiler
    python -m benchmarks.memory --device cuda --precision fp16

Prints a table; ends with status 1 if a prediction is more than 10 % off.
"""

from __future__ import annotations

import argparse
import sys
from itertools import accumulate

import torch
from torch.profiler import ProfilerActivity, profile

from search.bill.memory import predict_memory
from trainables.config import PAPER_ENCODERS, TrialConfig
from trainables.net.architecture import Architecture
from trainables.net.models import build_model
from trainables.step.precision import DTYPES


def measure(config: TrialConfig, *, image_size_px: int, device: str, precision: str) -> int:
    """Peak bytes of the allocator over the second training step, weights and Adam's averages included."""
    torch.manual_seed(0)
    model = build_model(Architecture.of(config, image_size_px)).to(device)
    optimiser = torch.optim.Adam(model.parameters())
    image_BCHW = torch.rand(config.batch_size, 1, image_size_px, image_size_px, device=device)
    mask_BCHW = (image_BCHW > 0.9).float()

    def step() -> None:
        with torch.autocast(device, dtype=DTYPES[precision], enabled=precision != "fp32"):
            logits_BCHW = model(image_BCHW)
        p_BCHW = torch.sigmoid(logits_BCHW.float())
        both, total = (p_BCHW * mask_BCHW).sum(), p_BCHW.sum() + mask_BCHW.sum()
        (1 - (2 * both + 1) / (total + 1) - (both + 1) / (total - both + 1)).backward()
        optimiser.step()
        optimiser.zero_grad()

    step()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated()
    held = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
    held += sum(t.numel() * t.element_size() for s in optimiser.state.values() for t in s.values())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    events = profiled.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return held + max(accumulate(change for _, change in changes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=tuple(DTYPES), default="fp32")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--encoders", nargs="+", default=list(PAPER_ENCODERS))
    options = parser.parse_args()
    worst = 0.0
    print(f"{'encoder':<14}{'batch':>6}{'predicted MB':>14}{'measured MB':>13}{'ratio':>8}")
    for encoder in options.encoders:
        for batch in options.batches:
            config = TrialConfig(encoder=encoder, batch_size=batch)
            predicted = predict_memory(config, image_size_px=options.size, precision=options.precision).peak
            measured = measure(config, image_size_px=options.size, device=options.device, precision=options.precision)
            worst = max(worst, abs(predicted / measured - 1))
            print(
                f"{encoder:<14}{batch:>6}{predicted / 1e6:>14.0f}{measured / 1e6:>13.0f}{predicted / measured:>8.3f}",
                flush=True,
            )
    print(f"largest deviation {worst:.1%} (aim: 10 %)")
    sys.exit(worst > 0.10)


if __name__ == "__main__":
    main()
