"""Clusters: check a cluster file, the GPUs and the storage; send a study to a cluster and bring its tables back.

    python -m cluster.run check cluster/files/gcp.yaml --space configs/paper.yaml   the file, and the pools of a study
    python -m cluster.run check --gpus                                       the GPUs of this machine, and its torch
    python -m cluster.run check --storage s3://bucket/folder                 write, read, list and delete there
    python -m cluster.run launch cluster/files/gcp.yaml --space STUDY --out URI    submit, follow, and print the tables

Exit status: 0 all is well, 1 it failed, 2 a mistake in what was asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli import exits

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=(__doc__ or "").split("\n\n")[0])


@app.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="A cluster file of Ray, or a RayJob.")] = None,
    space: Annotated[Path | None, typer.Option(help="A study, each of whose pools some machine must make.")] = None,
    gpus: Annotated[
        bool, typer.Option("--gpus", help="Compare the GPUs here with what torch has kernels for.")
    ] = False,
    storage: Annotated[str | None, typer.Option(help="Write, read, list and delete at this path or URI.")] = None,
) -> None:
    """Check a cluster file without a cloud; the GPUs; the storage."""
    with exits("cluster"):
        if file is None and not gpus and storage is None:
            raise ValueError("nothing to check: name a file, or give --gpus or --storage")
        if file is None and space is not None:
            raise ValueError("--space is checked against a cluster file: name one before it")
        if file is not None:
            _check_file(file, space)
        if gpus:
            _check_gpus()
        if storage is not None:
            _check_storage(storage)


@app.command()
def launch(
    file: Annotated[Path, typer.Argument(help="A cluster file that `ray up` has started.")],
    space: Annotated[Path, typer.Option(help="The study's settings; a file below the repository.")],
    out: Annotated[str, typer.Option(help="The study's folder: a URI, or a path that every machine sees.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the study in its folder.")] = False,
    max_usd: Annotated[
        float | None, typer.Option(help="End at the first report at which the slots have cost this much.", min=0)
    ] = None,
) -> None:
    """Submit a study to a running cluster, follow it, and print its tables."""
    with exits("cluster"):
        from cluster.launch import launch as launch_study

        if left := _check_file(file, space):
            raise ValueError(f"{file} has {len(left)} open places; fill them in first")
        launch_study(file, space=space, out=out, resume=resume, max_usd=max_usd)


def _check_file(file: Path, space: Path | None) -> list[str]:
    """Print what a check finds; gives the places that are still to be filled in."""
    from cluster.check.cluster_file import check_file, pools_of

    pools = pools_of(space) if space is not None else None
    left = check_file(file, pools=pools)
    made = f", and makes the pools {', '.join(pool.name for pool in pools)}" if pools is not None else ""
    print(f"{file} is as Ray wants it{made}" + (f", once these {len(left)} places are filled in:" if left else ""))
    for place in left:
        print(place)
    return left


def _check_gpus() -> None:
    import torch

    from cluster.gpu import Gpu, advice

    count = torch.cuda.device_count()
    found = [Gpu(torch.cuda.get_device_name(i), torch.cuda.get_device_capability(i)) for i in range(count)]
    wrong = [text for gpu in found if (text := advice(gpu, torch.cuda.get_arch_list(), torch.__version__))]
    if wrong:
        raise RuntimeError("\n".join(wrong))
    names = ", ".join(gpu.name for gpu in found)
    print(f"torch {torch.__version__} has kernels for {names}" if found else "torch sees no GPU here")


def _check_storage(uri: str) -> None:
    from cluster.check.storage import check_storage
    from cluster.storage import Folder

    check_storage(Folder(uri), tell=print)
    print(f"{uri} can be written, read, listed and deleted")


if __name__ == "__main__":
    app()
