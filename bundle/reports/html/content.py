"""What the page tells of a run's scores: one section a task and split."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bundle.reports.formats import Language
from bundle.reports.html.texts import catalog
from bundle.runs.predictions import Prediction
from bundle.runs.recorded_run import RecordedRun
from bundle.runs.scoring import Score, mean
from bundle.runs.statistics import Counts, accuracy_interval
from bundle.tasks.scores import Part, ScoredTask

_MOST_OPTIONS: Final = 10
NOTHING: Final = ""
"""The answer of a reply in which there is none."""


@dataclass(frozen=True, slots=True)
class Line:
    """A subject or a group of them.

    Attributes:
        name: Of its score.
        english: For people.
        chinese: For people.
        group: The group a subject is marked by, or a group's own short name; "" for none.
        score: What was reached.
        low: Lower end of the 95 % interval in percent; None where there is no accuracy.
        high: Upper end.
    """

    name: str
    english: str
    chinese: str
    group: str
    score: Score
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, Any]:
        """For the charts."""
        return {
            "en": self.english,
            "zh": self.chinese,
            "group": self.group,
            "accuracy": self.score.accuracy,
            "low": self.low,
            "high": self.high,
            "n": self.score.n,
            "answered": self.score.answered,
        }


@dataclass(frozen=True, slots=True)
class Letters:
    """Answers against right answers.

    Attributes:
        options: What can be answered; `NOTHING` is last.
        answers: How many of the questions with a reply have each answer.
        golds: How many have each right answer; 0 for all where it is secret.
        pairs: How many have each right answer and answer, by both.
    """

    options: tuple[str, ...]
    answers: Mapping[str, int]
    golds: Mapping[str, int]
    pairs: Mapping[tuple[str, str], int]


@dataclass(frozen=True, slots=True)
class Section:
    """A split of a task.

    Attributes:
        task: The task.
        split: The split.
        secret: Whether its right answers are not known.
        overall: Its mean over all subjects, or where not all were asked, over those that were.
        complete: Whether that is all subjects of the task.
        right: Questions answered right.
        silent: Questions with a reply that has no answer.
        groups: The other groups that were asked whole, in the order of the task.
        subjects: Those asked, best first; those without a score last.
        letters: None where answers are not a choice among few.
    """

    task: ScoredTask
    split: str
    secret: bool
    overall: Line
    complete: bool
    right: int
    silent: int
    groups: tuple[Line, ...]
    subjects: tuple[Line, ...]
    letters: Letters | None

    @property
    def group_names(self) -> list[str]:
        """The groups its subjects are marked by, in the order of the task."""
        present = {line.group for line in self.subjects}
        return [name for name in dict.fromkeys(subject.group for subject in self.task.subjects) if name in present]

    def to_json(self) -> dict[str, Any]:
        """For the charts."""
        letters = self.letters
        return {
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
    by_part: dict[Part, list[Prediction]] = {part: [] for part in run.questions}
    for one in run.predictions:
        by_part[one.part].append(one)
    found = []
    for task in run.tasks:
        for split in task.splits:
            parts = {subject.name: (task.name, split, subject.name) for subject in task.subjects}
            known = {name: by_part[part] for name, part in parts.items() if part in by_part}
            if known:
                found.append(_section(run, task, split, known))
    return found


def group_label(name: str) -> Mapping[Language, str]:
    """A group's name in both languages."""
    return catalog().get(f"group.{name}", {"en": name, "zh": name})


def chance(letters: Letters | None) -> float | None:
    """The accuracy of guessing, in percent; None where it is not known how many options a question has."""
    return 25.0 if letters is not None and set(letters.golds) == set("ABCD") else None


def _section(run: RecordedRun, task: ScoredTask, split: str, known: Mapping[str, Sequence[Prediction]]) -> Section:
    names = run.score_names(task)
    secret = split in task.secret_splits
    counts = {name: _counts(predictions) for name, predictions in known.items()}
    subjects = [
        _line(
            names[task.score_name(split, one.name)], one.english, one.chinese, one.group, run.scores, [counts[one.name]]
        )
        for one in task.subjects
        if one.name in known
    ]
    prefix = task.splits[split]
    groups = []
    for group, members in task.groups.items():
        if group != prefix and names[group] in run.scores and {of for of, _ in members} == {split}:
            short = group.removeprefix(f"{prefix}-")
            label = group_label(short)
            groups.append(
                _line(names[group], label["en"], label["zh"], short, run.scores, [counts[name] for _, name in members])
            )
    overall_name = names.get(prefix, prefix)
    scores = {overall_name: mean(line.score for line in subjects)} | dict(run.scores)
    replies = [one for predictions in known.values() for one in predictions if one.error is None]
    return Section(
        task=task,
        split=split,
        secret=secret,
        overall=_line(overall_name, "", "", "", scores, list(counts.values())),
        complete=len(subjects) == len(task.subjects),
        right=sum(one.correct is True for one in replies),
        silent=sum(not one.answer for one in replies),
        groups=tuple(groups),
        subjects=tuple(sorted(subjects, key=_best_first)),
        letters=_letters(replies),
    )


def _counts(predictions: Iterable[Prediction]) -> Counts:
    replies = [one for one in predictions if one.error is None]
    return Counts(sum(one.correct is True for one in replies), len(replies))


def _line(
    name: str, english: str, chinese: str, group: str, scores: Mapping[str, Score], counts: Sequence[Counts]
) -> Line:
    score = scores[name]
    if score.accuracy is None:
        return Line(name, english, chinese, group, score, None, None)
    interval = accuracy_interval(counts) * 100
    return Line(name, english, chinese, group, score, interval.low, interval.high)


def _best_first(line: Line) -> tuple[bool, float]:
    return line.score.accuracy is None, -(line.score.accuracy or 0)


def _letters(replies: Sequence[Prediction]) -> Letters | None:
    golds = Counter(one.gold for one in replies if one.gold)
    answers = Counter(one.answer or NOTHING for one in replies)
    options = sorted((golds.keys() | answers.keys()) - {NOTHING})
    if not options or len(options) > _MOST_OPTIONS or any(len(option) > 1 for option in options):
        return None
    pairs = Counter((one.gold, one.answer or NOTHING) for one in replies if one.gold)
    return Letters((*options, NOTHING), answers, golds, pairs)
