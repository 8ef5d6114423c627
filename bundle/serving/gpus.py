"""The NVIDIA GPUs of this machine, as ``nvidia-smi`` (NVML's own command line) reports them."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bundle.errors import UsageError
from bundle.system.child_environment import without_keys

_TIMEOUT_S = 30.0

GPU_QUERY = "--query-gpu=index,uuid,name,memory.total,memory.free,driver_version"
PROCESS_QUERY = "--query-compute-apps=gpu_uuid,pid,process_name,used_memory"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU.

    Attributes:
        index: Its number in PCI order, as in ``nvidia-smi``.
        uuid: Its name for good.
        name: The product's name.
        total_mib: All its memory, in MiB.
        free_mib: What is free of it now, in MiB.
        driver: Version of the driver.
    """

    index: int
    uuid: str
    name: str
    total_mib: int
    free_mib: int
    driver: str


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that holds GPU memory."""

    gpu_uuid: str
    pid: int
    name: str
    used_mib: int | None


def list_gpus() -> list[Gpu]:
    """The machine's GPUs in PCI order; none where there is no working driver."""
    return parse_gpus(_query(GPU_QUERY))


def list_processes() -> list[GpuProcess]:
    """The processes that hold memory on any GPU, as far as the driver tells."""
    return parse_processes(_query(PROCESS_QUERY))


def parse_gpus(rows: Sequence[Sequence[str]]) -> list[Gpu]:
    """The GPUs in an answer to ``GPU_QUERY``; those that do not tell their memory are left out."""
    return [
        Gpu(int(index), uuid, name, int(total), int(free), driver)
        for index, uuid, name, total, free, driver in (row for row in rows if len(row) == 6)
        if total.isdigit() and free.isdigit()
    ]


def parse_processes(rows: Sequence[Sequence[str]]) -> list[GpuProcess]:
    """The processes in an answer to ``PROCESS_QUERY``."""
    return [
        GpuProcess(uuid, int(pid), name, int(used) if used.isdigit() else None)
        for uuid, pid, name, used in (row for row in rows if len(row) == 4)
        if pid.isdigit()
    ]


def visible_gpus(gpus: Sequence[Gpu], environment: Mapping[str, str] = os.environ) -> list[Gpu]:
    """Those of ``gpus`` that ``CUDA_VISIBLE_DEVICES`` lets a program use, in its order; all where it is not set.

    As for CUDA, the first entry that names no GPU ends the list.
    """
    value = environment.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return list(gpus)
    chosen: list[Gpu] = []
    for entry in value.split(","):
        gpu = find_gpu(gpus, entry.strip())
        if gpu is None:
            break
        chosen.append(gpu)
    return chosen


def select_gpus(gpus: Sequence[Gpu], wanted: str | None, count: int) -> list[Gpu]:
    """The GPUs to serve on.

    Args:
        gpus: Those that may be used.
        wanted: As in ``--gpu``: numbers or UUIDs separated by commas; None for the ones with the most free memory.
        count: How many the server needs.

    Raises:
        UsageError: ``wanted`` names a GPU that is not there, or there are too few.
    """
    if wanted is not None:
        chosen = [find_gpu(gpus, entry.strip()) for entry in wanted.split(",")]
        if None in chosen or not chosen:
            there = ", ".join(str(gpu.index) for gpu in gpus) or "none"
            raise UsageError(f"--gpu {wanted}: there is no such GPU.", remedy=f"GPUs to choose from: {there}.")
        return [gpu for gpu in chosen if gpu is not None]
    if len(gpus) < count:
        raise UsageError(f"The server is to use {count} GPUs, and {len(gpus)} may be used.", remedy="Lower --tp.")
    return sorted(gpus, key=lambda gpu: -gpu.free_mib)[:count]


def find_gpu(gpus: Sequence[Gpu], name: str) -> Gpu | None:
    """The GPU with this number, or whose UUID starts so."""
    for gpu in gpus:
        if name == str(gpu.index) or (name.startswith("GPU-") and gpu.uuid.startswith(name)):
            return gpu
    return None


class NvidiaSmiError(Exception):
    """``nvidia-smi`` is there and does not tell what it is asked. The text says what it does instead."""


def ask_nvidia_smi(query: str, timeout_s: float = _TIMEOUT_S) -> list[list[str]] | None:
    """The cells of the table that ``nvidia-smi`` answers a query with; None where there is no ``nvidia-smi``.

    Raises:
        NvidiaSmiError: It fails, or does not answer in time.
    """
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    try:
        result = subprocess.run(
            [command, query, "--format=csv,noheader,nounits"],
            env=without_keys(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NvidiaSmiError(f"did not answer within {timeout_s:g} s") from None
    except OSError as error:
        raise NvidiaSmiError(f"cannot be run: {error.strerror}") from None
    if result.returncode != 0:
        # It explains itself on standard output.
        said = " ".join(f"{result.stdout} {result.stderr}".split())
        raise NvidiaSmiError(f"failed with status {result.returncode}: {said or 'it says nothing'}")
    return [[cell.strip() for cell in line.split(",")] for line in result.stdout.splitlines() if line.strip()]


def _query(query: str) -> list[list[str]]:
    try:
        return ask_nvidia_smi(query) or []
    except NvidiaSmiError:
        return []
