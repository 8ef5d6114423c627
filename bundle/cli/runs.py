"""``bundle runs``: the runs so far."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from bundle.cli import _completion
from bundle.cli.options import ScreenLanguageOption
from bundle.runs.finding import OUTPUTS


def runs(
    out: Annotated[Path, typer.Option(metavar="DIR", help="List the runs in DIR.")] = OUTPUTS,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="List only runs of models whose names begin so.",
            show_default="all",
            autocompletion=_completion.run_models,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="List only runs of tasks whose names begin so.",
            show_default="all",
            autocompletion=_completion.tasks,
        ),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Also list runs that ended before their first question.")] = (
        False
    ),
    remove: Annotated[
        list[Path] | None,
        typer.Option(
            "--rm",
            metavar="RUN",
            help="Delete a run instead, by its full name. Repeatable.",
            show_default=False,
            autocompletion=_completion.run_names,
        ),
    ] = None,
    lang: ScreenLanguageOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything known about them as JSON.")] = False,
) -> None:
    """List the runs, newest first.

    Shows start, model, task, score, questions answered and duration (minutes:seconds); the best whole run of a task is
    in bold. Other commands take a run's name, any unambiguous beginning of it, a model's name for its newest run, or
    latest.
    """
    # imported late: `bundle --help` needs none of it
    from bundle.reports.texts import Words
    from bundle.runs.listing import list_runs, remove_run

    words = Words(lang)
    if remove:
        for directory in [remove_run(one, out) for one in remove]:
            typer.echo(words("screen.deleted", run=directory))
        return
    found = list_runs(out)
    if model is not None or task is not None:
        of_model = (run for run in found if (run.model or "").startswith(model or ""))
        found = [run for run in of_model if task is None or any(one.startswith(task) for one in run.tasks)]
    if as_json:
        typer.echo(json.dumps([run.to_json() for run in found], indent=1))
        return
    if not found:
        filtered = model is not None or task is not None
        typer.echo(words("screen.no_such_runs" if filtered else "screen.no_runs", out=out), err=True)
        return
    # imported late: `bundle --help` needs none of it
    from bundle.reports.screen.output import console
    from bundle.reports.screen.run_table import show_runs

    show_runs(console(sys.stdout, width=500), found, words, failed=failed)
