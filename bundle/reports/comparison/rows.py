"""How the outcomes of questions changed from one run to another, by subject and group."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from bundle.runs.predictions import Prediction
from bundle.runs.statistics import Interval, Pairs, difference, difference_interval, holm, mcnemar
from bundle.tasks.scores import Key, Member, ScoredTask

Pair = tuple[Prediction, Prediction]
"""A question's outcome in both runs, each with a reply and a known gold answer."""

LEVEL = 0.05
"""Significance level."""


class Standing(StrEnum):
    """How the new run compares with the base."""

    BETTER = "better"
    WORSE = "worse"
    CHANCE = "not significant"
    UNCLEAR = "unclear"
    """Test and interval disagree."""


@dataclass(frozen=True, slots=True)
class Row:
    """A subject or a group in both runs, over the questions that both answered.

    Attributes:
        name: Its score name; for a mean over some of the subjects, "mean of 3 subjects".
        kind: "overall" for the mean over all subjects compared, one per split.
        base: Accuracy in percent; except for a subject, the plain mean over its subjects.
        interval: Its 95 % interval, in points.
        lost: Questions correct in the base and wrong in the new run.
        won: The reverse.
        lost_without: Of the questions lost, those whose reply in the new run holds no option.
        p: McNemar's exact p-value over them.
        corrected_p: With Holm's correction, of a subject for the number of subjects, in a series for that of runs;
            otherwise None.
        standing: For a subject by ``corrected_p``, otherwise by ``p`` and ``interval`` together, in a series by all
            three.
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
    lost_without: int
    p: float
    corrected_p: float | None
    standing: Standing

    @property
    def shown_p(self) -> float:
        """The p-value that counts."""
        return self.p if self.corrected_p is None else self.corrected_p


def task_rows(
    task: ScoredTask,
    names: Mapping[str, str],
    pairs: Sequence[Pair],
    unparsed: Collection[Key] = (),
    *,
    several: bool = False,
) -> Iterator[Row]:
    """The rows of a task: for each split the mean over all its subjects, then the groups; then all subjects.

    A group is compared only where all its subjects are.

    Args:
        names: The name in ``results.json`` of each of its scores.
        pairs: The questions that both runs answered, including those of other tasks.
        unparsed: Those whose reply in the new run holds no option.
        several: Whether other tasks are compared, too, so that the name of a mean has to say of which it is.
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
        if several and not whole and len(of_split) > 1:
            name = f"{names.get(prefix, prefix)}, {name}"
        overall[prefix] = None
        yield _row(name, "overall", [compared[member] for member in of_split], unparsed)
    for group, of_group in task.groups_within(compared).items():
        if group not in overall:
            yield _row(names[group], "group", [compared[member] for member in of_group], unparsed)
    subjects = [
        _row(names[task.score_name(*member)], "subject", [of_subject], unparsed)
        for member, of_subject in compared.items()
    ]
    for one, corrected in zip(subjects, holm([one.p for one in subjects]), strict=True):
        standing = _direction(one.difference) if corrected < LEVEL else Standing.CHANCE
        yield replace(one, corrected_p=corrected, standing=standing)


def _partial(task: ScoredTask, names: Mapping[str, str], members: Sequence[Member]) -> str:
    if len(members) == 1:
        return names[task.score_name(*members[0])]
    split = members[0][0]
    return f"mean of {len(members)} subjects" + (f" ({split})" if len(task.splits) > 1 else "")


def _row(
    name: str,
    kind: Literal["overall", "group", "subject"],
    subjects: Sequence[Sequence[Pair]],
    unparsed: Collection[Key],
) -> Row:
    tallies = [Pairs(len(pairs), sum(map(_is_lost, pairs)), sum(map(_is_won, pairs))) for pairs in subjects]
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
        lost_without=sum(_is_lost(pair) and pair[1].key in unparsed for pairs in subjects for pair in pairs),
        p=p,
        corrected_p=None,
        standing=_standing(change, interval, lost, won, p),
    )


def _is_lost(pair: Pair) -> bool:
    return pair[0].correct is True and pair[1].correct is not True


def _is_won(pair: Pair) -> bool:
    return pair[0].correct is not True and pair[1].correct is True


def _share(pairs: Sequence[Pair], run: int) -> float:
    return 100 * sum(pair[run].correct is True for pair in pairs) / len(pairs)


def _standing(change: float, interval: Interval, lost: int, won: int, p: float) -> Standing:
    # The test weighs all questions equally, the score all subjects; a difference has to hold in both ways.
    by_test = p < LEVEL
    by_interval = interval.low > 0 or interval.high < 0
    if by_test and by_interval and (won > lost) == (change > 0):
        return _direction(change)
    return Standing.UNCLEAR if by_test or by_interval else Standing.CHANCE


def _direction(change: float) -> Standing:
    return Standing.BETTER if change > 0 else Standing.WORSE
