"""From predictions to scores, under the names OpenCompass gives them."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from bundle.runs.predictions import Prediction

Part = tuple[str, str]
"""A split and a subject in it."""


@dataclass(frozen=True, slots=True)
class Score:
    """How well a subject or a group of subjects was answered.

    Attributes:
        accuracy: Percent of the answered questions that are right; for a group the plain mean over its subjects.
            None where a subject has no answered question, because a missing reply is not a wrong answer, and where
            the right answers are secret.
        stderr: Standard error of the accuracy in points; None where it cannot be told.
        n: Questions asked.
        answered: Questions with a reply.
    """

    accuracy: float | None
    stderr: float | None
    n: int
    answered: int


class Scored(Protocol):
    """What must be known of a task to score it."""

    @property
    def groups(self) -> Mapping[str, Sequence[Part]]:
        """The parts that a group's score is the mean of, by the group's score name."""

    @property
    def secret_splits(self) -> Collection[str]:
        """The splits whose right answers are not known."""

    def score_name(self, split: str, subject: str) -> str:
        """The name of a subject's score."""


def score(task: Scored, asked: Mapping[Part, int], predictions: Iterable[Prediction]) -> dict[str, Score]:
    """Score a task's subjects and groups.

    Args:
        task: The task.
        asked: How many questions each subject of a split has in this run.
        predictions: What came of them, one a question at the most; a question without one counts as unanswered.

    Returns:
        Scores by name: the groups first, as the task lists them, then the subjects. A group is scored only where all
        its subjects were asked, as in OpenCompass: a mean over some of them would carry the name of another number.
    """
    answered = dict.fromkeys(asked, 0)
    right = dict.fromkeys(asked, 0)
    for prediction in predictions:
        if prediction.error is None:
            part = prediction.split, prediction.subject
            answered[part] += 1
            right[part] += prediction.correct is True
    parts = {
        part: _secret(n, answered[part]) if part[0] in task.secret_splits else _share(n, answered[part], right[part])
        for part, n in asked.items()
    }
    groups = {
        name: mean(parts[member] for member in members)
        for name, members in task.groups.items()
        if parts.keys() >= set(members)
    }
    return groups | {task.score_name(*part): one for part, one in parts.items()}


def mean(subjects: Iterable[Score]) -> Score:
    """The plain mean of several subjects, each counting the same whatever its size."""
    scores = list(subjects)
    n, answered = sum(score.n for score in scores), sum(score.answered for score in scores)
    accuracies = [score.accuracy for score in scores if score.accuracy is not None]
    stderrs = [score.stderr for score in scores if score.stderr is not None]
    if not scores or len(accuracies) < len(scores):
        return Score(None, None, n, answered)
    stderr = math.sqrt(sum(s * s for s in stderrs)) / len(scores) if len(stderrs) == len(scores) else None
    return Score(sum(accuracies) / len(scores), stderr, n, answered)


def _share(n: int, answered: int, right: int) -> Score:
    if answered == 0:
        return Score(None, None, n, 0)
    share = right / answered
    stderr = 100 * math.sqrt(share * (1 - share) / (answered - 1)) if answered > 1 else None
    return Score(100 * share, stderr, n, answered)


def _secret(n: int, answered: int) -> Score:
    return Score(None, None, n, answered)
