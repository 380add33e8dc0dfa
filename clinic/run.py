"""From a study to the clinic: pack a trained network, and use it.

    python -m clinic.run pack runs/nas/final/seresnet50 models/seresnet50      a trial -> a model folder
    python -m clinic.run predict models/seresnet50 films/ --out masks          films -> masks, pictures, DICOM objects
    python -m clinic.run export models/seresnet50 --shards shards/phantom      smaller and faster forms, measured
    python -m clinic.run archive films/ --model models/seresnet50 --out rois --secret-file secret    lesions alone
    python -m clinic.run restore rois --out films-again                        films of the original size
    python -m clinic.run serve models/seresnet50 --token-file token            films in, answers out, over HTTP

Nothing here may decide about a patient. Exit status: 0 done; 1 it failed, or some films could not be used; 2 a mistake
in what was asked for; 130 interrupted (the same command goes on).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.cli import SAME_COMMAND, exits

if TYPE_CHECKING:
    import pandas as pd

    from clinic.stream import Spread

app = typer.Typer(
    help="From a study to the clinic: pack a trained network, and use it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ModelFolder = Annotated[str, typer.Argument(help="Path or URI of a model folder.")]
Workers = Annotated[
    int | None, typer.Option(min=0, help="Processes by Ray; 0: this one. Default: one a core for many films.")
]
Ensemble = Annotated[list[str] | None, typer.Option(help="A further model to average with; may be repeated.")]
VariantName = Annotated[str | None, typer.Option("--variant", help="A form of the model; default: the chosen one.")]
SPREAD_FROM_FILMS = 60
"""From so many films on, starting Ray pays."""
MOST_LINES = 20


@app.command()
def pack(
    trial: Annotated[
        str, typer.Argument(help="A final (of its seeds the best by val Dice), or another trial's folder with weights.")
    ],
    out: Annotated[str, typer.Argument(help="Path or URI of the model folder; its name is the model's.")],
    shards: Annotated[str | None, typer.Option(help="What it was trained on; default: what it names.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model that is there.")] = False,
) -> None:
    """Make a model folder that predicts alone."""
    with exits("clinic", go_on=SAME_COMMAND):
        from clinic.pack import best_seed
        from clinic.pack import pack as pack_trial

        if (chosen := best_seed(trial)) is not None:
            print(f"{chosen}: of the final's seeds the one with the highest validation Dice")
        info = pack_trial(trial, out, shards=shards, overwrite=overwrite)
        steps = info.preprocessing
        print(f"{out}: {info.network.encoder}, {steps.field_of_view} view, {steps.size_px} px, see MODEL_CARD.md")


@app.command()
def predict(  # noqa: PLR0913 - one option a choice
    model: ModelFolder,
    inputs: Annotated[list[str], typer.Argument(help="Films: DICOM, PNG, JPEG, TIFF; files, folders, URIs.")],
    out: Annotated[str, typer.Option(help="Folder or URI of the results.")],
    variant: VariantName = None,
    ensemble: Annotated[
        list[str] | None, typer.Option(help="A further model to average with; may be repeated.")
    ] = None,
    flips: Annotated[
        list[str] | None, typer.Option(help="Average mirrored copies in: horizontal, vertical; may be repeated.")
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Probability above which a pixel is lesion.")] = None,
    box: Annotated[
        str | None, typer.Option(help="TOP,LEFT,BOTTOM,RIGHT of the lesion, for a lesion-view model.")
    ] = None,
    boxes: Annotated[str | None, typer.Option(help="CSV of lesions: film, top, left, bottom, right.")] = None,
    write: Annotated[
        str | None,
        typer.Option(help="mask,overlay,contours,seg,report,presentation (default), probability, fractional."),
    ] = None,
    plane_geometry: Annotated[
        bool, typer.Option("--plane-geometry", help="Made-up position in space, for viewers such as OHIF.")
    ] = False,
    workers: Workers = None,
) -> None:
    """Segment films; one that cannot be used is a row with its reason, and the rest goes on."""
    with exits("clinic", go_on=SAME_COMMAND):
        from clinic.films import find_films, read_box
        from clinic.predict.batch import predict_films
        from clinic.predict.choices import to_flips, to_outputs
        from clinic.predict.prediction import Options
        from clinic.predict.predictor import Order
        from clinic.progress import film_progress

        films = find_films(inputs, boxes=boxes, box=None if box is None else read_box(box))
        spread, threads = _spread(len(films), workers)
        order = Order(
            models=(model, *(ensemble or [])),
            out=out,
            variant=variant,
            options=Options(threshold=threshold, flips=to_flips(flips or [])),
            outputs=to_outputs(write),
            plane_geometry=plane_geometry,
            threads=threads,
        )
        with film_progress() as progress:
            table = predict_films(order, films, spread=spread, progress=progress)
        _tell(table, out)


@app.command()
def export(
    model: ModelFolder,
    shards: Annotated[str, typer.Option(help="The shard folder that the model was trained on.")],
    variants: Annotated[
        str, typer.Option(help="onnx, int8, pt2, openvino, pruned50 (any share), pruned50-int8; several by commas.")
    ] = "onnx,int8,pt2",
    max_latency_ms: Annotated[float | None, typer.Option(min=0, help="Limit of the 95th percentile.")] = None,
    max_mb: Annotated[float | None, typer.Option(min=0, help="Limit of the file, in MB.")] = None,
    min_dice: Annotated[float | None, typer.Option(min=0, max=1, help="On the validation split.")] = None,
    epochs: Annotated[int, typer.Option(min=0, help="Of fine-tuning after pruning.")] = 8,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads at which latency is measured.")] = 1,
) -> None:
    """Write the network in other forms, measure them here, and choose the one that `predict` uses."""
    with exits("clinic", go_on=SAME_COMMAND):
        from clinic.export.choose import Limits
        from clinic.export.export import ExportOrder
        from clinic.export.export import export as export_model
        from clinic.export.show import print_variants

        order = ExportOrder(
            model=model,
            shards=shards,
            variants=tuple(name.strip() for name in variants.split(",") if name.strip()),
            limits=Limits(max_latency_ms=max_latency_ms, max_mb=max_mb, min_dice=min_dice),
            epochs=epochs,
            threads=threads,
        )
        print_variants(export_model(order, tell=lambda line: typer.echo(line, err=True)))


@app.command()
def archive(
    inputs: Annotated[list[str], typer.Argument(help="DICOM films: files, folders, URIs.")],
    out: Annotated[str, typer.Option(help="Folder or URI of the archive.")],
    secret_file: Annotated[Path, typer.Option(help="Pseudonyms are made from its content; made where there is none.")],
    model: Annotated[str | None, typer.Option(help="A whole-view model that marks the lesions.")] = None,
    boxes: Annotated[str | None, typer.Option(help="CSV of lesions instead: film, top, left, bottom, right.")] = None,
    margin: Annotated[float, typer.Option(min=0, max=5, help="Kept around a lesion, as a share of its size.")] = 0.5,
    variant: VariantName = None,
    workers: Workers = None,
) -> None:
    """Keep the region of each lesion at full resolution, without loss, in new objects without anyone's name."""
    with exits("clinic", go_on=SAME_COMMAND):
        from clinic.archive.identity import read_secret
        from clinic.archive.keep import ArchiveJob, archive_films
        from clinic.archive.show import archive_text
        from clinic.films import find_films, one_a_film
        from clinic.progress import film_progress

        if (model is None) == (boxes is None):
            raise ValueError("give either --model, which marks the lesions, or --boxes, which names them")
        films = one_a_film(find_films(inputs, boxes=boxes))
        spread, threads = _spread(len(films), workers)
        job = ArchiveJob(
            out=out,
            names=read_secret(secret_file, make=True),
            model=model,
            variant=variant,
            margin=margin,
            threads=threads,
        )
        with film_progress() as progress:
            table = archive_films(job, films, spread=spread, progress=progress)
        print(archive_text(table, out))
        if (table["status"] != "kept").any():
            raise typer.Exit(1)


@app.command()
def restore(
    archive: Annotated[str, typer.Argument(help="Path or URI of an archive.")],
    out: Annotated[str | None, typer.Option(help="Folder or URI for films of the original size.")] = None,
    check: Annotated[list[str] | None, typer.Option(help="The originals: compare, look for names.")] = None,
    secret_file: Annotated[Path | None, typer.Option(help="The archive's secret, for --check.")] = None,
) -> None:
    """Put the regions back into films of the original size; compare them with the originals."""
    with exits("clinic", go_on=SAME_COMMAND):
        from clinic.archive.check import check_archive
        from clinic.archive.identity import read_secret
        from clinic.archive.restore import film_object, films_of, put_back
        from clinic.archive.show import checked_text
        from clinic.films import find_films
        from cluster.storage import Folder

        if out is None and not check:
            raise ValueError("nothing to do: give --out for the films, or --check for the originals")
        if out is not None:
            names = list(films_of(archive))
            for name in names:
                Folder(out).write_bytes(f"{name}.dcm", film_object(put_back(archive, name)))
            print(f"{out}: {len(names)} films, exact inside their regions and black elsewhere")
        if check:
            if secret_file is None:
                raise ValueError("--check needs --secret-file, which tells what film a region is of")
            found = check_archive(archive, find_films(check), read_secret(secret_file, make=False))
            print(checked_text(found))
            if any(not one.exact or one.leaks for one in found):
                raise typer.Exit(1)


@app.command()
def serve(  # noqa: PLR0913 - one option a choice
    model: ModelFolder,
    token_file: Annotated[Path, typer.Option(help="Holds the token that clients must send; made where there is none.")],
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8090,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
    plain_http: Annotated[
        bool, typer.Option("--plain-http", help="Without TLS for other machines too, behind a proxy that has it.")
    ] = False,
    variant: VariantName = None,
    ensemble: Annotated[
        list[str] | None, typer.Option(help="A further model to average with; may be repeated.")
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Probability above which a pixel is lesion.")] = None,
    plane_geometry: Annotated[
        bool, typer.Option("--plane-geometry", help="Made-up position in space, for viewers such as OHIF.")
    ] = False,
    max_mb: Annotated[float, typer.Option(min=0.1, help="Largest request, in MB.")] = 64.0,
    max_films: Annotated[int, typer.Option(min=1, help="Films in one request.")] = 16,
    max_waiting: Annotated[
        int, typer.Option(min=0, help="Requests that may wait; others are told to come again.")
    ] = 16,
    receive_s: Annotated[float, typer.Option(min=1, help="Seconds in which a body must have arrived.")] = 60.0,
    replicas: Annotated[int, typer.Option(min=0, help="Copies of the model by Ray Serve; 0: this process.")] = 0,
    max_replicas: Annotated[int, typer.Option(min=0, help="Up to so many while more is asked.")] = 0,
    corrections: Annotated[Path | None, typer.Option(help="Folder for masks that a person accepts or draws.")] = None,
    secret_file: Annotated[Path | None, typer.Option(help="For --corrections: pseudonyms are made from it.")] = None,
) -> None:
    """Answer films over HTTP with segmentations and reports; keep nothing."""
    with exits("clinic", go_on=SAME_COMMAND):
        from clinic.predict.prediction import Options
        from clinic.serve.answer import AnswerJob
        from clinic.serve.gate import ServiceLimits
        from clinic.serve.server import ServeOrder, cores
        from clinic.serve.server import serve as run_service

        order = ServeOrder(
            job=AnswerJob(
                models=(model, *(ensemble or [])),
                variant=variant,
                options=Options(threshold=threshold),
                plane_geometry=plane_geometry,
                threads=1,
            ),
            host=host,
            port=port,
            token_file=token_file,
            tls_cert=tls_cert,
            tls_key=tls_key,
            plain_http=plain_http,
            corrections=corrections,
            secret_file=secret_file,
            limits=ServiceLimits(
                max_body_mb=max_mb, max_films=max_films, at_once=cores(), max_waiting=max_waiting, receive_s=receive_s
            ),
        )
        if replicas:
            from clinic.serve.replicas import serve_replicas

            serve_replicas(order, replicas=replicas, most=max_replicas)
        else:
            run_service(order)


def _spread(films: int, workers: int | None) -> tuple[Spread, int | None]:
    """Where many films are worked on, and with how many threads each."""
    from clinic.stream import here

    if workers == 0 or (workers is None and films < SPREAD_FROM_FILMS):
        return here, None
    from clinic.on_ray import over

    return over(workers), 1


def _tell(table: pd.DataFrame, out: str) -> None:
    """Say what came of the films; exit status 1 where some could not be used."""
    bad = table[table["status"] != "segmented"]
    for row in bad.head(MOST_LINES).itertuples():
        typer.echo(f"{row.name}: {row.reason}".encode(errors="backslashreplace").decode(), err=True)
    if len(bad) > MOST_LINES:
        typer.echo(f"... and {len(bad) - MOST_LINES} more, see films.csv", err=True)
    left_out = int((table["status"] == "left_out").sum())
    marked = int(table.get("lesions", table["status"] == "").fillna(0).sum())
    print(f"{out}: {len(table) - left_out} films segmented, {marked} lesions marked, {left_out} films left out")
    if len(bad):
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
