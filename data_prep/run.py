"""Data preparation: DICOM in, shards out.

    python -m data_prep.run build --source phantom --out shards/phantom
    python -m data_prep.run build --source cbis_ddsm --root /data/CBIS-DDSM --out shards/cbis --set size_px=512
    python -m data_prep.run inspect shards/cbis          the card, counts, rejects, a contact sheet, the checksums
    python -m data_prep.run report shards/cbis           one HTML page about the data's quality
    python -m data_prep.run figure film.dcm              the paper's figure 1: original, min-max, z-score, CLAHE
    python -m data_prep.run amdahl --root /data/CBIS     what more workers bring, and what Amdahl's law says
    python -m data_prep.run forget                       remove what this machine remembers of films

Exit status: 0 done, 1 it failed, 2 a mistake in what was asked for, 130 interrupted (the same command goes on).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cluster.cli import SAME_COMMAND, exits, lists_settings

if TYPE_CHECKING:
    from cluster.settings.listing import Key
    from data_prep.build import Workers
    from data_prep.schema import BuildSettings

app = typer.Typer(
    help="Data preparation: DICOM in, shards out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _keys() -> Iterator[Key]:
    from cluster.settings.listing import leaves
    from data_prep.schema import BuildSettings

    return leaves(BuildSettings)


SettingsFile = Annotated[
    Path | None, typer.Option("--settings", help="YAML file of settings; what is given here wins.")
]
Source = Annotated[str | None, typer.Option(help="cbis_ddsm, pairs or phantom (default); the same as --set source=...")]
Root = Annotated[str | None, typer.Option(help="Folder or URI of the source's files; the same as --set root=...")]
Words = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting; may be given several times.")
]
Folder = Annotated[str, typer.Argument(help="Path or URI of a shard folder.")]


@app.command(cls=lists_settings(_keys))
def build(
    out: Annotated[str | None, typer.Option(help="Folder or URI of the shards; default: shards/<source>.")] = None,
    source: Source = None,
    root: Root = None,
    words: Words = None,
    settings: SettingsFile = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Tasks at a time; default: one a core. 0: no Ray.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Remove shards of other settings first.")] = False,
) -> None:
    """Build a shard folder; a build that was interrupted goes on, a finished one is left as it is."""
    with exits("data_prep", go_on=SAME_COMMAND):
        wanted = _settings(settings, words, source=source, root=root)
        from data_prep.build import build as build_shards
        from data_prep.look.progress import console_progress
        from data_prep.look.show import card_text

        folder = out or f"shards/{wanted.source}"
        with console_progress() as progress:
            card = build_shards(wanted, folder, overwrite=overwrite, workers=_crew(workers), progress=progress)
        print(card_text(card, folder))


@app.command()
def inspect(
    folder: Folder,
    sheet: Annotated[Path | None, typer.Option(help="Where to write the contact sheet (PNG).")] = None,
) -> None:
    """Print the card, the counts and the rejects; write a contact sheet; verify every checksum."""
    with exits("data_prep"):
        from data_prep.look.show import inspection, write_sheet
        from data_prep.shards import open_shards

        shards = open_shards(folder)
        print(inspection(shards))
        print(f"contact sheet: {write_sheet(shards, sheet)}")
        shards.check()
        print(f"checksums: all {len(shards.card.files)} shards are as the card says")


@app.command()
def report(
    folder: Folder,
    out: Annotated[Path | None, typer.Option(help="Where to write the page; default: <name>-quality.html.")] = None,
) -> None:
    """Write one HTML page about the data's quality."""
    with exits("data_prep"):
        from data_prep.look.show import write_report

        print(f"report: {write_report(folder, out)}")


@app.command()
def figure(
    film: Annotated[str, typer.Argument(help="A DICOM file (or PNG, JPEG, TIFF), path or URI.")],
    out: Annotated[Path | None, typer.Option(help="Where to write the PNG; default: <film>-normalised.png.")] = None,
) -> None:
    """Write the paper's figure 1 of a film: original, min-max, z-score and CLAHE side by side."""
    with exits("data_prep"):
        from data_prep.look.figure import normalisation_figure, png

        target = out or Path(f"{Path(film).stem}-normalised.png")
        target.write_bytes(png(normalisation_figure(film)))
        print(f"figure: {target}")


@app.command()
def forget() -> None:
    """Remove what this machine remembers of films: their headers and their decoded samples."""
    with exits("data_prep"):
        from data_prep.cache import forget as forget_films
        from data_prep.cache import remembered

        for folder in remembered():
            print(f"forgets {folder}")
        print(f"{forget_films() / 1e6:.1f} MB freed")


@app.command(cls=lists_settings(_keys))
def amdahl(
    source: Source = None,
    root: Root = None,
    words: Words = None,
    settings: SettingsFile = None,
    max_workers: Annotated[int | None, typer.Option(min=2, help="Measure 1, 2, 4, ... up to so many.")] = None,
) -> None:
    """Build with 1, 2, 4, ... workers; print the measured gain beside that of Amdahl's law."""
    with exits("data_prep"):
        wanted = _settings(settings, words, source=source, root=root)
        from data_prep.look import amdahl as law
        from data_prep.look.progress import console_progress

        with console_progress() as progress:
            measured = law.measure(wanted, law.worker_counts(max_workers), progress=progress)
        print(law.to_text(measured))


def _crew(workers: int | None) -> Workers | Literal[0]:
    if workers == 0:
        return 0
    from data_prep.on_ray import RayWorkers  # takes a second

    return RayWorkers(workers)


def _settings(file: Path | None, words: list[str] | None, **options: str | None) -> BuildSettings:
    """The file's settings with what is given on the command line laid over them."""
    from cluster.settings.source import read_settings
    from cluster.settings.validate import validate
    from data_prep.schema import BuildSettings

    return validate(BuildSettings, read_settings(file, words=words or (), options=options))


if __name__ == "__main__":
    app()
