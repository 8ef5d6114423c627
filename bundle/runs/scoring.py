"""From predictions to scores, under OpenCompass's names, and how certain these are."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from bundle.runs.predictions import Prediction
from bundle.runs.statistics import Counts, Interval, accuracy_interval
from bundle.tasks.scores import Member, Part, ScoredTask, score_names


@dataclass(frozen=True, slots=True)
class Score:
    """The score of a subject or a group of subjects.

    Attributes:
        accuracy: Percent of the answered questions that are correct; for a group the plain mean over its subjects.
            None where a subject has no answered question, because a missing reply is not a wrong answer, and where
            the gold answers are secret.
        stderr: Standard error of the accuracy in points; None where it cannot be determined.
        interval: 95 % interval of the accuracy, in percent; None without an accuracy.
    """

    # What a later version may add is not known to this one; slots have no place for it.
    __pydantic_config__: ClassVar = {"extra": "ignore"}

    accuracy: Annotated[float, Field(ge=0, le=100)] | None
    stderr: float | None
    n: Annotated[int, Field(ge=0)]
    answered: Annotated[int, Field(ge=0)]
    interval: Interval | None = None

    def __post_init__(self) -> None:
        if self.accuracy is not None and not self.answered:
            raise ValueError("an accuracy of no answer")

    @property
    def percent(self) -> str:
        """The accuracy with two decimals; a dash where there is none."""
        return "–" if self.accuracy is None else f"{self.accuracy:.2f}"


class Tally:
    """Counts outcomes, of which there is at most one a question, and keeps none of them.

    Attributes:
        answered: Replies, by part.
        right: Correct ones among them.
        failed: Questions that have none.
    """

    def __init__(self, predictions: Iterable[Prediction] = ()) -> None:
        self.answered: Counter[Part] = Counter()
        self.right: Counter[Part] = Counter()
        self.failed = 0
        for one in predictions:
            self.add(one)

    def add(self, one: Prediction) -> None:
        if one.error is not None:
            self.failed += 1
            return
        self.answered[one.part] += 1
        self.right[one.part] += one.correct is True


def score_run(tasks: Sequence[ScoredTask], questions: Mapping[Part, int], tally: Tally) -> dict[str, Score]:
    """Score all tasks of a run, under the names their scores have in ``results.json``."""
    names = score_names(tasks)
    scores: dict[str, Score] = {}
    for task in tasks:
        asked = {(split, subject): n for (name, split, subject), n in questions.items() if name == task.name}
        scores |= {names[task.name][name]: one for name, one in score(task, asked, tally).items()}
    return scores


def score(task: ScoredTask, asked: Mapping[Member, int], tally: Tally) -> dict[str, Score]:
    """Score a task's groups, as the task lists them, and its subjects, by the task's own names.

    A question without a prediction counts as unanswered. A group is scored only where all its subjects were asked, as
    in OpenCompass: a mean over some of them would carry the name of another number.
    """
    subjects = {}
    for member, n in asked.items():
        answered, right = (counts[task.name, *member] for counts in (tally.answered, tally.right))
        secret = member[0] in task.secret_splits
        subjects[member] = Score(None, None, n, answered) if secret else _share(n, answered, right)
    groups = {name: mean(subjects[member] for member in members) for name, members in task.groups_within(asked).items()}
    return groups | {task.score_name(*member): one for member, one in subjects.items()}


def mean(subjects: Iterable[Score]) -> Score:
    """The plain mean over subjects, each with the same weight whatever its size."""
    scores = list(subjects)
    n, answered = sum(score.n for score in scores), sum(score.answered for score in scores)
    accuracies = [score.accuracy for score in scores if score.accuracy is not None]
    stderrs = [score.stderr for score in scores if score.stderr is not None]
    if not scores or len(accuracies) < len(scores):
        return Score(None, None, n, answered)
    stderr = math.sqrt(sum(s * s for s in stderrs)) / len(scores) if len(stderrs) == len(scores) else None
    interval = accuracy_interval(
        [Counts(round((one.accuracy or 0) * one.answered / 100), one.answered) for one in scores]
    )
    return Score(sum(accuracies) / len(scores), stderr, n, answered, interval * 100)


def _share(n: int, answered: int, right: int) -> Score:
    if answered == 0:
        return Score(None, None, n, 0)
    share = right / answered
    stderr = 100 * math.sqrt(share * (1 - share) / (answered - 1)) if answered > 1 else None
    return Score(100 * share, stderr, n, answered, accuracy_interval([Counts(right, answered)]) * 100)


@dataclass(frozen=True, slots=True)
class Headline:
    """The mean over all subjects of one of a task's splits.

    Attributes:
        name: The score's name if all subjects of the task were asked; otherwise what it is a mean of.
        whole: Whether all subjects of the task were asked.
        asked: How many of its subjects were, and of how many.
    """

    task: str
    split: str
    name: str
    score: Score
    whole: bool
    asked: tuple[int, int]


def headlines(tasks: Sequence[ScoredTask], scores: Mapping[str, Score]) -> list[Headline]:
    """The headline scores of a run: one per task and split."""
    found = []
    names = score_names(tasks)
    for task in tasks:
        for split, prefix in task.splits.items():
            own = names[task.name]
            parts = [own[task.score_name(split, subject.name)] for subject in task.subjects]
            asked = [scores[name] for name in parts if name in scores]
            counts = len(asked), len(parts)
            if own.get(prefix) in scores:
                found.append(Headline(task.name, split, own[prefix], scores[own[prefix]], whole=True, asked=counts))
            elif asked:
                name = f"mean of {len(asked)} of {len(parts)} subjects"
                if len(tasks) > 1 or len(task.splits) > 1:
                    name = f"{own[prefix]}, {name}"  # no two headlines have the same
                found.append(Headline(task.name, split, name, mean(asked), whole=False, asked=counts))
    return found
