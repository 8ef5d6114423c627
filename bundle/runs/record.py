"""``run.json``: what a run asked, of which model, with which data, settings and versions."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, StrictBool, StrictFloat, StrictInt

from bundle.runs.files import DAMAGED, RECORD
from bundle.runs.health import known_options
from bundle.runs.served import (
    EngineRecord,
    HardwareRecord,
    LocalModelRecord,
    RemoteModelRecord,
    RequestsRecord,
    Served,
    hardware,
    versions,
)
from bundle.runs.task_record import RecordPart, TaskRecord, Text
from bundle.tasks.scores import ScoredTask
from bundle.tasks.sources import Tables


class DataRecord(RecordPart):
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


class SamplingRecord(RecordPart):
    """How replies were generated.

    Attributes:
        max_out_len: Maximum tokens per reply, by task name where tasks differ.
        max_seq_len: Maximum tokens of a prompt and its reply together, as asked for.
        extra_body: Further fields of every request, such as ``top_k``.
        thinking: The marks around thinking that the model file declares.
    """

    temperature: StrictFloat
    max_out_len: StrictInt | dict[Text, StrictInt]
    max_seq_len: StrictInt | None
    extra_body: dict[str, Any] = Field(default_factory=dict)
    thinking: tuple[Text, Text] | None = None


class ContextRecord(RecordPart):
    """What prompts and replies had to fit.

    Attributes:
        max_tokens: Maximum tokens of a prompt and its reply together.
        set_by: What says so, such as ``--session-len``: of all that do, the smallest counts.
        counted_with: The vocabulary that tokens were counted with, or how they were estimated; None if all prompts were
            so short that none had to be counted.
    """

    max_tokens: StrictInt
    set_by: Text
    counted_with: Text | None


class TemplateRecord(RecordPart):
    """Whether a server builds prompts as the checkpoint's chat template and tokenizer do.

    Attributes:
        checked: How many prompts were compared, by their numbers of tokens.
        equal: Whether all of them were equal; None if none could be compared.
        note: Anything else, such as why none could be compared.
    """

    checked: StrictInt
    equal: StrictBool | None
    note: Text | None = None


class CommandRecord(RecordPart):
    """How a run was started from the command line.

    Attributes:
        arguments: What followed ``bundle``.
        directory: The working directory, which names of files depend on.
    """

    arguments: Annotated[tuple[Text, ...], Field(min_length=1)]
    directory: Text


class RunRecord(RecordPart):
    """The content of ``run.json``.

    Attributes:
        task: Names of all tasks, separated by commas.
        context: What prompts and replies had to fit; None where no limit is known.
        template: Of a local server; None before its first question.
        adaptive: Whether concurrency was reduced to what the server has room for.
        full_replies: Whether replies were generated completely even if the answer was final before.
        prefix_order: Whether questions were ordered for the server's prefix cache.
        versions: Of this program, Python and the packages a result can depend on.
        replicas: How many servers were asked at once; None for one. A resume may ask another number.
        command: What `bundle resume` repeats; None if a secret was on the command line.
    """

    task: Text
    data: DataRecord
    tasks: Annotated[tuple[TaskRecord, ...], Field(min_length=1)]
    model: RemoteModelRecord | LocalModelRecord
    engine: EngineRecord | None = None
    requests: RequestsRecord | None = None
    sampling: SamplingRecord
    context: ContextRecord | None = None
    template: TemplateRecord | None = None
    concurrency: StrictInt
    adaptive: StrictBool
    full_replies: StrictBool
    prefix_order: StrictBool
    versions: dict[str, str]
    hardware: HardwareRecord
    replicas: int | None = None
    command: CommandRecord | None = None

    @classmethod
    def of(
        cls,
        tasks: Sequence[TaskRecord],
        tables: Sequence[Tables],
        served: Served,
        sampling: SamplingRecord,
        **options: Any,
    ) -> Self:
        """Describe a run of this program on this machine."""
        return cls(
            task=",".join(task.name for task in tasks),
            data=DataRecord.of(tables),
            tasks=tuple(tasks),
            model=served.model,
            engine=served.engine,
            requests=served.requests,
            sampling=sampling,
            versions=versions(),
            hardware=hardware(),
            **options,
        )

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read the record of the run in ``directory``. Raises RunError if it is missing or damaged."""
        return cls.from_file(directory / RECORD, DAMAGED)

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in self.model_dump().items() if value is not None}

    @property
    def served(self) -> Served:
        return Served(self.model, self.engine, self.requests)

    @property
    def scored_tasks(self) -> tuple[ScoredTask, ...]:
        """What the scores of the tasks depend on, in the order they were asked."""
        return tuple(task.scored for task in self.tasks)

    @property
    def options(self) -> dict[str, str]:
        """The options that each task's questions have, as far as the task says so."""
        return {task.name: known_options(task.benchmark, task.answer) for task in self.tasks}
