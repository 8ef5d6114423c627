"""The scores on the page: one section per task and split."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bundle.reports.formats import Language
from bundle.reports.texts import catalog
from bundle.runs.predictions import Prediction
from bundle.runs.recorded_run import RecordedRun
from bundle.runs.scoring import Headline, Score, headlines
from bundle.tasks.scores import Member, ScoredTask

_MOST_OPTIONS: Final = 10
OVERALL: Final = ""
"""The short name of the mean over all subjects."""
NOTHING: Final = ""
"""Stands for the answer where a reply has none."""


@dataclass(frozen=True, slots=True)
class Line:
    """A subject or a group of them.

    Attributes:
        name: Its score name.
        group: The group that marks a subject, "" for none; or a group's own short name.
    """

    name: str
    score: Score
    english: str
    chinese: str
    group: str

    def to_json(self) -> dict[str, Any]:
        interval = self.score.interval
        return {
            "en": self.english,
            "zh": self.chinese,
            "group": self.group,
            "accuracy": self.score.accuracy,
            "low": interval and interval.low,
            "high": interval and interval.high,
            "n": self.score.n,
            "answered": self.score.answered,
        }


@dataclass(frozen=True, slots=True)
class Letters:
    """Answers against gold answers.

    Attributes:
        options: Possible answers; `NOTHING` is last.
        golds: Questions by gold answer; none where these are secret.
    """

    options: tuple[str, ...]
    answers: Mapping[str, int]
    golds: Mapping[str, int]
    pairs: Mapping[tuple[str, str], int]


@dataclass(frozen=True, slots=True)
class Section:
    """A split of a task.

    Attributes:
        overall: The mean over all subjects that were asked.
        complete: Whether these are all subjects of the task.
        failed: Questions that were asked and have no reply.
        groups: The other groups with a score, in the order of the task.
        subjects: The subjects asked, best first; those without a score last.
        letters: None where answers are not a choice among a few letters.
    """

    task: ScoredTask
    split: str
    secret: bool
    overall: Line
    complete: bool
    failed: int
    right: int
    unparsed: int
    groups: tuple[Line, ...]
    subjects: tuple[Line, ...]
    letters: Letters | None

    @property
    def group_names(self) -> list[str]:
        """The groups that mark its subjects, in the order of the bars."""
        present = {line.group for line in self.subjects}
        of_bars = [line.group for line in self.groups]
        return [
            name for name in dict.fromkeys((*of_bars, *(one.group for one in self.task.subjects))) if name in present
        ]

    def to_json(self) -> dict[str, Any]:
        letters = self.letters
        return {
            "task": self.task.name,
            "split": self.split,
            "overall": self.overall.to_json(),
            "groups": [line.to_json() for line in self.groups],
            "subjects": [line.to_json() for line in self.subjects],
            "marks": [{"group": name, **group_label(name)} for name in self.group_names if name],
            "chance": chance(letters),
            "letters": letters
            and {
                "options": letters.options,
                "answers": [letters.answers.get(option, 0) for option in letters.options],
                "golds": [letters.golds.get(option, 0) for option in letters.options],
            },
        }


def sections(run: RecordedRun) -> list[Section]:
    """Every split of every task that this run has questions of."""
    tasks = {task.name: task for task in run.tasks}
    outcomes = defaultdict[Member, list[Prediction]](list)
    for one in run.predictions:
        outcomes[one.task, one.split].append(one)
    return [
        _section(run, tasks[headline.task], headline, outcomes[headline.task, headline.split])
        for headline in headlines(run.tasks, run.scores)
    ]


def group_label(name: str) -> Mapping[Language, str]:
    """What people call a group, by its short name."""
    return catalog().get(f"group.{name}", {"en": name, "zh": name})


def chance(letters: Letters | None) -> float | None:
    """The accuracy of random guessing, in percent; None where the number of options is unknown."""
    return 25.0 if letters is not None and set(letters.golds) == set("ABCD") else None


def _section(run: RecordedRun, task: ScoredTask, headline: Headline, outcomes: Sequence[Prediction]) -> Section:
    replies = [one for one in outcomes if one.error is None]
    split, prefix, names = headline.split, task.splits[headline.split], run.score_names(task)
    groups = [
        _group_line(name, run.scores[name], task.short_name(group))
        for group, members in task.groups.items()
        if group != prefix and (name := names[group]) in run.scores and {of for of, _ in members} == {split}
    ]
    subjects = [
        Line(name := names[task.score_name(split, one.name)], run.scores[name], one.english, one.chinese, one.group)
        for one in task.subjects
        if (task.name, split, one.name) in run.questions
    ]
    subjects.sort(key=lambda line: (line.score.accuracy is None, -(line.score.accuracy or 0)))
    return Section(
        task=task,
        split=split,
        secret=split in task.secret_splits,
        overall=_group_line(headline.name, headline.score, OVERALL),
        complete=headline.whole,
        failed=len(outcomes) - len(replies),
        right=sum(one.correct is True for one in replies),
        unparsed=sum(one.key in run.unparsed for one in replies),
        groups=tuple(groups),
        subjects=tuple(subjects),
        letters=_letters(replies),
    )


def _group_line(name: str, score: Score, short: str) -> Line:
    label = group_label(short)
    return Line(name, score, label["en"], label["zh"], short)


def _letters(replies: Sequence[Prediction]) -> Letters | None:
    golds = Counter(one.gold for one in replies if one.gold)
    answers = Counter(one.answer or NOTHING for one in replies)
    options = sorted((golds.keys() | answers.keys()) - {NOTHING})
    if not options or len(options) > _MOST_OPTIONS or any(len(option) > 1 for option in options):
        return None
    pairs = Counter((one.gold, one.answer or NOTHING) for one in replies if one.gold)
    return Letters((*options, NOTHING), answers, golds, pairs)
