"""What a search costs until it has found what a whole grid would have found, on recorded curves and without training.

    python -m benchmarks.search_cost                                   # all methods, 50 seeds, 1, 4 and 16 slots
    python -m benchmarks.search_cost --curves synthetic --seeds 20 --slots 4 --methods "forecast + freeze" "tpe + asha"

For each method: how many epochs were trained, by all slots together, until a configuration within 0.005 Dice of the
grid's best was trained in full; the median over seeds, and what nine studies in ten stay below; the share of studies
that are there within a quarter of the grid's epochs; the share in which the grid's true winner was begun and never
trained in full; and the share of slot time in use. `inf`: not within the whole grid's epochs. The oracle begins with
the winner: no method can be below it. With many slots it trains many epochs too, for those of one trial come in a row.

Curves: `lesion` and `whole` are those of benchmarks/data/curves.parquet (`benchmarks/curves.py`), `synthetic` invents a
grid for each seed. Methods of other projects are run as their users run them (`benchmarks/rivals.py`).
"""

from __future__ import annotations

import argparse
import functools
import math
import multiprocessing
import statistics
import sys
from collections.abc import Sequence

from benchmarks.ours import OURS
from benchmarks.replay import Contestant, Told, World, recorded, replay, synthetic
from benchmarks.rivals import RIVALS, quiet

METHODS = {**OURS, **RIVALS}
DEFAULT = "forecast + freeze"
HEAD = "| method | slots | epochs, median | 90 % | within a quarter | winner lost | CPU minutes, median | busy |"


@functools.cache
def world_of(curves: str, seed: int) -> World:
    return synthetic(seed) if curves == "synthetic" else recorded(curves)


def study(task: tuple[str, str, int, int]) -> Told:
    """Replay one study: (curves, method, slots, seed)."""
    curves, method, slots, seed = task
    quiet()
    world = world_of(curves, seed if curves == "synthetic" else 0)
    contestant: Contestant = METHODS[method](world, seed)
    return replay(world, contestant, slots=slots)


def row(method: str, slots: int, told: Sequence[Told], world: World) -> str:
    """One row of the table."""
    found = sorted(one.found_epochs for one in told)
    ninth = found[math.ceil(0.9 * len(found)) - 1]
    quarter = sum(epochs <= world.grid_epochs / 4 for epochs in found) / len(found)
    lost = sum(0 < one.winner_epochs < world.epochs for one in told) / len(told)
    minutes = statistics.median(one.found_cpu_s for one in told) / 60
    busy = statistics.fmean(one.busy for one in told)
    cells = (method, slots, f"{statistics.median(found):.0f}", f"{ninth:.0f}", f"{quarter:.0%}", f"{lost:.0%}")
    return "| " + " | ".join(map(str, (*cells, f"{minutes:.0f}", f"{busy:.2f}"))) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", default="lesion", choices=("lesion", "whole", "synthetic"))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    world = world_of(arguments.curves, 0)
    print(
        f"{world.name}: {len(world.cells)} cells of {world.epochs} epochs, {world.grid_epochs} epochs in all; ", end=""
    )
    print(f"{len(world.targets)} within the target; {arguments.seeds} seeds\n\n{HEAD}\n|---|" + "---:|" * 7, flush=True)
    # `spawn`: Ray and torch, which some of the rivals import, do not survive a fork.
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        for method in arguments.methods:
            for slots in arguments.slots:
                tasks = [(arguments.curves, method, slots, seed) for seed in range(arguments.seeds)]
                print(row(method, slots, pool.map(study, tasks, chunksize=5), world), flush=True)
    sys.exit(0)


if __name__ == "__main__":
    main()
