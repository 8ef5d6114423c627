"""``bundle report``: a run as a page for people, or in the format of another tool."""

from dataclasses import dataclass
from pathlib import Path

import typer

from bundle.cli.options import RunArgument, option, page_language, runs_directory, with_options
from bundle.errors import UsageError
from bundle.reports.formats import FORMATS, STANDARD_OUTPUT, Language
from bundle.runs.finding import LATEST, OUTPUTS
from bundle.system.text import did_you_mean


@dataclass(frozen=True, slots=True)
class _Options:
    format_name: str = option("html", f"Format to write: {', '.join(FORMATS)}.", "--format", metavar="FORMAT")
    output: Path | None = option(
        None,
        "Write it here; - is standard output.",
        "-o",
        "--output",
        metavar="FILE",
        default="in the run's directory",
    )
    allow_partial: bool = option(False, "Write a model card of a part of the benchmark.", "--allow-partial")
    lang: Language | None = page_language()
    out: Path = runs_directory()


@with_options
def report(asked: _Options, run: RunArgument = LATEST) -> None:
    """Write a run as a page, or in another tool's format.

    The HTML page is one file that works offline, in a mail and on paper.
    """
    # imported late: `bundle --help` needs none of it
    from bundle.reports.health import headline
    from bundle.runs.recorded_run import read_recorded_run

    name, output, out = asked.format_name, asked.output, asked.out
    if (wanted := FORMATS.get(name)) is None:
        known = did_you_mean(name, FORMATS, f"Formats: {', '.join(FORMATS)}.")
        raise UsageError(f"{name!r} is not a format.", remedy=known)
    if out != OUTPUTS and not out.is_dir():
        raise UsageError(
            f"--out {out}: there is no such directory of runs.", remedy=f"To write the report there: -o {out}."
        )
    if output == STANDARD_OUTPUT and wanted.is_directory:
        raise UsageError(
            f"{name} is a directory of files, and - is standard output.", remedy="Name a directory with -o."
        )
    recorded = read_recorded_run(run, out)
    path = recorded.directory / wanted.name if output is None else output
    if output is not None and output.is_dir() and not wanted.is_directory:
        path = output / wanted.name
    for remark in wanted.write(recorded, path, language=asked.lang, allow_partial=asked.allow_partial):
        typer.echo(remark, err=True)
    if name != "html" and not recorded.health.is_ok:
        typer.echo(headline(recorded.health), err=True)
    if path != STANDARD_OUTPUT:
        typer.echo(path)
