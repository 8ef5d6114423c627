"""``bundle board``: all runs in a directory on one page."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from bundle.cli.options import RUN_HELP, option, page_language, with_options
from bundle.reports.formats import Language
from bundle.runs.finding import OUTPUTS


@dataclass(frozen=True, slots=True)
class _Options:
    base: Path | None = option(
        None, f"Compare the others with it. {RUN_HELP}", metavar="RUN", default="the oldest whole run of each task"
    )
    output: Path | None = option(None, "Write it here.", "-o", "--output", metavar="FILE", default="DIR/board.html")
    serve: bool = option(
        False, "Serve the page on this machine instead, with running runs and their pages live.", "--serve"
    )
    port: int = option(8642, "Port for --serve; 0 for any free one.", metavar="N", minimum=0, maximum=65535)
    lang: Language | None = page_language()


@with_options
def board(
    asked: _Options, directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="Directory of runs.")] = OUTPUTS
) -> None:
    """Show all runs in a directory on one page.

    Scores of every run with intervals, differences from a base with their test, and lines over training steps where the
    models' names have one, such as step_1000. The page works offline; --serve shows running ones live.
    """
    # imported late: `bundle --help` needs none of it
    from bundle.errors import UsageError
    from bundle.reports.board.board import Reader
    from bundle.reports.board.page import write_board
    from bundle.reports.board.server import BoardServer
    from bundle.runs.finding import find_run

    if asked.serve and asked.output is not None:
        raise UsageError("--serve writes no file.", remedy="Leave out either --serve or -o.")
    base = None if asked.base is None else find_run(asked.base, directory)
    reader = Reader(directory, base)
    found = reader.read()
    shown = {one.run.directory.resolve() for table in found.tables for one in table.runs}
    if base is not None and base.resolve() not in shown:
        raise UsageError(f"--base: the board of {directory} does not show {base}.", remedy="Name one of its runs.")
    if not asked.serve:
        path = directory / "board.html" if asked.output is None else asked.output
        write_board(found, path, language=asked.lang)
        typer.echo(path)
        return
    with (
        BoardServer(reader, directory, port=asked.port, language=asked.lang) as server,
        contextlib.suppress(KeyboardInterrupt),
    ):
        typer.echo(f"{server.url}  (Ctrl-C ends it)")
        server.serve_forever()
