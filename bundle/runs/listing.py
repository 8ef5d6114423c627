"""The runs in a directory, newest first: enough to choose one, without reading every reply."""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from bundle.errors import RunError
from bundle.runs.files import PREDICTIONS
from bundle.runs.finding import LATEST, began, is_run, models_of, runs_in
from bundle.runs.predictions import count_rows
from bundle.runs.record import RunRecord
from bundle.runs.recorded_run import RecordedRun, read_recorded_run
from bundle.runs.results import Results
from bundle.runs.scope import Scope, scope_text, task_scopes
from bundle.runs.scoring import Headline, headlines
from bundle.system.locks import Lock
from bundle.tasks.scores import part_names


class State(StrEnum):
    DONE = "done"
    INCOMPLETE = "incomplete"
    """It has ended, and some questions have no reply."""
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
        answered: Questions with a reply; None if unknown.
        asked: What its tasks asked and how, as `TaskRecord.asked` has it; empty while it is not finished.
        seconds: Total duration; None while it runs and where it was cut off.
        scopes: What part of every task was asked and answered, by its name.
        doubtful: Whether its measurement is, see `bundle.runs.health`.
    """

    directory: Path
    began: datetime
    state: State
    model: str | None = None
    tasks: tuple[str, ...] = ()
    asked: tuple[Mapping[str, Any], ...] = ()
    headlines: tuple[Headline, ...] = ()
    total: int | None = None
    answered: int | None = None
    seconds: float | None = None
    fault: str | None = None
    scopes: Mapping[str, Scope] = field(default_factory=dict)
    doubtful: bool = False

    @property
    def partial(self) -> str:
        """What part of its tasks was asked and answered; "" for all of them."""
        return scope_text(self.scopes)

    def to_json(self) -> dict[str, Any]:
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
            "partial": self.partial or None,
            "doubtful": self.doubtful,
        }


def list_runs(out: Path, look: Callable[[Path], ListedRun] | None = None) -> list[ListedRun]:
    """List all runs in ``out``, newest first; other directories are left out.

    Raises RunError if ``out`` cannot be read.
    """
    try:
        directories = [path for path in out.iterdir() if _looks_like_a_run(path)]
    except OSError as error:
        raise RunError(
            f"{out} cannot be read: {error.strerror}.",
            remedy="Name the directory of runs, or start a run: bundle eval-local MODEL_DIR.",
        ) from None
    runs = [(look or list_run)(directory) for directory in directories]
    return sorted(runs, key=lambda run: (run.began, run.directory.name), reverse=True)


def remove_run(run: Path, out: Path) -> Path:
    """Delete a run, named in full so that no other is meant, and return its directory.

    Raises RunError if there is no such run, it is running, or it cannot be deleted.
    """
    directory = run if run.is_absolute() or _looks_like_a_run(run) else out / run
    if directory.is_symlink() or not _looks_like_a_run(directory):
        found = runs_in(out)
        begun = [one.name for one in found if one.name.startswith(str(run))]
        newest = [one.name for one in found[:1] if run == LATEST]
        meant = begun or newest or [one.name for one, model in models_of(found) if model.name == str(run)]
        raise RunError(
            f"There is no run {run}, neither at that path nor in {out}.",
            remedy=f"A run is deleted by its whole name: {', '.join(meant)}."
            if meant
            else "`bundle runs` lists the runs.",
        )
    lock = Lock(directory)
    try:
        lock.take()
        shutil.rmtree(directory)
    except BlockingIOError:
        raise RunError(f"{directory} is still running.", remedy="Stop it first.") from None
    except OSError as error:
        raise RunError(
            f"{directory} cannot be deleted: {error.strerror}.", remedy="Check its owner and permissions."
        ) from None
    finally:
        lock.release()
    return directory


def _looks_like_a_run(directory: Path) -> bool:
    return is_run(directory) or os.path.lexists(directory / PREDICTIONS)


def list_run(directory: Path, read: Callable[[Path], RecordedRun] = read_recorded_run) -> ListedRun:
    """What a directory of runs shows of one."""
    when = began(directory)
    running = Lock(directory).is_held() is True
    if not is_run(directory):
        # The record is written when the first question is about to be asked.
        return ListedRun(directory, when, State.RUNNING if running else State.NEVER_ASKED)
    try:
        # Results may be from before the run was resumed: while it runs, only its rows say how far it is.
        results = None if running else Results.read(directory)
        if results is None:
            return _unfinished(read(directory), when, State.RUNNING if running else State.CUT_OFF)
        return _finished(directory, when, results)
    except RunError as error:
        return ListedRun(directory, when, State.DAMAGED, fault=error.message)


def _unfinished(run: RecordedRun, when: datetime, state: State) -> ListedRun:
    return ListedRun(
        run.directory,
        when,
        state,
        model=run.model,
        tasks=tuple(task.name for task in run.tasks),
        headlines=tuple(headlines(run.tasks, run.scores)),
        total=run.total,
        answered=run.answered,
        scopes=run.scopes,
        doubtful=state is not State.RUNNING and not run.health.is_ok,
    )


def _finished(directory: Path, when: datetime, results: Results) -> ListedRun:
    record, coverage = RunRecord.read(directory), results.coverage
    results.require_replies(directory, count_rows(directory))
    names = part_names(record.scored_tasks)
    scores = {part: results.scores[name] for part, name in names.items() if name in results.scores}
    asked, answered = ({part: getattr(one, kind) for part, one in scores.items()} for kind in ("n", "answered"))
    return ListedRun(
        directory,
        when,
        State.DONE if coverage.answered == coverage.total else State.INCOMPLETE,
        model=record.model.name,
        tasks=tuple(task.name for task in record.tasks),
        asked=tuple(task.asked for task in record.tasks),
        headlines=tuple(headlines(record.scored_tasks, results.scores)),
        total=coverage.total,
        answered=coverage.answered,
        seconds=results.timing.get("total_s"),
        scopes=task_scopes(record.tasks, asked, answered),
        doubtful=results.health is not None and results.health.get("ok") is False,
    )
