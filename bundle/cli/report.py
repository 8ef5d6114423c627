"""``bundle report``: a run as a page for people, or in the format of another tool."""

from pathlib import Path
from typing import Annotated

import typer

from bundle.reports.formats import FORMATS, Format, Language


def report(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="The run's directory, or its name in outputs/.", show_default=False),
    ],
    format_name: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help=f"What to write: {', '.join(FORMATS)}.")
    ] = "html",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write it; by default in the run's directory.")
    ] = None,
    lang: Annotated[
        Language | None, typer.Option(help="The page's language; by default the reader's browser decides.")
    ] = None,
) -> None:
    """Write a run's results as one page that needs nothing else: for a browser, a mail, a printer."""
    from bundle.runs.recorded_run import read_recorded_run

    wanted = _find_format(format_name)
    recorded = read_recorded_run(run)
    path = recorded.directory / wanted.name if out is None else out
    if out is not None and out.is_dir() and not wanted.is_directory:
        path = out / wanted.name
    for remark in wanted.write(recorded, path, language=lang):
        typer.echo(remark, err=True)
    typer.echo(path)


def _find_format(name: str) -> Format:
    from bundle.errors import UsageError
    from bundle.system.text import did_you_mean

    if name in FORMATS:
        return FORMATS[name]
    raise UsageError(
        f"There is no format {name!r}.",
        remedy=did_you_mean(name, FORMATS, f"The formats are {', '.join(FORMATS)}."),
    )
