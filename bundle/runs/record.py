"""``run.json``: what a run asked, of which model, with which data, settings and versions."""

import hashlib
import importlib.metadata
import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, InstanceOf, ValidationError

import bundle
from bundle.errors import RunError
from bundle.runs.files import RECORD, read_json
from bundle.runs.health import known_options
from bundle.tasks.benchmarks import Subject
from bundle.tasks.catalog import Task
from bundle.tasks.scores import Member, ScoredTask
from bundle.tasks.sources import Tables

_PACKAGES = ("openai", "datasets", "lmdeploy", "transformers", "torch")

_IDENTITY = ("tasks", "model", "engine", "sampling")
"""The parts of a record that must agree for a run to be resumed …"""
_INCIDENTAL = re.compile(r"model\.path|engine\.version|tasks\[\d+\]\.available")
"""… except for these: a checkpoint may have been moved, or its engine upgraded; the last follows from the data, and
older records lack it."""


Text = InstanceOf[str]
"""Text that may hold lone surrogates, as paths do that are not valid UTF-8: pydantic refuses these in a ``str``."""


class _Part(BaseModel):
    """A part of the record. Keys that a later version added are kept."""

    model_config = ConfigDict(extra="allow", frozen=True)


class SubjectNames(_Part):
    """A subject's display names."""

    english: Text
    chinese: Text


class TaskRecord(_Part):
    """A task as it was asked: everything a prompt, a reply, a score or its name depends on.

    Attributes:
        benchmark: The benchmark's name.
        example_split: The split the examples were taken from.
        first: The task's own limit on the questions of every subject.
        columns: Columns a prompt can name.
        user: Template of a question.
        assistant: Template of an example's answer.
        examples: Examples per question.
        place_for_examples: Whether the prompt has a place for examples.
        shape: The prompt's shape.
        answer: The answer rule and its settings.
        max_out_len: The task's own limit on a reply's tokens.
        subjects: Names of the subjects selected with ``--subjects``; None for all.
        limit: ``--limit``.
        data_fingerprint: Of the rows; None while they are not loaded yet.
        sample: How many questions were drawn from every subject, with ``--quick``; None for all.
        available: How many questions these subjects have in the data, asked or not; None where it is not known.

    The others are those of `ScoredTask`.
    """

    name: Text
    description: Text
    benchmark: Text
    splits: dict[Text, Text]
    secret_splits: tuple[Text, ...]
    example_split: Text
    first: int | None
    columns: tuple[Text, ...]
    user: Text
    assistant: Text
    examples: int
    place_for_examples: bool
    shape: str
    answer: dict[str, Any]
    max_out_len: int | None
    subject_names: dict[Text, SubjectNames]
    groups: dict[Text, tuple[tuple[Text, Text], ...]]
    subjects: tuple[Text, ...] | None
    limit: int | None
    data_fingerprint: str | None
    sample: int | None = None
    available: int | None = None

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
    ) -> Self:
        """Describe a task.

        Args:
            task: The task.
            shape: The prompt's shape.
            subjects: The subjects selected; None for all.
            limit: Maximum questions per subject.
            tables: Its rows; None while they are not loaded yet.
            sample: Questions drawn from every subject; None for all.
        """
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
        )

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


def _available(task: Task, subjects: Sequence[str] | None, tables: Tables) -> int | None:
    names = [one.name for one in task.subjects] if subjects is None else subjects
    sizes = [len(tables.rows.get((name, split), ())) for split in task.splits for name in names]
    return sum(min(size, task.first or size) for size in sizes) or None


class DataRecord(_Part):
    """Where the questions came from.

    Attributes:
        source: As the user named it.
        origin: Where that turned out to be.
        fingerprint: SHA-256 of the rows.
    """

    source: Text
    origin: Text
    fingerprint: str

    @classmethod
    def of(cls, tables: Sequence[Tables]) -> Self:
        """Describe the data of all tasks."""
        prints = [one.fingerprint for one in tables]
        return cls(
            source=",".join(dict.fromkeys(one.source for one in tables)),
            origin="; ".join(dict.fromkeys(one.origin for one in tables)),
            fingerprint=prints[0] if len(prints) == 1 else hashlib.sha256("".join(prints).encode()).hexdigest(),
        )

    @property
    def is_sample(self) -> bool:
        """Whether some of the questions are the sample in the package, whose scores say nothing about a model."""
        return "sample" in self.source.split(",")


class RemoteModelRecord(_Part):
    """A model served elsewhere.

    Attributes:
        headers: Further headers of every request; of a secret one only the variable that holds it, as in "$NAME".
    """

    name: Text
    base_url: Text
    headers: dict[Text, Text] = {}


class LocalModelRecord(_Part):
    """A checkpoint served here."""

    path: Text
    architecture: Text
    weight_bytes: int
    quantization: Text | None
    fingerprint: str

    @property
    def name(self) -> str:
        """The name of the checkpoint's directory."""
        return Path(self.path).name


class EngineRecord(_Part):
    """The inference engine of a local server.

    Attributes:
        name: As in ``--engine``.
        version: Its version.
        arguments: What followed ``--``.
        dtype: What it computed in, as far as this program chose it.
    """

    name: str
    version: str
    arguments: tuple[Text, ...]
    dtype: str | None = None


class RequestsRecord(_Part):
    """How a remote server was asked."""

    qps: float | None
    retries: int
    timeout_s: float


class Served(NamedTuple):
    """A model, and its engine or how it was asked."""

    model: RemoteModelRecord | LocalModelRecord
    engine: EngineRecord | None = None
    requests: RequestsRecord | None = None


class SamplingRecord(_Part):
    """How replies were generated.

    Attributes:
        max_out_len: Maximum tokens per reply, by task name where tasks differ.
        max_seq_len: Maximum tokens of a prompt and its reply together.
        extra_body: Further fields of every request, such as ``top_k``.
    """

    temperature: float
    max_out_len: int | dict[Text, int]
    max_seq_len: int | None
    extra_body: dict[str, Any] = {}


class TemplateRecord(_Part):
    """Whether a server builds prompts as the checkpoint's chat template and tokenizer do.

    Attributes:
        checked: How many prompts were compared, by their numbers of tokens.
        equal: Whether all of them were equal; None if none could be compared.
        note: What else is to be said, such as why none could be.
    """

    checked: int
    equal: bool | None
    note: Text | None = None


class HardwareRecord(_Part):
    """The machine that ran this program."""

    system: str
    processor: str
    cores: int | None


class RunRecord(_Part):
    """The content of ``run.json``.

    Attributes:
        task: Names of all tasks, separated by commas.
        engine: Of a local server.
        requests: How a remote server was asked.
        template: Of a local server; None before its first question.
        concurrency: Maximum concurrent requests.
        adaptive: Whether concurrency was reduced to what the server has room for.
        full_replies: Whether replies were generated completely even if the answer was final before.
        prefix_order: Whether questions were ordered for the server's prefix cache.
        versions: Of this program, Python and the packages a result can depend on.
    """

    task: Text
    data: DataRecord
    tasks: Annotated[tuple[TaskRecord, ...], Field(min_length=1)]
    model: RemoteModelRecord | LocalModelRecord
    engine: EngineRecord | None = None
    requests: RequestsRecord | None = None
    sampling: SamplingRecord
    template: TemplateRecord | None = None
    concurrency: int
    adaptive: bool
    full_replies: bool
    prefix_order: bool
    versions: dict[str, str]
    hardware: HardwareRecord

    @classmethod
    def of(
        cls,
        tasks: Sequence[TaskRecord],
        tables: Sequence[Tables],
        served: Served,
        sampling: SamplingRecord,
        **options: Any,
    ) -> Self:
        """Describe a run of this program on this machine.

        Args:
            tasks: What is asked.
            tables: Its rows, those of each task.
            served: The model and its server.
            sampling: How replies are generated.
            options: The other fields.
        """
        return cls(
            task=",".join(task.name for task in tasks),
            data=DataRecord.of(tables),
            tasks=tuple(tasks),
            model=served.model,
            engine=served.engine,
            requests=served.requests,
            sampling=sampling,
            versions=_versions(),
            hardware=_hardware(),
            **options,
        )

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read the record of the run in ``directory``.

        Raises:
            RunError: It is missing or damaged.
        """
        path = directory / RECORD
        content = read_json(path)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise RunError(f"{path} is damaged: {first_fault(error)}.", remedy="Start a new run.") from None

    def to_json(self) -> dict[str, Any]:
        """The file's content."""
        return {key: value for key, value in self.model_dump().items() if value is not None}

    @property
    def scored_tasks(self) -> tuple[ScoredTask, ...]:
        """What the scores of the tasks depend on, in the order they were asked."""
        return tuple(task.scored for task in self.tasks)

    @property
    def options(self) -> dict[str, str]:
        """The options that each task's questions have, as far as the task says so."""
        return {task.name: known_options(task.benchmark, task.answer) for task in self.tasks}


def first_fault(error: ValidationError) -> str:
    """The first of a validation's errors: where and what."""
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"


def require_same(then: RunRecord, now: RunRecord) -> None:
    """Refuse to resume a run with other settings.

    Raises:
        RunError: Task, data, model or sampling differ; the message says which.
    """
    before, after = (
        dict(leaves({part: value for part, value in record.to_json().items() if part in _IDENTITY}))
        for record in (then, now)
    )
    keys = sorted(key for key in before.keys() | after.keys() if not _INCIDENTAL.fullmatch(key))
    differing = [key for key in keys if before.get(key) != after.get(key)]
    if differing:
        raise RunError(
            f"Cannot resume: settings differ from the original run ({', '.join(differing[:3])}).",
            remedy="Use the original options, or start a new run without --resume.",
            details=[f"{key}: {_short(before.get(key))} then, {_short(after.get(key))} now" for key in differing],
        )


def leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings, also of those in lists, by their paths ("tasks[0].limit")."""
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from leaves(inner, f"{prefix}{key}.")
        elif isinstance(inner, list | tuple) and inner and isinstance(inner[0], Mapping):
            for number, one in enumerate(inner):
                yield from leaves(one, f"{prefix}{key}[{number}].")
        else:
            yield f"{prefix}{key}", inner


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _versions() -> dict[str, str]:
    versions = {"bundle": bundle.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _hardware() -> HardwareRecord:
    # `platform.processor` starts a program to find out.
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return HardwareRecord(
        system=platform.platform(), processor=next(names, "") or platform.machine(), cores=os.cpu_count()
    )
