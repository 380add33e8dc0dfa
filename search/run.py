"""The main job: search, then train the winners in full.

    python -m search.run --space nas.yaml                 begin a study; it prepares its own data where there is none
    python -m search.run --space nas.yaml --here          the same in this process, without Ray, one trial at a time
    python -m search.run --space nas.yaml --resume        go on after a crash, a kill or Ctrl-C
    python -m search.run --space nas.yaml --dry-run       check everything and say what it would cost, without training

Exit status: 0 the study is done, 1 it failed, 2 a mistake in what was asked for, 130 interrupted.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.cli import exits
from cluster.launch import study_command

if TYPE_CHECKING:
    from search.job import Site

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=(__doc__ or "").split("\n\n")[0])


DEFAULT = Path("nas.yaml")


@app.command()
def main(  # noqa: PLR0913 - one option a choice
    space: Annotated[Path, typer.Option(help="The study's settings (docs/nas_yaml.md).")] = DEFAULT,
    out: Annotated[str | None, typer.Option(help="The study's folder; default: what the settings say.")] = None,
    here: Annotated[
        bool, typer.Option("--here", help="Run it in this process, one trial at a time, without Ray.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the study in its folder.")] = False,
    max_usd: Annotated[
        float | None, typer.Option(help="End at the first report at which the slots have cost this much.", min=0)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and estimate; train nothing.")] = False,
    reproduce: Annotated[str | None, typer.Option(help="Train this trial again and compare.", metavar="TRIAL")] = None,
    audit: Annotated[
        str | None, typer.Option(help="Make every decision of the study in this folder again.", metavar="STUDY")
    ] = None,
    verify_resume: Annotated[
        int | None, typer.Option(help="Kill the study N times at random and compare with an undisturbed one.", min=1)
    ] = None,
) -> None:
    """Search a space of trials, then train the winners in full."""
    if audit is not None:
        return _audit(audit)
    from search.settings.config import load_study_config
    from search.settings.outside import encoders, outside

    again = shlex.join([*study_command(str(space), out=out, max_usd=max_usd, resume=True), *["--here"] * here])
    with exits("search", go_on=f"go on with: {again}"):
        if space == DEFAULT and not space.exists():
            raise ValueError(
                f"there is no {space} here; name the study's settings by --space, or write it: mammosearch init"
            )
        config = load_study_config(space, out=out, max_usd=max_usd, also=encoders if dry_run else outside)
        from search import job  # torch, Ray and Optuna: only once it is clear that there is something to do

        fine = True
        if dry_run:
            job.dry(config)
        elif reproduce is not None:
            fine = job.reproduce(config, reproduce)
        elif verify_resume is not None:
            fine = job.verify(config, space, kills=verify_resume, here=here)
        else:
            job.run(config, _site(here), resume=resume)
        if not fine:
            raise typer.Exit(1)


def _audit(study: str) -> None:
    """Print every difference; exit status 1 if there is one."""
    with exits("search"):
        from search.proof.audit import show_audit

        if not show_audit(study):
            raise typer.Exit(1)


def _site(here: bool) -> Site:
    """Where the trials run; Ray is imported for the one alone."""
    if here:
        from search import here as site
    else:
        from search import study as site  # type: ignore[no-redef]
    return site


if __name__ == "__main__":
    app()
