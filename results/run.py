"""The tables, figures and report of a study: `python -m results.run table runs/phantom`.

    table    prints the paper's tables II and III, the paper's figures beside ours; writes them as CSV and Markdown
    figures  writes validation curves (the paper's figure 2) and pictures of masks (figure 3) as PNG
    report   writes one HTML page: what came of it, tables, charts, pictures, every trial
    export   sends the trials to TensorBoard, MLflow or Weights & Biases

All read the study's folder only, also while the study runs. What they write goes into that folder, or into --out.
A mistake ends with exit status 2 and one message.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from cluster.cli import exits

app = typer.Typer(
    help="Tables, figures and the report of a study.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Study = Annotated[str, typer.Argument(help="Path or URI of the study's folder, e.g. runs/phantom.")]
Out = Annotated[str | None, typer.Option("--out", help="Folder or URI to write into; the study's own by default.")]


class Tracker(StrEnum):
    """Where trials can be sent."""

    TENSORBOARD = "tensorboard"
    MLFLOW = "mlflow"
    WANDB = "wandb"


@app.command()
def table(study: Study, out: Out = None) -> None:
    """Print tables II and III and write them as CSV and Markdown."""
    with exits("results"):
        from cluster.storage import Folder
        from results.show import print_tables, write_tables

        print_tables(study)
        _say_written(write_tables(study, Folder(out or study)))


@app.command()
def figures(study: Study, out: Out = None) -> None:
    """Write validation curves and pictures of masks as PNG (needs the extra `figures`)."""
    with exits("results"):
        from cluster.storage import Folder
        from results.figures import write_figures

        _say_written(write_figures(study, Folder(out or study)))


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
