"""What became of the questions from one run to another, counted by subject and group."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from bundle.runs.predictions import Prediction
from bundle.runs.statistics import Interval, Pairs, difference, difference_interval, holm, mcnemar
from bundle.tasks.scores import Member, ScoredTask

Pair = tuple[Prediction, Prediction]
"""A question's outcome in both runs, each with a reply and a known right answer."""

LEVEL = 0.05
"""Below this a p-value counts as more than chance."""


class Standing(StrEnum):
    """How the new run stands to the base."""

    BETTER = "better"
    WORSE = "worse"
    CHANCE = "no more than chance"
    UNCLEAR = "unclear"
    """The test says that questions changed in one direction, and the interval of the mean over subjects does not."""


@dataclass(frozen=True, slots=True)
class Row:
    """A subject or a group in both runs, on the questions that both answered.

    Attributes:
        name: Its score name; of a mean over some of the subjects, "mean of 3 subjects".
        kind: "overall" for the mean over all subjects that are compared, one a split.
        base: Accuracy in percent, for all but a subject the plain mean over its subjects.
        new: Likewise.
        difference: ``new`` less ``base``, in points.
        interval: The 95 % interval of that, in points.
        questions: How many.
        lost: Those right in the base and wrong in the new run.
        won: The other way round.
        p: McNemar's exact p-value over them.
        corrected_p: Holm's correction of it for there being so many subjects; None for what is no subject.
        standing: Whether the difference is more than chance, by ``corrected_p`` for a subject, else by ``p`` and
            ``interval`` together.
    """

    name: str
    kind: Literal["overall", "group", "subject"]
    base: float
    new: float
    difference: float
    interval: Interval
    questions: int
    lost: int
    won: int
    p: float
    corrected_p: float | None
    standing: Standing


def task_rows(task: ScoredTask, names: Mapping[str, str], pairs: Sequence[Pair]) -> Iterator[Row]:
    """The rows of a task: of each split the mean over all its subjects, then the groups; then all subjects.

    A group is compared only where all its subjects are, as it is only then scored.

    Args:
        task: The task.
        names: The name in ``results.json`` of each of its scores.
        pairs: The questions that both runs answered; those of other tasks are left alone.
    """
    members: dict[Member, list[Pair]] = defaultdict(list)
    for pair in pairs:
        if pair[0].task == task.name:
            members[pair[0].split, pair[0].subject].append(pair)
    compared = {member: members[member] for member in task.members() if member in members}
    overall: dict[str, None] = {}
    for split, prefix in task.splits.items():
        of_split = [member for member in compared if member[0] == split]
        if not of_split:
            continue
        whole = prefix in task.groups and set(task.groups[prefix]) == set(of_split)
        name = names[prefix] if whole else _partial(task, names, of_split)
        overall[prefix] = None
        yield _row(name, "overall", [compared[member] for member in of_split])
    for group, of_group in task.groups_within(compared).items():
        if group not in overall:
            yield _row(names[group], "group", [compared[member] for member in of_group])
    subjects = [
        _row(names[task.score_name(*member)], "subject", [of_subject]) for member, of_subject in compared.items()
    ]
    for row, corrected in zip(subjects, holm([row.p for row in subjects]), strict=True):
        standing = _direction(row.difference) if corrected < LEVEL else Standing.CHANCE
        yield replace(row, corrected_p=corrected, standing=standing)


def _partial(task: ScoredTask, names: Mapping[str, str], members: Sequence[Member]) -> str:
    if len(members) == 1:
        return names[task.score_name(*members[0])]
    split = members[0][0]
    return f"mean of {len(members)} subjects" + (f" ({split})" if len(task.splits) > 1 else "")


def _row(name: str, kind: Literal["overall", "group", "subject"], subjects: Sequence[Sequence[Pair]]) -> Row:
    tallies = [_tally(pairs) for pairs in subjects]
    change = 100 * difference(tallies)
    interval = difference_interval(tallies) * 100
    lost, won = sum(one.lost for one in tallies), sum(one.won for one in tallies)
    base, new = (sum(_share(pairs, run) for pairs in subjects) / len(subjects) for run in (0, 1))
    p = mcnemar(lost, won)
    return Row(
        name=name,
        kind=kind,
        base=base,
        new=new,
        difference=change,
        interval=interval,
        questions=sum(one.n for one in tallies),
        lost=lost,
        won=won,
        p=p,
        corrected_p=None,
        standing=_standing(change, interval, lost, won, p),
    )


def _tally(pairs: Sequence[Pair]) -> Pairs:
    lost = sum(base.correct is True and new.correct is not True for base, new in pairs)
    won = sum(base.correct is not True and new.correct is True for base, new in pairs)
    return Pairs(len(pairs), lost, won)


def _share(pairs: Sequence[Pair], run: int) -> float:
    return 100 * sum(pair[run].correct is True for pair in pairs) / len(pairs)


def _standing(change: float, interval: Interval, lost: int, won: int, p: float) -> Standing:
    # The test counts every question alike and the score every subject; a difference has to hold in both ways.
    by_test = p < LEVEL
    by_interval = interval.low > 0 or interval.high < 0
    if by_test and by_interval and (won > lost) == (change > 0):
        return _direction(change)
    return Standing.UNCLEAR if by_test or by_interval else Standing.CHANCE


def _direction(change: float) -> Standing:
    return Standing.BETTER if change > 0 else Standing.WORSE
