"""``bundle runs``: the runs so far."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def runs(
    out: Annotated[Path, typer.Option(metavar="DIR", help="List the runs in DIR.")] = Path("outputs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print everything known about them as JSON.")] = False,
) -> None:
    """List the runs, newest first.

    Shows start, model, task, score, questions answered and duration (minutes:seconds). Other commands take a run's
    name, or any unambiguous beginning of it.
    """
    from bundle.runs.listing import list_runs  # imported late: `bundle --help` does not need it

    found = list_runs(out)
    if as_json:
        typer.echo(json.dumps([run.to_json() for run in found], indent=1))
        return
    if not found:
        typer.echo(f"no runs in {out}", err=True)
        return
    # imported late: `bundle --help` needs none of it
    from bundle.reports.screen.output import console
    from bundle.reports.screen.run_table import show_runs

    show_runs(console(sys.stdout, width=500), found)
