"""``bundle report``: a run as a page for people, or in the format of another tool."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, NamedTuple, Protocol

import typer

if TYPE_CHECKING:
    from bundle.runs.recorded_run import RecordedRun

Language = Literal["zh", "en"]


class Writer(Protocol):
    """Writes a run in one format."""

    def __call__(self, run: "RecordedRun", path: Path, *, language: Language | None) -> Sequence[str] | None:
        """Write ``run`` to ``path``.

        Returns:
            What has to be known of the files and they do not say themselves, a line each.

        Raises:
            BundleError: The run has not what the format needs, or the file cannot be written.
        """


class Format(NamedTuple):
    """A format a run can be written in.

    Attributes:
        writer: The module and the name of its `Writer`; it is imported when it is asked for.
        name: What the file, or the directory of several files, is called in the run's directory.
        is_directory: Whether it is several files.
    """

    writer: str
    name: str
    is_directory: bool = False


FORMATS: Final = {
    "html": Format("bundle.reports.html:write_page", "report.html"),
    "opencompass": Format("bundle.reports.formats.writers:write_opencompass", "opencompass", is_directory=True),
    "lm-eval": Format("bundle.reports.formats.writers:write_lm_eval", "lm-eval", is_directory=True),
    "model-card": Format("bundle.reports.formats.writers:write_model_card", "model-card.md"),
    "submission": Format("bundle.reports.formats.writers:write_submission", "submission.json"),
}


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
    module, function = wanted.writer.split(":")
    write: Writer = getattr(importlib.import_module(module), function)
    for line in write(recorded, path, language=lang) or ():
        typer.echo(line, err=True)
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
