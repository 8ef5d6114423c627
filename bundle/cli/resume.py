"""``bundle resume``: resume a run that was interrupted."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from bundle.cli.options import RunArgument, runs_directory, with_options
from bundle.runs.finding import LATEST


@dataclass(frozen=True, slots=True)
class _Options:
    out: Path = runs_directory()


@with_options
def resume(asked: _Options, run: RunArgument = LATEST) -> None:
    """Resume a run with the options it was started with.

    Asks only the questions that have no reply yet.
    """
    # Imported late: `bundle --help` does not need them.
    from bundle.errors import RunError
    from bundle.runs.finding import find_run
    from bundle.runs.predictions import count_rows
    from bundle.runs.record import RunRecord
    from bundle.runs.results import Results
    from bundle.system.guarded import this_program

    directory = find_run(run, asked.out).resolve()
    command = RunRecord.read(directory).command
    # What is so damaged that it shows is refused before all of this program is loaded.
    if (results := Results.read(directory)) is not None:
        results.require_replies(directory, count_rows(directory))
    if command is None:
        raise RunError(
            f"{directory.name} does not say how it was started.",
            remedy=f"Repeat its command with --resume {directory}.",
        )
    try:
        os.chdir(command.directory)
    except OSError as error:
        raise RunError(
            f"{directory.name} was started in {command.directory}, which cannot be entered: {error.strerror}.",
            remedy=f"Repeat its command with --resume {directory}.",
        ) from None
    arguments = list(command.arguments)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    arguments[end:end] = ["--resume", str(directory)]
    sys.stdout.flush()
    # The same command line as the user would type it, in a process that is as fresh.
    os.execv(sys.executable, this_program(*arguments))  # noqa: S606 - no shell is wanted
