"""A task in ``run.json``, as it was asked."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, InstanceOf, StrictBool, StrictInt, ValidationError

from bundle.config.faults import first_fault
from bundle.errors import RunError
from bundle.runs.files import read_json
from bundle.tasks.benchmarks import Subject
from bundle.tasks.catalog import Task
from bundle.tasks.scores import Member, ScoredTask
from bundle.tasks.sources import Tables

Text = InstanceOf[str]
"""Text that may hold lone surrogates, as paths do that are not valid UTF-8: pydantic refuses these in a ``str``."""


class RecordPart(BaseModel):
    """A part of the record or the results. Keys that a later version added are kept."""

    # Its validator is made on first use: of most parts only once the server has been started.
    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)

    @classmethod
    def from_file(cls, path: Path, remedy: str) -> Self:
        """Read what a file holds. Raises RunError if it is missing or damaged."""
        content = read_json(path, remedy)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise RunError(f"{path} is damaged: {first_fault(error, cls)}", remedy=remedy) from None


class SubjectNames(RecordPart):
    """A subject's display names."""

    english: Text
    chinese: Text


class TaskRecord(RecordPart):
    """A task as it was asked: everything a prompt, a reply, a score or its name depends on.

    Attributes:
        first: The task's own limit on the questions of every subject.
        max_out_len: The task's own limit on a reply's tokens.
        subjects: Names of the subjects selected with ``--subjects``; None for all.
        data_fingerprint: Of the rows; None while they are not loaded yet.
        sample: How many questions were drawn from every subject, with ``--quick``; None for all.
        available: How many questions these subjects have in the data, asked or not; None where it is not known.
        unlike_published: Where the data have another number of questions than was published, that number and the
            published one, by split and subject.
        sample_data: Whether its questions are the sample in the package, whose scores say nothing about a model.

    The others are those of `ScoredTask`.
    """

    name: Text
    description: Text
    benchmark: Text
    splits: dict[Text, Text]
    secret_splits: tuple[Text, ...]
    example_split: Text
    first: StrictInt | None
    columns: tuple[Text, ...]
    user: Text
    assistant: Text
    examples: StrictInt
    place_for_examples: StrictBool
    shape: str
    answer: dict[str, Any]
    max_out_len: StrictInt | None
    subject_names: dict[Text, SubjectNames]
    groups: dict[Text, tuple[tuple[Text, Text], ...]]
    subjects: tuple[Text, ...] | None
    limit: StrictInt | None
    data_fingerprint: str | None
    sample: StrictInt | None = None
    available: StrictInt | None = None
    unlike_published: dict[Text, tuple[StrictInt, StrictInt]] = Field(default_factory=dict)
    sample_data: bool = False

    @classmethod
    def of(
        cls,
        task: Task,
        *,
        shape: str,
        subjects: Sequence[str] | None = None,
        limit: int | None = None,
        tables: Tables | None = None,
        sample: int | None = None,
        source: str | None = None,
    ) -> Self:
        """Describe a task. ``tables`` are its rows, None while they are not loaded yet; ``source`` is theirs."""
        return cls(
            name=task.name,
            description=task.description,
            benchmark=task.benchmark.name,
            splits=dict(task.splits),
            secret_splits=tuple(sorted(task.secret_splits)),
            example_split=task.example_split,
            first=task.first,
            columns=tuple(task.columns),
            user=task.prompt.user,
            assistant=task.prompt.assistant,
            examples=task.prompt.examples,
            place_for_examples=task.prompt.place_for_examples,
            shape=shape,
            answer=task.answer_rule.to_json(),
            max_out_len=task.max_out_len,
            subject_names={one.name: SubjectNames(english=one.english, chinese=one.chinese) for one in task.subjects},
            groups=dict(task.groups),
            subjects=None if subjects is None else tuple(subjects),
            limit=limit,
            data_fingerprint=None if tables is None else tables.fingerprint,
            sample=sample,
            available=None if tables is None else _available(task, subjects, tables),
            unlike_published={} if tables is None else _unlike(task, tables),
            sample_data=source == "sample",
        )

    @property
    def asked(self) -> dict[str, Any]:
        """What two runs of it must have in common if their scores are to be compared, by field."""
        # The order in which subjects were named does not matter.
        return self.model_dump(include=_ASKED) | {"subjects": self.subjects and sorted(self.subjects)}

    @cached_property
    def scored(self) -> ScoredTask:
        """What its scores depend on."""
        group_of: dict[Member, str] = {}
        for name, members in self.groups.items():
            for member in members:
                if name != (prefix := self.splits.get(member[0], "")):
                    group_of.setdefault(member, name.removeprefix(f"{prefix}-"))
        split = next(iter(self.splits), "")
        return ScoredTask(
            name=self.name,
            description=self.description,
            splits=self.splits,
            secret_splits=frozenset(self.secret_splits),
            subjects=tuple(
                Subject(name, one.english, one.chinese, group_of.get((split, name), ""))
                for name, one in self.subject_names.items()
            ),
            groups=self.groups,
        )


_ASKED = {
    *("benchmark", "splits", "example_split", "user", "assistant", "examples", "place_for_examples", "shape", "answer"),
    *("subjects", "limit", "first", "sample", "data_fingerprint"),
}


def _available(task: Task, subjects: Sequence[str] | None, tables: Tables) -> int | None:
    names = [one.name for one in task.subjects] if subjects is None else subjects
    sizes = [len(tables.rows.get((name, split), ())) for split in task.splits for name in names]
    return sum(min(size, task.first or size) for size in sizes) or None


def _unlike(task: Task, tables: Tables) -> dict[str, tuple[int, int]]:
    """Those that change what the task asks: it may have a limit of its own."""
    first = task.first
    return {name: sizes for name, sizes in tables.unlike.items() if first is None or min(sizes) < first}
