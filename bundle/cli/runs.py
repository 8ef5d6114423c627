"""``bundle runs``: the runs so far."""

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
    from bundle.runs.listing import list_runs

    found = list_runs(out)
    if as_json:
        import json

        typer.echo(json.dumps([run.to_json() for run in found], indent=1))
        return
    if not found:
        typer.echo(f"no runs in {out}", err=True)
        return
    import sys

    from bundle.reports.screen.output import console
    from bundle.reports.screen.run_table import show_runs

    show_runs(console(sys.stdout, width=500), found)
