"""How much of a benchmark a run covers: a part is called a part wherever its score is shown."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bundle.runs.task_record import TaskRecord
from bundle.system.text import plural
from bundle.tasks.scores import Part
from bundle.tasks.sources import shown_sizes

Selected = Mapping[str, Mapping[str, object]]
"""Why other questions were asked than all of a benchmark: keys of `SELECTIONS`, with the values in their words."""

SELECTIONS: Final = {
    "limit": "first {n} of each subject",
    "sample": "{n} drawn from each subject",
    "subjects": "{n} of {all} subjects",
    "unlike": "data not as published ({what} questions)",
}


@dataclass(frozen=True, slots=True)
class Scope:
    """What part of one or several tasks was asked and answered.

    Attributes:
        available: Questions of the subjects selected; None where it is not known.
        sample_data: Whether the questions are the sample in the package.
    """

    selected: Selected
    asked: int
    available: int | None
    answered: int
    sample_data: bool

    @property
    def is_cut(self) -> bool:
        """Whether questions of the subjects selected were left out."""
        return self.available not in (None, self.asked)

    @property
    def is_partial(self) -> bool:
        """Whether it is not the whole benchmark, for whatever reason."""
        return bool(self.selected) or self.sample_data or self.answered < self.asked

    @property
    def text(self) -> str:
        """As in "first 5 of each subject: 260 of 1,346"; "" for all questions."""
        text = ", ".join(in_words(self.selected))
        noun = "sample question" if self.sample_data else "question"
        if self.sample_data or text:
            text += ": " if text else ""
            text += f"{self.asked:,} of {self.available:,}" if self.is_cut else plural(self.asked, noun)
            text += f" {noun}s" if self.is_cut and self.sample_data else ""
        if self.answered < self.asked:
            text += f"{', ' if text else ''}{self.answered:,} of {self.asked:,} answered"
        return text


def in_words(selected: Selected) -> list[str]:
    return [SELECTIONS[key].format_map(values) for key, values in selected.items()]


def planned_selection(tasks: Sequence[TaskRecord]) -> list[str]:
    """What a planned run selects, in words; none for whole benchmarks."""
    words = (word for one in tasks for word in in_words(_selected(one)))
    samples = ("sample questions, which say nothing about a model" for one in tasks if one.sample_data)
    return list(dict.fromkeys([*words, *samples]))


def task_scopes(
    tasks: Iterable[TaskRecord], asked: Mapping[Part, int], answered: Mapping[Part, int]
) -> dict[str, Scope]:
    """The scope of every task of a run, by its name; ``asked`` and ``answered`` count the questions of every part."""
    scopes = {}
    for task in tasks:
        there, replies = (sum(n for part, n in parts.items() if part[0] == task.name) for parts in (asked, answered))
        scopes[task.name] = Scope(_selected(task, there), there, task.available, replies, task.sample_data)
    return scopes


def scope_text(scopes: Mapping[str, Scope]) -> str:
    """The scopes of a run's tasks in one line; "" where all of it was asked and answered."""
    partial = {name: one.text for name, one in scopes.items() if one.is_partial}
    if len(scopes) == 1:
        return "".join(partial.values())
    return "; ".join(f"{name}: {text}" for name, text in partial.items())


def _selected(task: TaskRecord, asked: int = 0) -> Selected:
    """``asked``: how many of its questions were; 0 for a planned run."""
    leaves_out = task.available is None or asked < task.available  # a limit may be as high as there are questions
    chosen, there = len(task.subject_names if task.subjects is None else task.subjects), len(task.subject_names)
    known: dict[str, dict[str, object] | None] = {
        "limit": {"n": task.limit} if task.limit and leaves_out else None,
        "sample": {"n": task.sample} if task.sample and leaves_out else None,
        "subjects": {"n": chosen, "all": there} if chosen < there else None,
        "unlike": {"what": shown_sizes(task.unlike_published)} if task.unlike_published else None,
    }
    return {key: values for key, values in known.items() if values}
