"""Train one configuration in this process, without Ray.

    python -m trainables.run --shards shards/phantom --out runs/one --encoder mobilenet
    python -m trainables.run --shards shards/phantom --out runs/one --config trial.yaml --set learning_rate=3e-4
    python -m trainables.run --shards shards/phantom --encoder mobilenet --untrained     the score before training

The trial folder has trial.json, metrics.jsonl, status.json, test.json, weights.safetensors and checkpoint/; the same
command goes on where it was interrupted. `--help` lists the settings, the fields of `TrialConfig`.

Exit status: 0 trained, 1 training failed, 2 a mistake in what was asked for, 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.cli import SAME_COMMAND, exits, lists_settings

if TYPE_CHECKING:
    from cluster.settings.listing import Key

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=(__doc__ or "").split("\n\n")[0])


def _keys() -> Iterator[Key]:
    from cluster.settings.listing import leaves
    from trainables.config import TrialConfig

    return leaves(TrialConfig)


@app.command(cls=lists_settings(_keys))
def main(
    shards: Annotated[str, typer.Option(help="The shard folder, a path or URI.")],
    out: Annotated[str | None, typer.Option(help="The trial's folder, a path or URI.")] = None,
    encoder: Annotated[str | None, typer.Option(help="The same as --set encoder=...")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings; default: the paper's.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting; may be given several times.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; default: the GPU if there is one.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of torch.", min=1)] = None,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Measure the network before any training, and end.")
    ] = False,
) -> None:
    """Train one configuration and measure it on the test split."""
    with exits("trainables", go_on=SAME_COMMAND):
        from cluster.settings.source import read_settings
        from cluster.settings.validate import validate
        from trainables.config import TrialConfig
        from trainables.net.known import name_problems

        source = read_settings(config, words=settings or (), options={"encoder": encoder})
        wanted = validate(TrialConfig, source, also=name_problems)
        if out is None and not untrained:
            raise ValueError("--out is missing: the trial's folder, e.g. --out runs/one")
        from trainables import train_one  # torch: only once it is clear that there is something to do
        from trainables.step.device import usable_device

        device = usable_device(device)
        if out is None or untrained:
            train_one.measure_untrained(wanted, shards, device=device, threads=threads)
        else:
            train_one.train(wanted, shards, out, device=device, threads=threads)


if __name__ == "__main__":
    app()
