"""What is asked and scored: a question's key, a task's splits, subjects and groups, and the names of its scores."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from bundle.tasks.benchmarks import Subject

Part = tuple[str, str, str]
"""The name of a task, a split and a subject."""

Member = tuple[str, str]
"""A split and a subject of one task."""


class Key(NamedTuple):
    """Identifies a question within a run."""

    task: str
    split: str
    subject: str
    id: int
    """Row number in the split, from 0."""

    @property
    def part(self) -> Part:
        return self[:3]


@dataclass(frozen=True, slots=True)
class ScoredTask:
    """A task as far as its scores are concerned, whether it is about to be asked or was read from a run's record.

    Attributes:
        name: As in ``--task``; for a task file of the user's own, its name without ``.toml``.
        splits: The splits asked, each with the prefix of its score names.
        groups: The members of every group, by the group's score name. A group's score is the mean over its members;
            the group of all subjects comes first in each split.
    """

    name: str
    description: str
    splits: Mapping[str, str]
    secret_splits: frozenset[str]
    subjects: tuple[Subject, ...]
    groups: Mapping[str, tuple[Member, ...]]

    @property
    def open_splits(self) -> dict[str, str]:
        """The splits whose gold answers are public."""
        return {split: prefix for split, prefix in self.splits.items() if split not in self.secret_splits}

    def score_name(self, split: str, subject: str) -> str:
        """The name of a subject's score, as OpenCompass writes it ("ceval-test-law")."""
        return f"{self.splits[split]}-{subject}"

    def short_name(self, group: str) -> str:
        """A group's name without the prefix of its split, "stem" for "ceval-stem"; "" for the group of all subjects."""
        prefix = next((self.splits.get(split, "") for split, _ in self.groups[group]), "")
        return "" if group == prefix else group.removeprefix(f"{prefix}-")

    def members(self) -> list[Member]:
        """All splits and subjects, in display order."""
        return [(split, subject.name) for split in self.splits for subject in self.subjects]

    def groups_within(self, asked: Collection[Member]) -> dict[str, tuple[Member, ...]]:
        """The groups all of whose members were asked: only these have a score, as in OpenCompass."""
        return {name: members for name, members in self.groups.items() if set(members) <= set(asked)}


def score_names(tasks: Iterable[ScoredTask]) -> dict[str, dict[str, str]]:
    """The names in ``results.json`` of the scores of all tasks of a run.

    By task name and the score's own name: that name, or "TASK/NAME" where several of the tasks share it.
    """
    own = {task.name: [*task.groups, *(task.score_name(*member) for member in task.members())] for task in tasks}
    uses = Counter(name for names in own.values() for name in set(names))
    return {
        task: {name: name if uses[name] == 1 else f"{task}/{name}" for name in names} for task, names in own.items()
    }


def part_names(tasks: Iterable[ScoredTask]) -> dict[Part, str]:
    """The names in ``results.json`` of the score of every subject of every split, asked or not."""
    tasks = tuple(tasks)
    names = score_names(tasks)
    return {
        (task.name, *member): names[task.name][task.score_name(*member)] for task in tasks for member in task.members()
    }
