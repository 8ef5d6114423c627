"""``run.json``: what a run asked, of which model, with which data, settings and versions."""

import contextlib
import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from pydantic import Field, StrictBool, StrictFloat, StrictInt

from bundle.runs.files import DAMAGED, RECORD
from bundle.runs.task_record import RecordPart, TaskRecord, Text
from bundle.system.files import model_name
from bundle.tasks.scores import ScoredTask
from bundle.tasks.sources import Tables
from bundle.version import __version__

_PACKAGES = ("openai", "datasets", "lmdeploy", "transformers", "torch")


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


class RemoteModelRecord(RecordPart):
    """A model served elsewhere.

    ``headers``: further headers of every request; of a secret one only the variable that holds it, as in "$NAME".
    """

    name: Text
    base_url: Text
    headers: dict[Text, Text] = Field(default_factory=dict)

    @property
    def directory(self) -> None:
        """It is not here."""


class LocalModelRecord(RecordPart):
    """A checkpoint served here.

    ``adapter`` is the directory of the LoRA adapter that was merged into it; None if there was none.
    """

    path: Text
    architecture: Text
    weight_bytes: StrictInt
    quantization: Text | None
    fingerprint: str
    adapter: Text | None = None

    @property
    def name(self) -> str:
        """The name of the model in the checkpoint's directory, or of its adapter."""
        return model_name(self.adapter or self.path)

    @property
    def directory(self) -> Path | None:
        return Path(self.adapter or self.path)


class EngineRecord(RecordPart):
    """The inference engine of a local server.

    Attributes:
        arguments: What followed ``--``.
        file_arguments: What the model file gives it besides; none in older records.
        file_environment: The variables that the model file sets, without keys; likewise.
        dtype: What it computed in, as far as this program chose it.
        backend: Which of the engine's backends, likewise.
        gpus: Product names of the GPUs it was started on; none on the CPU, and in older records.
    """

    name: str
    version: str
    arguments: tuple[Text, ...]
    file_arguments: tuple[Text, ...] = ()
    file_environment: dict[Text, Text] = Field(default_factory=dict)
    dtype: str | None = None
    backend: str | None = None
    gpus: tuple[Text, ...] = ()


class RequestsRecord(RecordPart):
    """How a remote server was asked."""

    qps: StrictFloat | None
    retries: StrictInt
    timeout_s: StrictFloat


class Served(NamedTuple):
    """A model, and its engine or how it was asked."""

    model: RemoteModelRecord | LocalModelRecord
    engine: EngineRecord | None = None
    requests: RequestsRecord | None = None


class SamplingRecord(RecordPart):
    """How replies were generated.

    Attributes:
        max_out_len: Maximum tokens per reply, by task name where tasks differ.
        max_seq_len: Maximum tokens of a prompt and its reply together, as asked for.
        extra_body: Further fields of every request, such as ``top_k``.
        thinking: The marks around thinking that the model file declares.
        prompt_date: The day on which the prompts were made, if the chat template makes others on other days.
    """

    temperature: StrictFloat
    max_out_len: StrictInt | dict[Text, StrictInt]
    max_seq_len: StrictInt | None
    extra_body: dict[str, Any] = Field(default_factory=dict)
    thinking: tuple[Text, Text] | None = None
    prompt_date: Text | None = None


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


class HardwareRecord(RecordPart):
    system: str
    processor: str
    cores: StrictInt | None


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


def versions() -> dict[str, str]:
    found = {"bundle": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def hardware() -> HardwareRecord:
    # `platform.processor` starts a program to find out.
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return HardwareRecord(
        system=platform.platform(), processor=next(names, "") or platform.machine(), cores=os.cpu_count()
    )
