"""``bundle report``: a run as a page for people, or in the format of another tool."""

from pathlib import Path
from typing import Annotated

import typer

from bundle.cli import _completion
from bundle.cli.options import LanguageOption, OutOption, RunArgument
from bundle.errors import UsageError
from bundle.reports.formats import FORMATS, STANDARD_OUTPUT
from bundle.runs.finding import LATEST, OUTPUTS
from bundle.system.text import did_you_mean


def report(
    run: RunArgument = LATEST,
    format_name: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help=f"Format to write: {', '.join(FORMATS)}.",
            autocompletion=_completion.formats,
        ),
    ] = "html",
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write it here; - is standard output.",
            show_default="in the run's directory",
        ),
    ] = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Write a model card of a part of the benchmark.")
    ] = False,
    lang: LanguageOption = None,
    out: OutOption = OUTPUTS,
) -> None:
    """Write a run as a page, or in another tool's format.

    The HTML page is one file that works offline, in a mail and on paper.
    """
    # imported late: `bundle --help` needs none of it
    from bundle.reports.health import headline
    from bundle.runs.recorded_run import read_recorded_run

    if (wanted := FORMATS.get(format_name)) is None:
        known = did_you_mean(format_name, FORMATS, f"Formats: {', '.join(FORMATS)}.")
        raise UsageError(f"{format_name!r} is not a format.", remedy=known)
    if out != OUTPUTS and not out.is_dir():
        raise UsageError(
            f"--out {out}: there is no such directory of runs.", remedy=f"To write the report there: -o {out}."
        )
    if output == STANDARD_OUTPUT and wanted.is_directory:
        raise UsageError(
            f"{format_name} is a directory of files, and - is standard output.", remedy="Name a directory with -o."
        )
    recorded = read_recorded_run(run, out)
    path = recorded.directory / wanted.name if output is None else output
    if output is not None and output.is_dir() and not wanted.is_directory:
        path = output / wanted.name
    for remark in wanted.write(recorded, path, language=lang, allow_partial=allow_partial):
        typer.echo(remark, err=True)
    if format_name != "html" and not recorded.health.is_ok:
        typer.echo(headline(recorded.health), err=True)
    if path != STANDARD_OUTPUT:
        typer.echo(path)
