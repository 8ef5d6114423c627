"""What a sweep leaves: the table on the screen, and a small directory that names its runs."""

import asyncio
import shlex
import sys
from collections.abc import AsyncIterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from bundle.errors import ExitCode, RunError
from bundle.pipeline.checkpoint_folder import Model
from bundle.pipeline.sweep import Outcome, Sweep
from bundle.reports.comparison.page import to_json, write_page
from bundle.reports.comparison.series import Entry, make_series, show
from bundle.reports.formats import file_name
from bundle.reports.screen.console import Screen
from bundle.reports.screen.output import console
from bundle.reports.texts import Words
from bundle.runs.files import unwritable, write_json
from bundle.runs.finding import OUTPUTS
from bundle.runs.recorded_run import read_recorded_run

_WHY: Final[Mapping[int, str]] = {
    ExitCode.GATE_NOT_MET: "gate_not_met",
    ExitCode.USAGE: "not_evaluated",
    ExitCode.SERVER: "server_failed",
    ExitCode.UNEXPECTED: "killed",
    ExitCode.INTERRUPTED: "was_interrupted",
}


async def evaluate_and_report(sweep: Sweep, models: AsyncIterable[Model], out: Path, label: str, screen: Screen) -> int:
    """Evaluate models, report them, also those that are done when it is cancelled, and return the exit code.

    Raises RunError if the table cannot be written.
    """
    try:
        code = await sweep.evaluate(models)
    except asyncio.CancelledError:
        code = ExitCode.INTERRUPTED
        screen.say(screen.words("screen.sweep_interrupted"))
    if outcomes := sweep.outcomes:
        _report(outcomes, out, label, screen)
    return code


def _report(outcomes: Sequence[Outcome], out: Path, label: str, screen: Screen) -> None:
    """Show the table of all models, and write it down."""
    series = make_series([_entry(one, screen.words) for one in outcomes])
    screen.close()
    screen.set_apart()
    show(console(sys.stdout, width=200), series, screen.words)
    directory = out / f"{datetime.now():%Y%m%d-%H%M%S}-sweep-{file_name(label)}"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(directory, error) from None
    comparisons = list(series.comparisons.values())
    content = {
        "checkpoints": [
            {
                "name": one.model.name,
                "path": str(one.model.given.absolute()),
                "run": None if one.run is None else one.run.name,
                "exit_code": int(one.code),
            }
            for one in outcomes
        ],
        **(to_json(comparisons) if comparisons else {}),
    }
    write_json(directory / "sweep.json", content)
    if comparisons:
        write_page(comparisons, directory / "comparison.html")
        screen.note(screen.words("screen.comparison", path=directory / "comparison.html"))
    where = "" if out == OUTPUTS else f" {shlex.quote(str(out))}"
    screen.note(screen.words("screen.board", where=where))
    screen.last(directory)


def _entry(outcome: Outcome, words: Words) -> Entry:
    if why := _WHY.get(outcome.code, ""):
        why = words("screen.exit_code", why=words(f"screen.{why}"), code=outcome.code)
    if outcome.run is None:
        return Entry(outcome.model.name, None, why)
    try:
        return Entry(outcome.model.name, read_recorded_run(outcome.run), why)
    except RunError as error:
        return Entry(outcome.model.name, None, why or error.message)
