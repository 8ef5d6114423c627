"""Answers to questions whose right answers are secret, in the format of the benchmark's official site."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bundle.runs.predictions import Key, Prediction
from bundle.runs.run import Run

if TYPE_CHECKING:
    from bundle.evaluation.evaluation import Evaluation

_LETTERS = frozenset("ABCD")


class SecretTask(Protocol):
    """What has to be known of a task here, be it one to be asked or one that a run has on record."""

    @property
    def name(self) -> str: ...
    @property
    def splits(self) -> Mapping[str, str]: ...
    @property
    def secret_splits(self) -> frozenset[str]: ...


@dataclass(frozen=True, slots=True)
class Submission:
    """One task's answers.

    Attributes:
        file: What the file is called.
        answers: Subject → row number → letter. A question without a letter has "" there: it is told of and never
            guessed.
        unanswered: How many questions have no reply; those with a reply and no letter in it are not among them.
    """

    file: str
    answers: Mapping[str, Mapping[str, str]]
    unanswered: int

    def describe(self) -> str:
        """A line for people."""
        letters = [letter for one in self.answers.values() for letter in one.values()]
        silent = letters.count("") - self.unanswered
        return f"{self.file}: {len(letters) - letters.count('')} of {len(letters)} questions have a letter" + (
            (f", {silent} have none" if silent else "") + (f", {self.unanswered} no reply" if self.unanswered else "")
        )


def submissions(
    tasks: Sequence[SecretTask], questions: Iterable[Key], predictions: Iterable[Prediction]
) -> list[Submission]:
    """What can be handed in: one a task with a secret split; where there are several, each names its task.

    Args:
        tasks: The tasks of a run.
        questions: Its questions.
        predictions: What came of them.
    """
    secret = [task for task in tasks if task.secret_splits & task.splits.keys()]
    asked, replied = list(questions), {one.key: one for one in predictions if one.error is None}
    found = []
    for task in secret:
        answers: dict[str, dict[str, str]] = {}
        unanswered = 0
        for key in asked:
            name, split, subject, number = key
            if name == task.name and split in task.secret_splits:
                answer = replied[key].answer if key in replied else None
                answers.setdefault(subject, {})[str(number)] = answer if answer in _LETTERS else ""
                unanswered += key not in replied
        if answers:
            file = "submission.json" if len(secret) == 1 else f"submission-{task.name}.json"
            found.append(Submission(file, answers, unanswered))
    return found


def write_submissions(evaluation: "Evaluation", run: Run) -> Iterator[str]:
    """Write ``submission.json`` for a task with a secret split, and tell of it in a line each."""
    questions = ((one.task, one.split, one.subject, one.id) for one in evaluation.questions)
    for one in submissions(evaluation.tasks, questions, evaluation.predictions):
        run.write(one.file, one.answers)
        yield one.describe()
