"""A task as a run's record tells of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from pydantic import BaseModel, ValidationError

from bundle.tasks.benchmarks import BENCHMARKS, Subject

Member = tuple[str, str]
"""A split and a subject in it."""


@dataclass(frozen=True, slots=True)
class RecordedTask:
    """What ``run.json`` knows of a task: enough to name, group and score its questions.

    Attributes:
        name: As in ``--task``.
        description: One line for people; "" where the record has none.
        benchmark: Where its rows came from.
        splits: The splits asked, and what the names of their scores begin with.
        secret_splits: Those whose answers are not known.
        subjects: In the order they are shown.
        groups: The splits and subjects of every group, by the group's score name.
        record: Its part of ``run.json``, as it stands there.
    """

    name: str
    description: str
    benchmark: str
    splits: Mapping[str, str]
    secret_splits: frozenset[str]
    subjects: tuple[Subject, ...]
    groups: Mapping[str, tuple[Member, ...]]
    record: Mapping[str, Any]

    @classmethod
    def from_record(cls, record: Mapping[str, Any], seen: Iterable[str]) -> Self:
        """Read a task's part of ``run.json``.

        Args:
            record: That part. Where it names no subjects and groups they are those of the benchmark.
            seen: Names of the subjects this run has questions of; any the record does not name comes last.

        Raises:
            ValueError: It is not what this program writes.
        """
        try:
            told = _TaskRecord.model_validate(record)
        except ValidationError as error:
            raise ValueError(_first_fault(error)) from None
        subjects = told.named_subjects()
        known = {subject.name for subject in subjects}
        subjects += [Subject(name, name, name, "") for name in dict.fromkeys(seen) if name not in known]
        return cls(
            name=told.name,
            description=told.description,
            benchmark=told.benchmark,
            splits=told.splits,
            secret_splits=told.known_secrets(),
            subjects=tuple(subjects),
            groups=told.known_groups(subjects),
            record=record,
        )

    def score_name(self, split: str, subject: str) -> str:
        """The name of a subject's score, as OpenCompass writes it ("ceval-test-law")."""
        return f"{self.splits[split]}-{subject}"

    def names(self) -> list[str]:
        """Names of all scores it could have, groups first."""
        subjects = (self.score_name(split, subject.name) for split in self.splits for subject in self.subjects)
        return [*self.groups, *subjects]


def score_names(tasks: Iterable[RecordedTask], task: RecordedTask) -> dict[str, str]:
    """The name in ``results.json`` of each of a task's scores: its own, or "TASK/NAME" where two tasks share it."""
    others = {name for other in tasks if other.name != task.name for name in other.names()}
    return {name: f"{task.name}/{name}" if name in others else name for name in task.names()}


class _Names(BaseModel):
    english: str
    chinese: str


class _TaskRecord(BaseModel):
    name: str
    benchmark: str
    description: str = ""
    splits: dict[str, str]
    secret_splits: list[str] | None = None
    subject_names: dict[str, _Names] | None = None
    groups: dict[str, list[Member]] | None = None

    def named_subjects(self) -> list[Subject]:
        known = BENCHMARKS.get(self.benchmark)
        of_benchmark = {subject.name: subject for subject in known.subjects} if known else {}
        if self.subject_names is None:
            return list(of_benchmark.values())
        return [
            Subject(name, one.english, one.chinese, of_benchmark[name].group if name in of_benchmark else "")
            for name, one in self.subject_names.items()
        ]

    def known_secrets(self) -> frozenset[str]:
        if self.secret_splits is not None:
            return frozenset(self.secret_splits)
        known = BENCHMARKS.get(self.benchmark)
        return known.secret_splits & self.splits.keys() if known else frozenset()

    def known_groups(self, subjects: Iterable[Subject]) -> dict[str, tuple[Member, ...]]:
        if self.groups is not None:
            return {name: tuple(members) for name, members in self.groups.items()}
        names = [subject.name for subject in subjects]
        known = BENCHMARKS.get(self.benchmark)
        groups: dict[str, tuple[Member, ...]] = {}
        for split, prefix in self.splits.items():
            groups[prefix] = tuple((split, name) for name in names)
            for group, members in known.groups.items() if known else ():
                groups[f"{prefix}-{group}"] = tuple((split, name) for name in members)
        return groups


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
