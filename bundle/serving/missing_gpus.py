"""Why there is no GPU to serve on: none is there, all are hidden, or one is there that cannot be used.

The last is never answered with the CPU: hours later the user would find a run that crawled beside an idle GPU.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bundle.errors import UsageError
from bundle.serving.gpus import Gpu, Nvidia, visible_gpus

_ON_PURPOSE: Final = {"", "-1", "none", "void", "nodevfiles"}
"""What people set CUDA_VISIBLE_DEVICES to so that nothing runs on a GPU."""

_PCI_DEVICES: Final = Path("/sys/bus/pci/devices")
_NVIDIA: Final = "0x10de"
_DEVICE_FILES: Final = Path("/dev")
"""Some sandboxes (gVisor) show no PCI devices, but the driver's files ``nvidia0``, …"""
_SMI_OF_WSL: Final = Path("/usr/lib/wsl/lib/nvidia-smi")
"""Under WSL the GPU is no PCI device; Windows' driver brings this."""

# What ``nvidia-smi`` prints where it was installed without a GPU, as on login nodes; in small letters.
_NO_DRIVER: Final = ("communicate with the nvidia driver", "libnvidia-ml", "no devices were found", "no output")
_REMEDIES: Final = {
    "did not answer": "A driver that hangs usually needs a reboot (see `dmesg | grep -i nvrm`). If it is only slow, "
    "`sudo nvidia-smi -pm 1` keeps it awake.",
    "lost": "Reboot; if the GPU is lost again, see `dmesg | grep -i xid`.",
    "version mismatch": "The driver was updated under the running kernel module: reboot.",
    "communicate with the nvidia driver": "The kernel module is not loaded: `sudo modprobe nvidia`, or reinstall the "
    "driver; then reboot.",
}
_NAME_IT: Final = "Make nvidia-smi work; where CUDA works without it, name the GPU: `--engine lmdeploy --gpu 0`."


@dataclass(frozen=True, slots=True)
class NoGpu:
    """Why there is no GPU to serve on.

    Attributes:
        why: What is the matter, as a clause.
        remedy: What to do about it, as a sentence; None if there is nothing to do.
        serve_on_cpu: Whether ``--engine auto`` may take the CPU: there is no GPU, or the user hides them all. Else
            there is one that cannot be used.
    """

    why: str
    remedy: str | None
    serve_on_cpu: bool


def why_no_gpu(nvidia: Nvidia) -> NoGpu | None:
    """Why no GPU can be served on; None if there is one."""
    if visible_gpus(nvidia.gpus):
        return None
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    if value is not None and _hides_all(value) and (nvidia.gpus or _is_plugged_in()):
        return NoGpu(f"CUDA_VISIBLE_DEVICES={value!r} hides every GPU", "`unset CUDA_VISIBLE_DEVICES`.", True)
    if nvidia.error is not None:
        return _broken(nvidia.error)
    if nvidia.gpus:
        there = ", ".join(gpu.device for gpu in nvidia.gpus)
        return NoGpu(
            f"CUDA_VISIBLE_DEVICES={value!r} names no GPU that nvidia-smi lists ({there})",
            "`unset CUDA_VISIBLE_DEVICES`, or set it to one of these.",
            False,
        )
    if not _is_plugged_in():
        smi = "nvidia-smi lists none" if nvidia.installed else "no nvidia-smi"
        return NoGpu(f"no NVIDIA GPU found ({smi})", None, True)
    if nvidia.installed:
        return NoGpu("nvidia-smi does not list this machine's NVIDIA GPU", "See `dmesg | grep -i nvrm`.", False)
    if _SMI_OF_WSL.exists():
        return NoGpu("nvidia-smi is not on PATH", f"`export PATH=$PATH:{_SMI_OF_WSL.parent}`.", False)
    return NoGpu(
        "this machine has an NVIDIA GPU but no nvidia-smi",
        "Install NVIDIA's driver, or put its nvidia-smi on PATH; in a container, start it with `--gpus all`.",
        False,
    )


def require_gpus(nvidia: Nvidia, engine: str, wanted: str | None) -> list[Gpu]:
    """The GPUs that may be used by an engine that needs one.

    Where ``nvidia-smi`` fails, GPUs that the user names are taken at their word: NVML may fail where CUDA works. Raises
    UsageError if there are none.
    """
    if allowed := visible_gpus(nvidia.gpus):
        return allowed
    none = why_no_gpu(nvidia)
    assert none is not None
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "") if wanted is None else wanted
    if nvidia.error is not None and not _hides_all(names):
        return [Gpu(None, name.strip(), "not seen by nvidia-smi") for name in names.split(",")]
    raise UsageError(
        f"{engine} needs an NVIDIA GPU: {none.why}.",
        remedy=f"{none.remedy or ''} Or serve on the CPU with --engine transformers.".strip(),
    )


def _hides_all(value: str) -> bool:
    return value.partition(",")[0].strip().lower() in _ON_PURPOSE


def _is_plugged_in() -> bool:
    """Whether there is an NVIDIA graphics device, as far as Linux shows."""
    if _SMI_OF_WSL.exists() or any(_DEVICE_FILES.glob("nvidia[0-9]*")):
        return True
    for device in _PCI_DEVICES.glob("*"):
        with contextlib.suppress(OSError):
            vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
            if vendor == _NVIDIA and kind.startswith("0x03"):
                return True
    return False


def _broken(error: str) -> NoGpu:
    said = error.lower()
    remedy = next((remedy for sign, remedy in _REMEDIES.items() if sign in said), _NAME_IT)
    no_driver = any(sign in said for sign in _NO_DRIVER)
    return NoGpu(f"nvidia-smi {error}", remedy, no_driver and not _is_plugged_in())
