"""Train one configuration in this process, without Ray.

    python -m trainables.run --shards shards/phantom --out runs/one --encoder mobilenet
    python -m trainables.run --shards shards/phantom --out runs/one --config trial.yaml --set learning_rate=3e-4
    python -m trainables.run --shards shards/phantom --encoder mobilenet --untrained     the score before training

The trial folder has trial.json, metrics.jsonl, status.json, test.json, weights.safetensors and checkpoint/; the same
command goes on where it was interrupted. Settings: the fields of `TrialConfig` (trainables/config.py).

Exit status: 0 trained, 1 training failed, 2 a mistake in what was asked for, 130 interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=(__doc__ or "").split("\n\n")[0])


@app.command()
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
    from trainables import train_one  # torch: only once it is clear that there is something to do

    try:
        wanted = train_one.read_config(config, [*([f"encoder={encoder}"] if encoder else []), *(settings or [])])
        if untrained:
            train_one.measure_untrained(wanted, shards, device=device, threads=threads)
        elif out is None:
            raise ValueError("--out is missing: the trial's folder, e.g. --out runs/one")
        else:
            train_one.train(wanted, shards, out, device=device, threads=threads)
    except train_one.TrainingFailedError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from error
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error
    except KeyboardInterrupt as error:
        print("interrupted; the same command goes on from the last epoch", file=sys.stderr)
        raise typer.Exit(130) from error


if __name__ == "__main__":
    app()
