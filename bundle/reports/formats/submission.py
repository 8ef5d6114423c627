"""``submission.json``: answers to questions whose gold answers are secret, for the benchmark's official site."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bundle.errors import RunError
from bundle.reports.formats import Export
from bundle.runs.files import to_json
from bundle.runs.predictions import Prediction
from bundle.runs.recorded_run import RecordedRun
from bundle.runs.run import Run
from bundle.system.text import shortened
from bundle.tasks.scores import Key, ScoredTask

_FILE = "submission.json"
_LETTERS = frozenset("ABCD")


@dataclass(frozen=True, slots=True)
class Submission:
    """One task's answers.

    Attributes:
        answers: Subject → row number → letter; "" where there is none: it is never guessed.
        unanswered: How many questions have no reply, as opposed to a reply without a letter.
    """

    file: str
    answers: Mapping[str, Mapping[str, str]]
    unanswered: int

    def describe(self) -> str:
        letters = [letter for one in self.answers.values() for letter in one.values()]
        said = f"{self.file}: answers to {len(letters) - letters.count('')} of {len(letters)} questions"
        if silent := letters.count("") - self.unanswered:
            said += f"; no answer in {silent} replies"
        return f"{said}; no reply to {self.unanswered}" if self.unanswered else said


def export(run: RecordedRun, language: str | None = None) -> Export:
    """The answers to the questions of a secret split. Raises RunError if the run has none."""
    found = submissions(run.tasks, run.prompts, run.predictions)
    if not found:
        raise RunError(
            f"{run.name} has no questions with secret answers.",
            remedy="Submissions are for C-Eval's test split: run --task ceval_gen_2daf24.",
        )
    files = {one.file: to_json(one.answers, indent=1) + "\n" for one in found}
    return Export(files, tuple(one.describe() for one in found))


def submissions(
    tasks: Sequence[ScoredTask], questions: Iterable[Key], predictions: Iterable[Prediction]
) -> list[Submission]:
    """What can be submitted: one file per task with a secret split; where there are several, each names its task."""
    secret = {task.name: task.secret_splits for task in tasks if task.secret_splits & task.splits.keys()}
    if not secret:
        return []
    replied = {one.key: one.answer for one in predictions if one.error is None}
    answers: dict[str, dict[str, dict[str, str]]] = {}
    unanswered: Counter[str] = Counter()
    for key in questions:
        if key.split in secret.get(key.task, ()):
            answer = replied.get(key)
            of_subject = answers.setdefault(key.task, {}).setdefault(key.subject, {})
            of_subject[str(key.id)] = answer if answer in _LETTERS else ""
            unanswered[key.task] += key not in replied
    return [
        Submission(_FILE if len(secret) == 1 else f"submission-{shortened(name)}.json", found, unanswered[name])
        for name, found in answers.items()
    ]


def write_submissions(
    tasks: Sequence[ScoredTask], questions: Iterable[Key], predictions: Iterable[Prediction], run: Run
) -> Iterator[str]:
    """Write ``submission.json`` for a task with a secret split; yields a line for people about each file."""
    for one in submissions(tasks, questions, predictions):
        run.write(one.file, one.answers)
        yield one.describe()
