"""``bundle board``: all runs in a directory on one page."""

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from bundle.cli import _completion
from bundle.cli.options import RUN_HELP, LanguageOption
from bundle.runs.finding import OUTPUTS

_PORT = 8642


def board(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="Directory of runs.")] = OUTPUTS,
    base: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help=f"Compare the others with it. {RUN_HELP}",
            show_default="the oldest whole run of each task",
            autocompletion=_completion.runs,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write it here.", show_default="DIR/board.html"),
    ] = None,
    serve: Annotated[
        bool,
        typer.Option("--serve", help="Serve the page on this machine instead, with running runs and their pages live."),
    ] = False,
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Port for --serve; 0 for any free one.")
    ] = _PORT,
    lang: LanguageOption = None,
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

    reader = Reader(directory, None if base is None else find_run(base, directory))
    if not serve:
        path = directory / "board.html" if output is None else output
        write_board(reader.read(), path, language=lang)
        typer.echo(path)
        return
    if output is not None:
        raise UsageError("--serve writes no file.", remedy="Leave out either --serve or -o.")
    reader.read()  # so that an unreadable directory is an error now
    with BoardServer(reader, directory, port=port, language=lang) as server, contextlib.suppress(KeyboardInterrupt):
        typer.echo(f"{server.url}  (Ctrl-C ends it)")
        server.serve_forever()
