"""The NVIDIA GPUs of this machine, as ``nvidia-smi`` (NVML's own command line) reports them."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bundle.errors import ServerError, UsageError
from bundle.system.guarded import ask_program

_ANSWER_S = 30.0
_GPU_QUERY = "--query-gpu=index,uuid,name,memory.total,memory.free,driver_version"
_PROCESS_QUERY = "--query-compute-apps=gpu_uuid,pid,process_name,used_memory"

_OVERHEAD_MIB = 2048
"""Beside its weights, a server needs the CUDA context, work space and a cache that holds a few long requests."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, or a part of one (MIG).

    Attributes:
        index: Its number in PCI order, as in ``nvidia-smi``; None for one that is known by its name alone.
        name: The product's name.
        total_mib: All its memory; None if unknown, as where it is the machine's own memory (GB10).
        free_mib: The free part of it; None if unknown.
        driver: The driver's version.
    """

    index: int | None
    uuid: str
    name: str
    total_mib: int | None = None
    free_mib: int | None = None
    driver: str = ""

    @property
    def device(self) -> str:
        """What it is called in ``CUDA_VISIBLE_DEVICES``, with devices in PCI order."""
        return self.uuid if self.index is None else str(self.index)

    @property
    def free(self) -> str:
        """How much of its memory is free, for people."""
        if self.free_mib is None:
            return "memory unknown"
        of = "" if self.total_mib is None else f" of {gib(self.total_mib)}"
        return f"{gib(self.free_mib)}{of} free"

    def __str__(self) -> str:
        return f"{self.device} ({self.name}, {self.free})"


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that uses GPU memory."""

    gpu_uuid: str
    pid: int
    name: str
    used_mib: int | None


@dataclass(frozen=True, slots=True)
class Nvidia:
    """What ``nvidia-smi`` says, or why it says nothing.

    Attributes:
        installed: Whether there is an ``nvidia-smi``.
        error: What it did instead of answering; None if it answered.
        capabilities: UUID -> compute capability, where the driver reports it.
    """

    installed: bool
    error: str | None = None
    gpus: tuple[Gpu, ...] = ()
    capabilities: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


class NvidiaSmiError(Exception):
    """``nvidia-smi`` is installed and doesn't answer. The text says what it does instead."""


def ask_for_gpus(limit_s: float = _ANSWER_S) -> Nvidia:
    """Ask ``nvidia-smi`` for the GPUs, waiting at most ``limit_s`` seconds for an answer."""
    try:
        try:
            rows = _ask(f"{_GPU_QUERY},compute_cap", limit_s)
        except NvidiaSmiError as error:
            if "compute_cap" not in str(error):
                raise
            rows = _ask(_GPU_QUERY, limit_s)  # a driver from before it reported capabilities
    except NvidiaSmiError as error:
        return Nvidia(installed=True, error=str(error))
    if rows is None:
        return Nvidia(installed=False)
    lost, gpus = [], []
    capabilities: dict[str, tuple[int, ...]] = {}
    for row in rows:
        if len(row) < 6 or not row[0].isdigit():
            continue
        index, uuid, name, total, free, driver = row[:6]
        if "lost" in name:  # "[GPU is lost]"
            lost.append(index)
            continue
        gpus.append(Gpu(int(index), uuid, name, _mib(total), _mib(free), driver))
        with contextlib.suppress(ValueError, IndexError):
            capabilities[uuid] = tuple(map(int, row[6].split(".")))
    none_left = f"says that it has lost GPU {', '.join(lost)}" if lost and not gpus else None
    return Nvidia(True, none_left, tuple(gpus), capabilities)


def list_processes(limit_s: float = _ANSWER_S) -> list[GpuProcess]:
    """The processes that use memory on any GPU, as far as the driver reports them."""
    try:
        rows = _ask(_PROCESS_QUERY, limit_s) or []
    except NvidiaSmiError:
        return []
    return [
        GpuProcess(uuid, int(pid), ", ".join(name), _mib(used))
        for uuid, pid, *name, used in (row for row in rows if len(row) >= 4)
        if pid.isdigit()
    ]


def visible_gpus(gpus: Sequence[Gpu], environment: Mapping[str, str] = os.environ) -> list[Gpu]:
    """Those of ``gpus`` that ``CUDA_VISIBLE_DEVICES`` lets a program use, in its order; all if it is not set.

    As in CUDA, the first entry that names no GPU ends the list. ``nvidia-smi`` does not list the parts of GPUs (MIG),
    so one of those is taken at its word.
    """
    value = environment.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return list(gpus)
    chosen: list[Gpu] = []
    for entry in value.split(","):
        gpu = _find_gpu(gpus, entry.strip())
        if gpu is None:
            break
        chosen.append(gpu)
    return chosen


def select_gpus(gpus: Sequence[Gpu], wanted: str | None, count: int) -> list[Gpu]:
    """Those of the GPUs that may be used to serve on, ``count`` of them unless the user has named some.

    ``wanted``, as in ``--gpu``, holds numbers or UUIDs separated by commas; None is for those with the most free
    memory. Raises UsageError if it names a GPU that does not exist, or there are too few.
    """
    chosen = sorted(gpus, key=lambda gpu: -(gpu.free_mib or 0))[:count]
    if wanted is not None:
        named = dict.fromkeys(_find_gpu(gpus, entry.strip()) for entry in wanted.split(","))
        chosen = [gpu for gpu in named if gpu is not None]
        if len(chosen) < len(named):
            there = ", ".join(gpu.device for gpu in gpus) or "none"
            raise UsageError(f"--gpu {wanted}: no such GPU.", remedy=f"Available GPUs: {there}.")
    if len(chosen) < count:
        remedy = f"{'Name as many, or lower' if wanted else 'Lower'} --tp (vLLM: --tensor-parallel-size)."
        raise UsageError(f"The server needs {count} GPUs, and only {len(chosen)} may be used.", remedy=remedy)
    return chosen


def groups_of(wanted: str, count: int) -> list[str]:
    """Divide what follows ``--gpu`` among servers that need ``count`` GPUs each; what is left over is not used."""
    names = wanted.split(",")
    return [",".join(names[start : start + count]) for start in range(0, len(names) - count + 1, count)] or [wanted]


def needed_mib(weight_bytes: int, gpus: int = 1) -> int:
    """About how many MiB of each GPU's memory a server takes that spreads a checkpoint over so many."""
    return weight_bytes // (2**20 * gpus) + _OVERHEAD_MIB


def require_memory(gpus: Sequence[Gpu], needed: int) -> None:
    """Raise ServerError if one of the GPUs has less than ``needed`` MiB free; the error says what uses it."""
    for gpu in gpus:
        if gpu.free_mib is None or gpu.free_mib >= needed:
            continue
        users = [
            f"  process {process.pid} ({process.name})"
            + (f" uses {gib(process.used_mib)}" if process.used_mib is not None else "")
            for process in list_processes()
            if process.gpu_uuid == gpu.uuid
        ]
        raise ServerError(
            f"GPU {gpu.device} ({gpu.name}) has {gpu.free}, and this checkpoint needs about {gib(needed)}.",
            remedy="Stop what uses it, or choose another GPU with --gpu.",
            details=users or ["  (the driver does not report what uses it)"],
        )


def _find_gpu(gpus: Sequence[Gpu], name: str) -> Gpu | None:
    """The GPU with this number, or whose UUID begins like this; or the part of one with this name."""
    for gpu in gpus:
        if name == gpu.device or (name.startswith("GPU-") and gpu.uuid.startswith(name)):
            return gpu
    return Gpu(None, name, "part of a GPU") if name.startswith("MIG-") else None


def _mib(cell: str) -> int | None:
    """An amount of memory; None for "[N/A]", "[Insufficient Permissions]" and the like."""
    return int(cell) if cell.isdigit() else None


def _ask(query: str, limit_s: float) -> list[list[str]] | None:
    """The cells of the table that ``nvidia-smi`` answers a query with; None if it is not installed.

    Raises NvidiaSmiError if it fails, or does not answer in time.
    """
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    try:
        result = ask_program([command, query, "--format=csv,noheader,nounits"], limit_s)
    except subprocess.TimeoutExpired:
        raise NvidiaSmiError(f"did not answer within {limit_s:g} s") from None
    except OSError as error:
        raise NvidiaSmiError(f"cannot be run: {error.strerror}") from None
    if result.returncode != 0:
        # It explains itself on standard output.
        output = " ".join(f"{result.stdout} {result.stderr}".split())
        raise NvidiaSmiError(f"failed with exit code {result.returncode}: {output or 'no output'}")
    return [[cell.strip() for cell in line.split(",")] for line in result.stdout.splitlines() if line.strip()]


def gib(mib: float) -> str:
    """MiB of GPU memory, in GiB."""
    return f"{mib / 1024:.1f} GiB"
