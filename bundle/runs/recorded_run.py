"""A run as its directory describes it. Everything a report shows comes from here."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundle.errors import RunError
from bundle.runs.files import DAMAGED, PREDICTIONS, PROMPTS, RECORD, RESULTS
from bundle.runs.finding import OUTPUTS, began, find_run
from bundle.runs.health import Health, examine, is_parsed
from bundle.runs.predictions import Prediction, one_per_question, read_predictions
from bundle.runs.prompts import Messages, RecordedPrompt, read_prompts
from bundle.runs.record import LocalModelRecord, RunRecord
from bundle.runs.results import Results
from bundle.runs.scope import Scope, scope_text, task_scopes
from bundle.runs.scoring import Score, Tally, headlines, score_run
from bundle.runs.task_record import TaskRecord
from bundle.system.locks import Lock
from bundle.tasks.benchmarks import Subject
from bundle.tasks.options import options_of
from bundle.tasks.prompts import cut
from bundle.tasks.scores import Key, Part, ScoredTask, part_names, score_names

if TYPE_CHECKING:
    import pandas

_STEP = re.compile(
    r"[-_./]?(?:global[-_]?step|steps?|iter|checkpoint|ckpt|epoch)[-_]?(\d+)|[-_](\d{2,})$", re.IGNORECASE
)
"""A training step in a model's name: ``sft-step-1000``, ``checkpoint-2000``, ``iter_0004000-hf``, ``sft-1000``."""
_NOTHING_KNOWN = dict.fromkeys(one.name for one in fields(Prediction))


@dataclass(frozen=True, repr=False)
class RecordedRun:
    """A run that is complete, was cut off, or is still running.

    Attributes:
        results: ``results.json``; None where the run was cut off before it was written.
        prompts: What was sent for every question of the run, in the order of its tasks, splits, subjects and rows.
        predictions: At most one per question, the last one with a reply where there are several; in the same order,
            whatever order they were answered in. Text may hold lone surrogates.
        has_ended: Whether nothing more is asked, although the program that asked still holds the run.
    """

    directory: Path
    record: RunRecord
    results: Results | None
    prompts: Mapping[Key, RecordedPrompt]
    predictions: tuple[Prediction, ...]
    has_ended: bool = False

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def model(self) -> str:
        """The name a remote model is served under, or that of the checkpoint's directory."""
        return self.record.model.name

    @cached_property
    def tasks(self) -> tuple[ScoredTask, ...]:
        return self.record.scored_tasks

    @cached_property
    def questions(self) -> Mapping[Part, int]:
        """How many questions of a task, split and subject the run has, in that order, asked or not."""
        return Counter(key.part for key in self.prompts)

    @cached_property
    def tally(self) -> Tally:
        return Tally(self.predictions)

    @cached_property
    def scores(self) -> Mapping[str, Score]:
        """Computed from the predictions, by their names in ``results.json``, groups first."""
        return score_run(self.tasks, self.questions, self.tally)

    def __repr__(self) -> str:
        scores = ", ".join(f"{one.name} {one.score.percent}" for one in headlines(self.tasks, self.scores))
        doubt = "" if self.health.is_ok else ", doubtful measurement"
        answered = self.partial or f"{self.answered} of {self.total} questions answered"
        return f"<run {self.name}: {self.model}, {scores}, {answered}{doubt}>"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Every question as a dict, in the order of `prompts`: what was sent, and the outcome.

        ``question`` is its text alone, ``messages`` all that was sent; the other keys are the fields of `Prediction`,
        None where a question was not asked.
        """
        outcomes = {one.key: one for one in self.predictions}
        rows = []
        for key, prompt in self.prompts.items():
            asked = {"question": self.question(key), "messages": list(prompt.conversation)}
            known = asdict(outcomes[key]) if key in outcomes else _NOTHING_KNOWN
            rows.append(key._asdict() | asked | known | key._asdict() | {"gold": prompt.gold})
        return rows

    def to_pandas(self) -> "pandas.DataFrame":
        """The `rows` as a frame; ``correct`` is a nullable boolean, whose mean leaves out what has no reply.

        Raises ImportError if pandas is not installed.
        """
        import pandas  # imported late: slow, and only this needs it

        return pandas.DataFrame(self.rows).astype({"correct": "boolean"})

    def pieces(self, key: Key) -> list[tuple[str, str]]:
        """The last of a question's own messages, cut at the cells of its row; see `cut`.

        The question's own text has the name "question", whatever its column is called.
        """
        template = next(one.user for one in self.record.tasks if one.name == key.task)
        found = cut(template, self.prompts[key].own[-1]["content"])
        # What several questions share may end within the template: then the question comes first.
        place = next((n for n, (name, _) in enumerate(found) if name != "subject" and len(name) > 1), 0)
        return [("question" if n == place else name, text) for n, (name, text) in enumerate(found)]

    def question(self, key: Key) -> str:
        """The text of a question alone, without its options and what is said before it."""
        return next((text.strip() for name, text in self.pieces(key) if name == "question"), "")

    @property
    def training_step(self) -> tuple[str, int] | None:
        """The series of checkpoints that the model belongs to, and its training step, from its name; None for none.

        A directory called ``checkpoint-2000`` alone belongs to the series of the directory it is in.
        """
        *_, match = [None, *_STEP.finditer(self.model)]
        if match is None:
            return None
        series = (self.model[: match.start()] + self.model[match.end() :]).strip("-_./ ")
        if not series and isinstance(self.record.model, LocalModelRecord):
            series = Path(self.record.model.path).parent.name
        return series, int(match[1] or match[2])

    @property
    def is_running(self) -> bool:
        return not self.has_ended and Lock(self.directory).is_held() is True

    @property
    def total(self) -> int:
        return len(self.prompts)

    @property
    def answered(self) -> int:
        return self.tally.answered.total()

    @property
    def failed(self) -> int:
        """Questions that were asked and got no reply; the rest was never asked."""
        return self.tally.failed

    @cached_property
    def options(self) -> dict[str, str]:
        """The options that each task's questions have, see `options_of`."""
        golds = defaultdict[str, set[str]](set)
        for key, prompt in self.prompts.items():
            golds[key.task].add(prompt.gold)
        return {one.name: options_of(one.benchmark, one.answer, golds[one.name]) for one in self.record.tasks}

    @cached_property
    def health(self) -> Health:
        return examine(self.options, self.predictions, self.sent)

    @cached_property
    def unparsed(self) -> frozenset[Key]:
        """Questions whose reply holds none of the options."""
        replies = (one for one in self.predictions if one.error is None)
        return frozenset(one.key for one in replies if not is_parsed(one, self.options[one.task]))

    def sent(self, key: Key) -> Messages | None:
        return self.prompts[key].conversation if key in self.prompts else None

    @cached_property
    def scopes(self) -> dict[str, Scope]:
        """What part of every task was asked and answered, by its name."""
        return task_scopes(self.record.tasks, self.questions, self.tally.answered)

    @property
    def partial(self) -> str:
        """The same in one line; "" where all of it was."""
        return scope_text(self.scopes)

    @property
    def timing(self) -> Mapping[str, float]:
        """Seconds by phase; empty where the run was cut off before they were written."""
        return {} if self.results is None else self.results.timing

    @property
    def timed_answers(self) -> int:
        """Replies of the sessions whose times are known: what rates are computed from."""
        known = None if self.results is None else self.results.timed_answers
        return self.answered if known is None else known

    @property
    def began(self) -> datetime:
        return began(self.directory)

    def score_names(self, task: ScoredTask) -> Mapping[str, str]:
        """The name in `scores` of each of a task's scores, by the task's own name for it."""
        return score_names(self.tasks)[task.name]

    @cached_property
    def part_names(self) -> dict[Part, str]:
        """The name in `scores` of every subject of every split, asked or not."""
        return part_names(self.tasks)

    @property
    def subjects(self) -> dict[Part, Subject]:
        """What people call a subject, by task, split and subject, in the order of the tasks."""
        return {
            (task.name, split, subject.name): subject
            for task in self.tasks
            for split in task.splits
            for subject in task.subjects
        }


def read_recorded_run(path: Path, out: Path = OUTPUTS, *, has_ended: bool = False) -> RecordedRun:
    """Read a run's directory; the program that has asked its questions says that it ``has_ended``.

    Raises RunError if there is no such run, or it is damaged; the message names file and line.
    """
    directory = find_run(path, out)
    record, results = RunRecord.read(directory), Results.read(directory)
    prompts = _in_order(record.tasks, read_prompts(directory), directory / PROMPTS)
    rows = read_predictions(directory)
    for number, row in enumerate(rows, 1):
        if row.key not in prompts:
            raise RunError(
                f"{directory / PREDICTIONS}, line {number}: {PROMPTS} has no question {'/'.join(map(str, row.key))}.",
                remedy=DAMAGED,
            )
        if row.gold != prompts[row.key].gold:
            raise RunError(
                f"{directory / PREDICTIONS}, line {number}: its gold answer is not that of the question in {PROMPTS}.",
                remedy=DAMAGED,
            )
    outcomes = {row.key: row for row in one_per_question(rows)}
    predictions = tuple(outcomes[key] for key in prompts if key in outcomes)
    run = RecordedRun(directory, record, results, prompts, predictions, has_ended)
    _require_all_questions(run)
    if results is not None:
        results.require_same(directory, run.tasks, predictions)
    return run


def _require_all_questions(run: RecordedRun) -> None:
    """Refuse a run whose prompts are fewer than were to be asked: what is left would pass for all of it."""
    expected = {f"in {RESULTS}": (run.total, None if run.results is None else run.results.coverage.total)}
    for task in run.record.tasks:
        there = sum(n for part, n in run.questions.items() if part[0] == task.name)
        expected[f"of {task.name} in {RECORD}"] = there, None if task.limit or task.sample else task.available
    for where, (there, wanted) in expected.items():
        if wanted is not None and there != wanted:
            raise RunError(
                f"{run.directory / PROMPTS} has {there:,} questions, not the {wanted:,} {where}.", remedy=DAMAGED
            )


def _in_order(
    tasks: Iterable[TaskRecord], prompts: Mapping[Key, RecordedPrompt], path: Path
) -> dict[Key, RecordedPrompt]:
    parts: dict[Part, list[int]] = {
        (task.name, *member): []
        for task in tasks
        for member in task.scored.members()
        if task.subjects is None or member[1] in task.subjects
    }
    for key in prompts:
        if key.part not in parts:
            raise RunError(f"{path}: {RECORD} has no subject {'/'.join(key.part)}.", remedy=DAMAGED)
        parts[key.part].append(key.id)
    keys = (Key(*part, number) for part, numbers in parts.items() for number in sorted(numbers))
    return {key: prompts[key] for key in keys}
