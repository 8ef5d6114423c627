"""What served a run, in ``run.json``: model, engine, versions and machine."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, StrictFloat, StrictInt

from bundle.runs.task_record import RecordPart, Text
from bundle.system.files import model_name
from bundle.version import __version__

_PACKAGES = ("openai", "datasets", "lmdeploy", "transformers", "torch")


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
        gpus: Product names of the GPUs it was started on; none on the CPU, and in older records.
    """

    name: str
    version: str
    arguments: tuple[Text, ...]
    file_arguments: tuple[Text, ...] = ()
    file_environment: dict[Text, Text] = Field(default_factory=dict)
    dtype: str | None = None
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


class HardwareRecord(RecordPart):
    system: str
    processor: str
    cores: StrictInt | None


def versions() -> dict[str, str]:
    found = {"bundle": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
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
