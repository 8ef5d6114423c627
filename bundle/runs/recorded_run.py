"""A run as its directory tells of it. Everything a report shows comes from here."""

import glob
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, get_args, get_type_hints

from bundle.errors import RunError
from bundle.runs.predictions import Key, Prediction
from bundle.runs.prompts import RecordedPrompt, read_prompts
from bundle.runs.recorded_task import RecordedTask, score_names
from bundle.runs.run import PREDICTIONS, RECORD, RESULTS, read_json, read_predictions
from bundle.runs.scoring import Score, score
from bundle.system.text import did_you_mean

Part = tuple[str, str, str]
"""A task, a split and a subject."""


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A run that is over, was cut off, or still goes on.

    Attributes:
        directory: Where it lies.
        record: ``run.json``.
        results: ``results.json``; None where the run was cut off before it was written.
        tasks: In the order they were asked.
        predictions: One a question, the last one with a reply where there are several; in the order of the tasks, their
            splits, subjects and rows, whatever order they were answered in. Text may hold lone surrogates.
        prompts: What was sent for every question of the run; None where the run is older than that record.
        questions: How many questions of a task, split and subject the run has, in that order, asked or not.
        scores: Counted from the predictions, under the names they have in ``results.json``, groups first.
    """

    directory: Path
    record: Mapping[str, Any]
    results: Mapping[str, Any] | None
    tasks: tuple[RecordedTask, ...]
    predictions: tuple[Prediction, ...]
    prompts: Mapping[Key, RecordedPrompt] | None
    questions: Mapping[Part, int]
    scores: Mapping[str, Score]

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.directory.name

    @property
    def model(self) -> str:
        """The name a remote model is served under, or that of the checkpoint's directory."""
        return model_name(self.record)

    @property
    def total(self) -> int:
        """Questions of the run."""
        return sum(self.questions.values())

    @property
    def answered(self) -> int:
        """Questions with a reply."""
        return sum(one.error is None for one in self.predictions)

    @property
    def failed(self) -> int:
        """Questions that were asked in vain; the rest was never asked."""
        return len(self.predictions) - self.answered

    @property
    def timing(self) -> Mapping[str, float]:
        """Seconds by phase; empty where the run was cut off before they were written."""
        return _numbers(self.results, "timing")

    @property
    def began(self) -> datetime:
        """When it was begun, in local time: from its directory's name, or else from the age of its record."""
        return began(self.directory)

    def score_names(self, task: RecordedTask) -> Mapping[str, str]:
        """The name in `scores` of each of a task's scores: its own, or "TASK/NAME" where two tasks share it."""
        return score_names(self.tasks, task)


def read_recorded_run(path: Path, out: Path = Path("outputs")) -> RecordedRun:
    """Read a run's directory.

    Args:
        path: The directory, or its name in ``out``, or enough of the name's beginning.
        out: The directory that run directories are made in.

    Raises:
        RunError: There is no run, or it is damaged; it says which file and line.
    """
    directory = find_run(path, out)
    try:
        record = read_json(directory / RECORD)
        results = read_json(directory / RESULTS) if (directory / RESULTS).exists() else None
        predictions = read_predictions(directory)
        for number, one in enumerate(predictions, 1):
            _check(one, directory / PREDICTIONS, number)
        prompts = read_prompts(directory)
    except RecursionError:
        raise RunError(f"A file in {directory} is nested too deeply to be read.", remedy=_DAMAGED) from None
    asked = Counter(key[:3] for key in prompts or ())
    tasks = recorded_tasks(
        record, directory / RECORD, [*asked, *((one.task, one.split, one.subject) for one in predictions)]
    )
    _require_known(tasks, predictions, directory / PREDICTIONS)
    outcomes = _one_a_question(predictions)
    questions = _in_order(tasks, _questions(tasks, asked, results, outcomes))
    place = {part: number for number, part in enumerate(questions)}
    outcomes.sort(key=lambda one: (place[one.task, one.split, one.subject], one.id))
    return RecordedRun(
        directory=directory,
        record=record,
        results=results,
        tasks=tasks,
        predictions=tuple(outcomes),
        prompts=prompts,
        questions=questions,
        scores=_scores(tasks, questions, outcomes),
    )


def find_run(path: Path, out: Path) -> Path:
    """The run directory at ``path``, or of that name in ``out``, or the only one there whose name begins so.

    Raises:
        RunError: There is none; the nearest name is told.
    """
    places = [path] if path.is_absolute() else [path, out / path]
    for place in places:
        if (place / RECORD).is_file():
            return place
    for place in places:
        if place.is_dir():
            raise RunError(
                f"{place} holds no run that can be read: there is no {RECORD} in it.",
                remedy="A run that ended before its first question has only a server.log; look there for why."
                if (place / PREDICTIONS).exists()
                else "Give the directory that the run named as its last line.",
            )
    began_so = sorted(one.parent for one in out.glob(f"{glob.escape(path.name)}*/{RECORD}"))
    if len(began_so) == 1 and path.name == str(path):
        return began_so[0]
    if began_so:
        raise RunError(
            f"{path} is the beginning of several runs' names in {out}.",
            remedy="Give one of them as a whole.",
            details=[one.name for one in began_so],
        )
    names = [one.parent.name for one in out.glob(f"*/{RECORD}")]
    raise RunError(
        f"There is no run {path}, neither at that path nor in {out}.",
        remedy=did_you_mean(path.name, names, "`bundle runs` lists the runs; --out says where they are.", cutoff=0.5),
    )


def recorded_tasks(record: Mapping[str, Any], path: Path, seen: Iterable[Part] = ()) -> tuple[RecordedTask, ...]:
    """The tasks of a run.

    Args:
        record: The content of ``run.json``.
        path: Where it lies, for errors.
        seen: Subjects that the run has questions of, which an older record does not name.

    Raises:
        RunError: They are not on record as this program writes them.
    """
    told = record.get("tasks")
    if not isinstance(told, list) or not told or not all(isinstance(one, dict) for one in told):
        raise RunError(f"{path} does not say which tasks were asked.", remedy=_DAMAGED)
    subjects: dict[str, dict[str, None]] = {}
    for task, _, subject in seen:
        subjects.setdefault(task, {})[subject] = None
    try:
        return tuple(RecordedTask.from_record(one, subjects.get(str(one.get("name")), ())) for one in told)
    except ValueError as error:
        raise RunError(f"{path}, in tasks, is not what this program writes: {error}.", remedy=_DAMAGED) from None


def model_name(record: Mapping[str, Any]) -> str:
    """What to call the model of a run, from its record."""
    model = record.get("model")
    model = model if isinstance(model, Mapping) else {}
    return str(model.get("name") or Path(str(model.get("path") or "unknown")).name)


def began(directory: Path) -> datetime:
    """When a run was begun, in local time: from its directory's name, or else from the age of its record."""
    try:
        return datetime.strptime(directory.resolve().name[:15], "%Y%m%d-%H%M%S").astimezone()
    except ValueError:
        told = directory / RECORD
        return datetime.fromtimestamp((told if told.exists() else directory).stat().st_mtime).astimezone()


_DAMAGED = "The run is damaged; begin a new one."

_TYPES = {
    # JSON has one kind of number, so that a whole one may stand for a fraction.
    name: (*(get_args(hint) or (hint,)), *((int,) if hint is float else ()))
    for name, hint in get_type_hints(Prediction).items()
}


def _check(prediction: Prediction, path: Path, number: int) -> None:
    for name, types in _TYPES.items():
        if not isinstance(getattr(prediction, name), types):
            raise RunError(
                f"{path}, line {number}, is damaged: {name} is not what this program writes.",
                remedy="Remove that line; its question then counts as not asked.",
            )


def _require_known(tasks: Iterable[RecordedTask], predictions: Iterable[Prediction], path: Path) -> None:
    known = {(task.name, split) for task in tasks for split in task.splits}
    for number, one in enumerate(predictions, 1):
        if (one.task, one.split) not in known:
            raise RunError(
                f"{path}, line {number}: the run has no task {one.task!r} with a split {one.split!r}.", remedy=_DAMAGED
            )


def _one_a_question(predictions: Iterable[Prediction]) -> list[Prediction]:
    chosen: dict[Key, Prediction] = {}
    for one in predictions:
        if one.key not in chosen or one.error is None or chosen[one.key].error is not None:
            chosen[one.key] = one
    return list(chosen.values())


def _questions(
    tasks: Sequence[RecordedTask],
    asked: Mapping[Part, int],
    results: Mapping[str, Any] | None,
    outcomes: Iterable[Prediction],
) -> Counter[Part]:
    """The most that any of the run's files knows of: prompts.jsonl knows all, the others know what was got to."""
    known = Counter(asked) | Counter((one.task, one.split, one.subject) for one in outcomes)
    told = results.get("scores") if results is not None else None
    if asked or not isinstance(told, Mapping):
        return known
    for task in tasks:
        names = score_names(tasks, task)
        for split in task.splits:
            for subject in task.subjects:
                n = _number(told.get(names[task.score_name(split, subject.name)]), "n")
                if n is not None and n > known[task.name, split, subject.name]:
                    known[task.name, split, subject.name] = int(n)
    return known


def _in_order(tasks: Iterable[RecordedTask], questions: Mapping[Part, int]) -> dict[Part, int]:
    parts = ((task.name, split, subject.name) for task in tasks for split in task.splits for subject in task.subjects)
    return {part: questions[part] for part in parts if questions.get(part)}


def _scores(
    tasks: Sequence[RecordedTask], questions: Mapping[Part, int], outcomes: Iterable[Prediction]
) -> dict[str, Score]:
    scores: dict[str, Score] = {}
    by_task: dict[str, list[Prediction]] = {}
    for one in outcomes:
        by_task.setdefault(one.task, []).append(one)
    for task in tasks:
        asked = {(split, subject): n for (name, split, subject), n in questions.items() if name == task.name}
        names = score_names(tasks, task)
        # A recorded task has all that scoring looks at: groups, secret splits and names.
        mine = score(task, asked, by_task.get(task.name, ()))
        scores |= {names[name]: one for name, one in mine.items()}
    return scores


def _numbers(results: Mapping[str, Any] | None, key: str) -> dict[str, float]:
    told = results.get(key) if results is not None else None
    if not isinstance(told, Mapping):
        return {}
    return {str(name): float(value) for name, value in told.items() if isinstance(value, int | float)}


def _number(content: object, key: str) -> float | None:
    value = content.get(key) if isinstance(content, Mapping) else None
    return value if isinstance(value, int | float) else None
