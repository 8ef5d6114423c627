"""The runs in a directory, newest first: enough to choose one, without reading every reply."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from bundle.errors import RunError
from bundle.runs.headline import Headline, headlines
from bundle.runs.recorded_run import began, model_name, read_recorded_run, recorded_tasks
from bundle.runs.run import PREDICTIONS, RECORD, RESULTS, read_json
from bundle.runs.scoring import Score
from bundle.system.locks import is_held


class State(StrEnum):
    """How far a run is."""

    DONE = "done"
    INCOMPLETE = "incomplete"
    """It is over, and some questions have no reply."""
    RUNNING = "running"
    CUT_OFF = "cut off"
    """It ended without writing its results."""
    DAMAGED = "damaged"
    NEVER_ASKED = "never asked"
    """It ended before its first question, as when the server did not come up."""


@dataclass(frozen=True, slots=True)
class ListedRun:
    """One run.

    Attributes:
        directory: Where it lies.
        began: When it was begun, in local time.
        state: How far it is.
        model: What was asked; None where that is not known.
        tasks: Names of its tasks.
        headlines: The scores it is known by, as far as there are any.
        total: Questions; None where that is not known.
        answered: Those with a reply; likewise.
        seconds: How long it took in all; None while it runs and where it was cut off.
        fault: Why it is damaged; None where it is not.
    """

    directory: Path
    began: datetime
    state: State
    model: str | None = None
    tasks: tuple[str, ...] = ()
    headlines: tuple[Headline, ...] = ()
    total: int | None = None
    answered: int | None = None
    seconds: float | None = None
    fault: str | None = None

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "run": self.directory.name,
            "directory": str(self.directory),
            "began": self.began.isoformat(),
            "state": self.state.value,
            "model": self.model,
            "tasks": list(self.tasks),
            "scores": [
                {"name": one.name, "accuracy": one.score.accuracy, "stderr": one.score.stderr, "whole": one.whole}
                for one in self.headlines
            ],
            "coverage": {"total": self.total, "answered": self.answered},
            "seconds": self.seconds,
            "fault": self.fault,
        }


def list_runs(out: Path) -> list[ListedRun]:
    """All runs in ``out``, newest first. What is no run directory is left out.

    Raises:
        RunError: ``out`` cannot be read.
    """
    try:
        directories = [path for path in out.iterdir() if path.is_dir() and _looks_like_a_run(path)]
    except OSError as error:
        raise RunError(
            f"There are no runs to list: {out} cannot be read: {error.strerror}.",
            remedy="Give the directory with --out, or make a run: bundle eval-local MODEL_DIR.",
        ) from None
    runs = [_listed(directory) for directory in directories]
    return sorted(runs, key=lambda run: (run.began, run.directory.name), reverse=True)


def _looks_like_a_run(directory: Path) -> bool:
    return any((directory / name).exists() for name in (RECORD, PREDICTIONS))


def _listed(directory: Path) -> ListedRun:
    when = began(directory)
    running = is_held(directory) is True
    if not (directory / RECORD).exists():
        # The record is written when the first question is about to be asked.
        return ListedRun(directory, when, State.RUNNING if running else State.NEVER_ASKED)
    try:
        return _with_record(directory, when, running=running)
    except RunError as error:
        return ListedRun(directory, when, State.DAMAGED, fault=error.message)


def _with_record(directory: Path, when: datetime, *, running: bool) -> ListedRun:
    if running or not (directory / RESULTS).exists():
        # What results there are may be those of before it was gone on with: only its rows tell how far it is.
        run = read_recorded_run(directory)
        return ListedRun(
            directory,
            when,
            State.RUNNING if running else State.CUT_OFF,
            model=run.model,
            tasks=tuple(task.name for task in run.tasks),
            headlines=tuple(headlines(run.tasks, run.scores)),
            total=run.total,
            answered=run.answered,
        )
    record, results = read_json(directory / RECORD), read_json(directory / RESULTS)
    tasks = recorded_tasks(record, directory / RECORD)
    try:
        scores = {str(name): _score(one) for name, one in results["scores"].items()}
        total, answered = int(results["coverage"]["total"]), int(results["coverage"]["answered"])
        seconds = results["timing"].get("total_s")
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RunError(
            f"{directory / RESULTS} is not what this program writes.", remedy="See `bundle report` for its replies."
        ) from None
    return ListedRun(
        directory,
        when,
        State.DONE if answered == total else State.INCOMPLETE,
        model=model_name(record),
        tasks=tuple(task.name for task in tasks),
        headlines=tuple(headlines(tasks, scores)),
        total=total,
        answered=answered,
        seconds=float(seconds) if isinstance(seconds, int | float) else None,
    )


def _score(told: Mapping[str, Any]) -> Score:
    accuracy, stderr = (None if told[key] is None else float(told[key]) for key in ("accuracy", "stderr"))
    return Score(accuracy, stderr, int(told["n"]), int(told["answered"]))
