"""Data preparation: DICOM in, shards out.

    python -m data_prep.run build --source phantom --out shards/phantom
    python -m data_prep.run build --source cbis_ddsm --root /data/CBIS-DDSM --out shards/cbis --size-px 512
    python -m data_prep.run inspect shards/cbis          the card, counts, rejects, a contact sheet, the checksums
    python -m data_prep.run report shards/cbis           one HTML page about the data's quality
    python -m data_prep.run figure film.dcm              the paper's figure 1: original, min-max, z-score, CLAHE
    python -m data_prep.run amdahl --root /data/CBIS     what more workers bring, and what Amdahl's law says

Exit status: 0 done, 1 it failed, 2 a mistake in what was asked for, 130 interrupted (the same command goes on).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from data_prep.schema import BuildSettings

app = typer.Typer(
    help="Data preparation: DICOM in, shards out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

SettingsFile = Annotated[
    Path | None, typer.Option("--settings", help="YAML file of BuildSettings; the options here go before it.")
]
Source = Annotated[str | None, typer.Option(help="cbis_ddsm, pairs or phantom (default).")]
Root = Annotated[str | None, typer.Option(help="Folder or URI of the source's files.")]
IndexCsv = Annotated[
    str | None, typer.Option(help="pairs: a CSV of image and mask files. cbis_ddsm: the folder of the CSVs.")
]
Kind = Annotated[list[str] | None, typer.Option(help="cbis_ddsm: mass or calc; give twice for both (default).")]
Patients = Annotated[int | None, typer.Option(help="phantom: how many patients.")]
FilmRows = Annotated[int | None, typer.Option(help="phantom: height of a film in pixels.")]
PhantomSeed = Annotated[int | None, typer.Option(help="phantom: another seed, other films.")]
FieldOfView = Annotated[str | None, typer.Option(help="whole: one sample an image. lesion: a crop around each lesion.")]
LesionMargin = Annotated[float | None, typer.Option(help="lesion: margin on each side, as a share of its size.")]
SizePx = Annotated[int | None, typer.Option(help="Side of the square samples, a multiple of 32.")]
Normalisation = Annotated[
    list[str] | None, typer.Option(help="clahe (default), minmax or zscore; give several times for several.")
]
Crop = Annotated[bool | None, typer.Option("--crop/--no-crop", help="Cut to the breast's box.")]
Orient = Annotated[bool | None, typer.Option("--orient/--no-orient", help="Mirror so that the chest wall is left.")]
ValFraction = Annotated[float | None, typer.Option(help="Share of the training patients that validates.")]
TestFraction = Annotated[float | None, typer.Option(help="Share that tests, where the source has no official split.")]
SplitSeed = Annotated[int | None, typer.Option(help="Another seed, another choice of patients.")]
PerShard = Annotated[int | None, typer.Option("--samples-per-shard", help="At most so many samples a Parquet file.")]
Workers = Annotated[int | None, typer.Option(min=0, help="Tasks at a time; default: one a core. 0: without Ray.")]
Folder = Annotated[str, typer.Argument(help="Path or URI of a shard folder.")]


@app.command()
def build(  # noqa: PLR0913 - one option a setting
    out: Annotated[str | None, typer.Option(help="Folder or URI of the shards; default: shards/<source>.")] = None,
    settings: SettingsFile = None,
    source: Source = None,
    root: Root = None,
    index_csv: IndexCsv = None,
    kind: Kind = None,
    patients: Patients = None,
    film_rows: FilmRows = None,
    phantom_seed: PhantomSeed = None,
    field_of_view: FieldOfView = None,
    lesion_margin: LesionMargin = None,
    size_px: SizePx = None,
    normalisation: Normalisation = None,
    crop: Crop = None,
    orient: Orient = None,
    val_fraction: ValFraction = None,
    test_fraction: TestFraction = None,
    split_seed: SplitSeed = None,
    samples_per_shard: PerShard = None,
    workers: Workers = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Remove shards of other settings first.")] = False,
) -> None:
    """Build a shard folder; a build that was interrupted goes on, a finished one is left as it is."""
    given: dict[str, Any] = {
        "source": source,
        "root": root,
        "index_csv": index_csv,
        "kinds": kind,
        "phantom": {"patients": patients, "rows": film_rows, "seed": phantom_seed},
        "field_of_view": field_of_view,
        "lesion_margin": lesion_margin,
        "size_px": size_px,
        "normalisations": normalisation,
        "crop_to_breast": crop,
        "orient": orient,
        "val_fraction": val_fraction,
        "test_fraction": test_fraction,
        "split_seed": split_seed,
        "samples_per_shard": samples_per_shard,
    }
    with _mistakes():
        wanted = _settings(settings, given)
        from data_prep.build import build as build_shards
        from data_prep.look.progress import console_progress
        from data_prep.look.show import card_text

        folder = out or f"shards/{wanted.source}"
        with console_progress() as progress:
            card = build_shards(wanted, folder, overwrite=overwrite, workers=workers, progress=progress)
        print(card_text(card, folder))


@app.command()
def inspect(
    folder: Folder,
    sheet: Annotated[Path | None, typer.Option(help="Where to write the contact sheet (PNG).")] = None,
) -> None:
    """Print the card, the counts and the rejects; write a contact sheet; verify every checksum."""
    from data_prep.look.show import inspection, write_sheet
    from data_prep.shards import open_shards

    with _mistakes():
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
    from data_prep.look.show import write_report

    with _mistakes():
        print(f"report: {write_report(folder, out)}")


@app.command()
def figure(
    film: Annotated[str, typer.Argument(help="A DICOM file (or PNG, JPEG, TIFF), path or URI.")],
    out: Annotated[Path | None, typer.Option(help="Where to write the PNG; default: <film>-normalised.png.")] = None,
) -> None:
    """Write the paper's figure 1 of a film: original, min-max, z-score and CLAHE side by side."""
    from data_prep.look.figure import normalisation_figure, png

    with _mistakes():
        target = out or Path(f"{Path(film).stem}-normalised.png")
        target.write_bytes(png(normalisation_figure(film)))
        print(f"figure: {target}")


@app.command()
def amdahl(
    settings: SettingsFile = None,
    source: Source = None,
    root: Root = None,
    index_csv: IndexCsv = None,
    patients: Patients = None,
    film_rows: FilmRows = None,
    samples_per_shard: PerShard = None,
    max_workers: Annotated[int | None, typer.Option(min=2, help="Measure 1, 2, 4, ... up to so many.")] = None,
) -> None:
    """Build with 1, 2, 4, ... workers; print the measured gain beside that of Amdahl's law."""
    given = {
        "source": source,
        "root": root,
        "index_csv": index_csv,
        "phantom": {"patients": patients, "rows": film_rows},
        "samples_per_shard": samples_per_shard,
    }
    with _mistakes():
        wanted = _settings(settings, given)
        from data_prep.look import amdahl as law
        from data_prep.look.progress import console_progress

        with console_progress() as progress:
            measured = law.measure(wanted, law.worker_counts(max_workers), progress=progress)
        print(law.to_text(measured))


def _settings(file: Path | None, given: dict[str, Any]) -> BuildSettings:
    """The file's settings with the given options in their place; every mistake in one ValueError."""
    import yaml
    from pydantic import ValidationError

    from data_prep.schema import BuildSettings

    values = yaml.safe_load(file.read_text()) if file else {}
    if not isinstance(values, dict):
        raise ValueError(f"{file}: a mapping of settings is wanted, got {type(values).__name__}")
    phantom = {**(values.get("phantom") or {}), **_present(given.pop("phantom"))}
    values = {**values, **_present(given), **({"phantom": phantom} if phantom else {})}
    try:
        return BuildSettings.model_validate(values)
    except ValidationError as error:
        lines = [_mistake(dict(item)) for item in error.errors()]
        raise ValueError("\n".join(["these settings cannot be used:", *lines])) from error


def _present(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, [])}


def _mistake(error: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    return f"  {place}: {error['input']!r}: {message}" if place else f"  {message}"


@contextmanager
def _mistakes() -> Iterator[None]:
    """A mistake of the user's is one message and exit status 2."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        typer.echo(f"data_prep: {error}", err=True)
        raise typer.Exit(2) from error
    except OSError as error:
        typer.echo(f"data_prep: {type(error).__name__}: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        typer.echo("data_prep: interrupted; the same command goes on where it stopped", err=True)
        raise typer.Exit(130) from error


if __name__ == "__main__":
    app()
