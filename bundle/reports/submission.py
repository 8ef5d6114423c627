"""Answers to questions whose right answers are secret, in the format of the benchmark's official site."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bundle.runs import Run

if TYPE_CHECKING:
    from bundle.evaluation.evaluation import Evaluation

_LETTERS = frozenset("ABCD")


def write_submissions(evaluation: "Evaluation", run: Run) -> Iterator[str]:
    """Write ``submission.json`` for a task with a secret split, and tell of it in a line each.

    C-Eval's site takes subject → id → letter. A question without a letter has "" there: it is reported and never
    guessed. Where several tasks of a run have a secret split, each gets a file of its own, ``submission-TASK.json``.
    """
    tasks = [task for task in evaluation.tasks if task.secret_splits & task.splits.keys()]
    for task in tasks:
        answers: dict[str, dict[str, str]] = {}
        for question in evaluation.questions:
            if question.task == task.name and question.split in task.secret_splits:
                answers.setdefault(question.subject, {})[str(question.id)] = ""
        for prediction in evaluation.predictions:
            if prediction.task == task.name and prediction.split in task.secret_splits and prediction.answer:
                letter = prediction.answer if prediction.answer in _LETTERS else ""
                answers[prediction.subject][str(prediction.id)] = letter
        name = "submission.json" if len(tasks) == 1 else f"submission-{task.name}.json"
        run.write(name, answers)
        total = sum(len(one) for one in answers.values())
        missing = sum(letter == "" for one in answers.values() for letter in one.values())
        yield f"{name}: {total - missing} of {total} questions have a letter" + (
            f", {missing} have none" if missing else ""
        )
