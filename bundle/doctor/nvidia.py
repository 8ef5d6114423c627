"""What ``nvidia-smi`` tells, or why it tells nothing."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bundle.serving.gpus import (
    GPU_QUERY,
    PROCESS_QUERY,
    Gpu,
    GpuProcess,
    NvidiaSmiError,
    ask_nvidia_smi,
    parse_gpus,
    parse_processes,
)

_NVIDIA_VENDOR = "0x10de"
_DISPLAY_CLASS = "0x03"


@dataclass(frozen=True, slots=True)
class Nvidia:
    """The NVIDIA side of a machine.

    Attributes:
        installed: Whether there is an ``nvidia-smi``.
        error: What it does in place of answering; None where it answers.
        gpus: The GPUs that tell their memory.
        capabilities: UUID -> compute capability, where the driver tells it.
        silent: Names of the GPUs that do not tell their memory, and cannot be served on.
    """

    installed: bool
    error: str | None = None
    gpus: tuple[Gpu, ...] = ()
    capabilities: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    silent: tuple[str, ...] = ()


def ask_for_gpus(limit_s: float) -> Nvidia:
    """Ask ``nvidia-smi`` for the GPUs, waiting at most ``limit_s`` seconds for an answer."""
    try:
        try:
            rows = ask_nvidia_smi(f"{GPU_QUERY},compute_cap", limit_s)
        except NvidiaSmiError as error:
            if "compute_cap" not in str(error):
                raise
            rows = ask_nvidia_smi(GPU_QUERY, limit_s)  # a driver from before it told capabilities
    except NvidiaSmiError as error:
        return Nvidia(installed=True, error=str(error))
    if rows is None:
        return Nvidia(installed=False)
    gpus = parse_gpus([row[:6] for row in rows])
    capabilities = {}
    for row in rows:
        with contextlib.suppress(ValueError, IndexError):
            capabilities[row[1]] = tuple(map(int, row[6].split(".")))
    known = {gpu.uuid for gpu in gpus}
    silent = tuple(row[2] for row in rows if len(row) >= 6 and row[1] not in known)
    return Nvidia(True, None, tuple(gpus), capabilities, silent)


def ask_for_processes(limit_s: float) -> list[GpuProcess]:
    """The processes that hold GPU memory; none where nobody tells."""
    try:
        return parse_processes(ask_nvidia_smi(PROCESS_QUERY, limit_s) or [])
    except NvidiaSmiError:
        return []


def device_without_driver() -> bool:
    """Whether an NVIDIA graphics device is plugged in, as far as Linux tells."""
    for device in Path("/sys/bus/pci/devices").glob("*"):
        with contextlib.suppress(OSError):
            vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
            if vendor == _NVIDIA_VENDOR and kind.startswith(_DISPLAY_CLASS):
                return True
    return False
