"""``gpus.jsonl``: how busy the GPUs of a local server were while it was asked, one row per GPU and moment."""

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import Field, StrictFloat, StrictInt, ValidationError

from bundle.errors import RunError
from bundle.runs.files import GPUS, read_lines
from bundle.runs.task_record import RecordPart
from bundle.system.files import open_for_writing

_MOST_ROWS = 200_000
_RECENT_S = 30.0


class GpuLoad(RecordPart):
    """What a GPU did at one moment.

    Attributes:
        at: Seconds since the epoch.
        gpu: Its number in PCI order, as in ``nvidia-smi``.
        utilization: Percent of the time just before in which a kernel ran on it; None where the driver does not say.
        used_mib: Memory in use, whoever uses it; None likewise.
        total_mib: All its memory; None likewise.
    """

    at: Annotated[StrictFloat, Field(allow_inf_nan=False)]
    gpu: StrictInt
    utilization: Annotated[StrictInt, Field(ge=0, le=100)] | None
    used_mib: Annotated[StrictInt, Field(ge=0)] | None
    total_mib: Annotated[StrictInt, Field(ge=0)] | None


def append_gpu_loads(directory: Path, loads: Iterable[GpuLoad]) -> None:
    """Append rows to a run's file. Where that fails, they are lost: nothing depends on them."""
    with contextlib.suppress(OSError):
        descriptor = open_for_writing(directory / GPUS, os.O_CREAT | os.O_APPEND)
        with os.fdopen(descriptor, "ab", buffering=0) as file:
            file.write("".join(f"{one.model_dump_json()}\n" for one in loads).encode())


def read_gpu_loads(directory: Path) -> list[GpuLoad]:
    """The rows of a run, in the order of their time; without those that are damaged."""
    loads = []
    try:
        for line, _ in zip(read_lines(directory / GPUS), range(_MOST_ROWS), strict=False):
            with contextlib.suppress(ValidationError):
                loads.append(GpuLoad.model_validate_json(line))
    except (FileNotFoundError, RunError):
        pass
    return sorted(loads, key=lambda one: one.at)


def recent_utilization(directory: Path) -> float | None:
    """The mean utilization of a run's GPUs over the last half minute, in percent; None where it is not known."""
    recent = [one.utilization for one in read_gpu_loads(directory) if one.at > time.time() - _RECENT_S]
    known = [busy for busy in recent if busy is not None]
    return sum(known) / len(known) if known else None
