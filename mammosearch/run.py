"""One command over the packages' own: `mammosearch prepare | train | search | results | clinic | cluster`.

    mammosearch init                          writes nas.yaml and configs/ into this folder
    mammosearch search --space nas.yaml       the same as `python -m search.run --space nas.yaml`
    mammosearch encoders resnet               the encoders whose names hold `resnet`

Each has `--help`. Exit status: 0 done, 1 it failed, 2 a mistake in what was asked for, 130 interrupted.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cluster.cli import exits

ROOMS = {
    "prepare": ("data_prep.run", "DICOM files in, shards of samples out."),
    "train": ("trainables.run", "Train one configuration in this process."),
    "search": ("search.run", "The main job: search, then train the winners in full."),
    "results": ("results.run", "Tables, figures and the report of a study."),
    "clinic": ("clinic.run", "Use a trained network: pack it, and segment films with it."),
    "cluster": ("cluster.run", "Check a cluster and its storage; send a study there."),
}
"""Command -> the module whose `app` it is, and what it is for."""


class Rooms(TyperGroup):
    """Commands of which each is imported when it is called, so that help and completion are quick."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first word names, and the words after it."""
        if args and args[0] in ROOMS:
            module = import_module(ROOMS[args[0]][0])
            return args[0], typer.main.get_command(module.app), args[1:]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Rooms,
    help="Distributed search for breast-tumour segmentation on mammograms.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"mammosearch {version('mammosearch')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Distributed search for breast-tumour segmentation on mammograms."""


def _listed(name: str, about: str) -> None:
    """Give a room its line in the help; `Rooms` runs the room's own command in its place."""

    @app.command(name, help=about)
    def room() -> None:
        raise AssertionError("Rooms.resolve_command runs the room's own command")


for _name, (_module, _about) in ROOMS.items():
    _listed(_name, _about)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where to; this folder by default.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
) -> None:
    """Write nas.yaml and configs/: the settings of the shipped studies, to be changed."""
    with exits("mammosearch"):
        from mammosearch.settings import write_settings

        for file in write_settings(folder, force=force):
            print(f"wrote {file}")
        print("next: mammosearch search --dry-run, which checks and estimates; without it, the study runs")


@app.command()
def encoders(
    part: Annotated[str, typer.Argument(help="Only those whose names hold this text.")] = "",
) -> None:
    """List the encoders that a study can ask for, the paper's first."""
    with exits("mammosearch"):
        from trainables.net.models import encoder_names

        found = [name for name in encoder_names() if part.lower() in name.lower()]
        if not found:
            raise ValueError(f"no encoder's name holds {part!r}; without it, all are listed")
        for name in found:
            print(name)


def main() -> None:
    """The command `mammosearch`."""
    app(prog_name="mammosearch")


if __name__ == "__main__":
    main()
