"""How much of a benchmark a run covers: a part is called a part wherever its score is shown."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bundle.runs.task_record import TaskRecord
from bundle.system.text import plural
from bundle.tasks.scores import Part
from bundle.tasks.sources import Sizes, shown_sizes


@dataclass(frozen=True, slots=True)
class Scope:
    """What part of one or several tasks was asked and answered.

    Attributes:
        limit: ``--limit``; None for none that leaves out a question.
        sample: Questions drawn of every subject, with ``--quick``; None for all.
        subjects: How many subjects were selected, and of how many; None for all.
        available: Questions of the subjects selected; None where it is not known.
        unlike: Where the data are not those published, as `TaskRecord.unlike_published`.
        sample_data: Whether the questions are the sample in the package.
    """

    limit: int | None
    sample: int | None
    subjects: tuple[int, int] | None
    asked: int
    available: int | None
    answered: int
    unlike: Sizes
    sample_data: bool = False

    @property
    def is_selected(self) -> bool:
        """Whether other questions were asked than the whole benchmark's."""
        return bool(self.limit or self.sample or self.subjects or self.unlike)

    @property
    def is_partial(self) -> bool:
        """Whether it is not the whole benchmark, for whatever reason."""
        return self.is_selected or self.sample_data or self.answered < self.asked

    @property
    def text(self) -> str:
        """As in "first 5 of each subject: 260 of 1,346"; "" for all questions."""
        text = ", ".join(selection(self.limit, self.sample, self.subjects, self.unlike))
        noun = "sample question" if self.sample_data else "question"
        if self.sample_data or text:
            cut = self.available not in (None, self.asked)
            text += ": " if text else ""
            text += f"{self.asked:,} of {self.available:,}" if cut else plural(self.asked, noun)
            text += f" {noun}s" if cut and self.sample_data else ""
        if self.answered < self.asked:
            text += f"{', ' if text else ''}{self.answered:,} of {self.asked:,} answered"
        return text


def selection(limit: int | None, sample: int | None, subjects: tuple[int, int] | None, unlike: Sizes) -> list[str]:
    words = []
    if limit is not None:
        words.append(f"first {limit} of each subject")
    if sample is not None:
        words.append(f"{sample} drawn from each subject")
    if subjects is not None:
        words.append(f"{subjects[0]} of {subjects[1]} subjects")
    if unlike:
        words.append(f"data not as published ({shown_sizes(unlike)} questions)")
    return words


def planned_selection(tasks: Sequence[TaskRecord]) -> list[str]:
    """What a planned run selects, in words; none for whole benchmarks."""
    words = (selection(one.limit, one.sample, _subjects(one), one.unlike_published) for one in tasks)
    samples = ("sample questions, which say nothing about a model" for one in tasks if one.sample_data)
    return list(dict.fromkeys([*(word for of_task in words for word in of_task), *samples]))


def task_scopes(
    tasks: Iterable[TaskRecord], asked: Mapping[Part, int], answered: Mapping[Part, int]
) -> dict[str, Scope]:
    """The scope of every task of a run, by its name; ``asked`` and ``answered`` count the questions of every part."""
    scopes = {}
    for task in tasks:
        there, replies = (sum(n for part, n in parts.items() if part[0] == task.name) for parts in (asked, answered))
        limit, sample = task.limit, task.sample
        if task.available is not None and there >= task.available:
            limit = sample = None  # which leave out no question
        scopes[task.name] = Scope(
            limit=limit,
            sample=sample,
            subjects=_subjects(task),
            asked=there,
            available=task.available,
            answered=replies,
            unlike=task.unlike_published,
            sample_data=task.sample_data,
        )
    return scopes


def scope_text(scopes: Mapping[str, Scope]) -> str:
    """The scopes of a run's tasks in one line; "" where all of it was asked and answered."""
    partial = {name: one.text for name, one in scopes.items() if one.is_partial}
    if len(scopes) == 1:
        return "".join(partial.values())
    return "; ".join(f"{name}: {text}" for name, text in partial.items())


def _subjects(task: TaskRecord) -> tuple[int, int] | None:
    if task.subjects is None or len(task.subjects) >= len(task.subject_names):
        return None
    return len(task.subjects), len(task.subject_names)
