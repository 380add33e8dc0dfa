"""The tables, figures and report of a study: `python -m results.run table runs/phantom`.

    table    prints the verdict and the paper's tables II and III; writes these and more as CSV and Markdown
    figures  draws curves (the paper's figure 2), masks (figure 3), front, slots over time and others as PNG and SVG
    report   writes one HTML page: what came of it, tables, charts, pictures, every trial
    export   sends the trials to TensorBoard, MLflow or Weights & Biases

All read the study's folder only, also while the study runs. What they write goes into that folder, or into --out.
A mistake ends with exit status 2 and one message.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import typer

from cluster.cli import exits

Name = StrEnum("Name", "final nas scores groups froc encoders trials front cost paper")
"""The tables: the keys of `results.tables.TABLES`, here without importing it, so that `--help` is fast."""

app = typer.Typer(
    help="Tables, figures and the report of a study.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Study = Annotated[str, typer.Argument(help="Path or URI of the study's folder, e.g. runs/phantom.")]
Figures = StrEnum(
    "Figures", "summary finals training masks lesion_size froc calibration trials front importance settings slots cost"
)
"""The figures: the keys of `results.figures.write.FIGURES`."""
Width = Literal["paper", "column"]
Cost = Literal["parameters", "seconds", "dollars"]
Out = Annotated[str | None, typer.Option("--out", help="Folder or URI to write into; the study's own by default.")]


class Tracker(StrEnum):
    """Where trials can be sent."""

    TENSORBOARD = "tensorboard"
    MLFLOW = "mlflow"
    WANDB = "wandb"


@app.command()
def table(
    study: Study,
    out: Out = None,
    only: Annotated[list[Name] | None, typer.Option("--only", help="Print this table; may be given again.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Print every table.")] = False,
    cheapest_by: Annotated[Cost, typer.Option(help="What makes one of the tied finals the cheapest.")] = "parameters",
) -> None:
    """Print the verdict and tables II and III; write every table as CSV and Markdown."""
    with exits("results"):
        from cluster.storage import Folder
        from results.files import write_tables
        from results.tables import TABLES, print_tables

        print_tables(
            study,
            only=[name.value for name in only or ()] or (tuple(TABLES) if every else None),
            cheapest_by=cheapest_by,
        )
        _say_written(write_tables(study, Folder(out or study), cheapest_by=cheapest_by))


@app.command()
def figures(
    study: Study,
    out: Out = None,
    only: Annotated[list[Figures] | None, typer.Option("--only", help="This figure; may be given again.")] = None,
    width: Annotated[Width, typer.Option(help="Two columns of a paper, or one (legible on a phone).")] = "paper",
    film: Annotated[str | None, typer.Option(help="Draw the normalisations of this film too (figure 1).")] = None,
) -> None:
    """Draw what the study shows, as PNG and SVG in `figures/` (needs the extra `figures`)."""
    with exits("results"):
        from cluster.storage import Folder
        from results.figures.write import write_figures

        names = [name.value for name in only or ()]
        _say_written(write_figures(study, Folder(out or study), only=names, width=width, film=film))


@app.command()
def report(study: Study, out: Out = None) -> None:
    """Write one self-contained HTML page about the study."""
    with exits("results"):
        from cluster.storage import Folder
        from results.report import write_report

        _say_written(write_report(study, Folder(out or study)))


@app.command()
def export(
    study: Study,
    to: Annotated[list[Tracker], typer.Option("--to", help="A tracker; may be given several times.")],
) -> None:
    """Send the trials to a tracker: what it was not sent before, by this command or while the study ran."""
    with exits("results"):
        from results.table import study_folder
        from trainables.track.mirror import export_trials

        folder = study_folder(study)
        _say_written([export_trials(folder, name.value) for name in to])


def _say_written(files: list[str]) -> None:
    for file in files:
        print(f"wrote {file}")


if __name__ == "__main__":
    app()
