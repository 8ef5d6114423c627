"""``bundle runs``: the runs so far."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import typer

from bundle.cli.options import option, screen_language, with_options
from bundle.reports.formats import Language
from bundle.runs.finding import OUTPUTS


@dataclass(frozen=True, slots=True)
class _Options:
    out: Path = option(OUTPUTS, "List the runs in DIR.", metavar="DIR")
    model: str | None = option(None, "List only runs of models whose names begin so.", metavar="NAME", default="all")
    task: str | None = option(None, "List only runs of tasks whose names begin so.", metavar="NAME", default="all")
    failed: bool = option(False, "Also list runs that ended before their first question.", "--failed")
    remove: list[Path] | None = option(
        None, "Delete a run instead, by its full name. Repeatable.", "--rm", metavar="RUN"
    )
    lang: Language | None = screen_language()
    as_json: bool = option(False, "Print everything known about them as JSON.", "--json")


@with_options
def runs(asked: _Options) -> None:
    """List the runs, newest first.

    Shows start, model, task, score, questions answered and duration (minutes:seconds); the best whole run of a task is
    in bold. Other commands take a run's name, any unambiguous beginning of it, a model's name for its newest run, or
    latest.
    """
    # imported late: `bundle --help` needs none of it
    from bundle.reports.texts import Words
    from bundle.runs.listing import list_runs, remove_run

    words = Words(asked.lang)
    out, model, task = asked.out, asked.model, asked.task
    if asked.remove:
        for directory in [remove_run(one, out) for one in asked.remove]:
            typer.echo(words("screen.deleted", run=directory))
        return
    found = list_runs(out)
    if model is not None or task is not None:
        of_model = (run for run in found if (run.model or "").startswith(model or ""))
        found = [run for run in of_model if task is None or any(one.startswith(task) for one in run.tasks)]
    if asked.as_json:
        typer.echo(json.dumps([run.to_json() for run in found], indent=1))
        return
    if not found:
        filtered = model is not None or task is not None
        typer.echo(words("screen.no_such_runs" if filtered else "screen.no_runs", out=out), err=True)
        return
    # imported late: `bundle --help` needs none of it
    from bundle.reports.screen.output import console
    from bundle.reports.screen.run_table import show_runs

    show_runs(console(sys.stdout, width=500), found, words, failed=asked.failed)
