"""``bundle runs``: what runs there are."""

from pathlib import Path
from typing import Annotated

import typer


def runs(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where run directories are made.")] = Path("outputs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print all that is known of them as JSON.")] = False,
) -> None:
    """List the runs, newest first: when, model, task, score, questions answered, time (minutes:seconds).

    Reports and comparisons take a run's name, or as much of its beginning as no other has.
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

    from rich.console import Console

    from bundle.reports.screen.run_table import show_runs

    terminal = sys.stdout.isatty()
    show_runs(Console(highlight=False, emoji=False, soft_wrap=not terminal, width=None if terminal else 500), found)
