"""The machine: system, packages, GPUs, and the engine that a run would choose."""

import contextlib
import os
import platform
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from bundle.doctor.processes import ProcessesUnknownError, describe, marked_processes
from bundle.serving.engines import automatic_engine
from bundle.serving.environments import problems, required
from bundle.serving.gpus import GpuProcess, Nvidia, gib, list_processes, visible_gpus
from bundle.serving.machine import Machine
from bundle.system.findings import Finding, failing, ok, warning

_SHOWN: Final = ("openai", "huggingface-hub", "datasets")
_OLDEST_GLIBC: Final = (2, 28)
# InternLM2.5-1.8B: 3.5 GiB of weights, and the 2 GiB that lmdeploy's engine needs beside them.
_SMALL_MODEL_MIB: Final = 5632

_STUCK: Final = (
    "A driver that hangs usually needs a reboot (see `dmesg | grep -i nvrm`). If it is only slow, "
    "`sudo nvidia-smi -pm 1` keeps it awake, and --time-limit SECONDS waits longer."
)


def check_system() -> Iterator[Finding]:
    """The system and Python, and whether there are wheels of lmdeploy for them."""
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    if sys.platform != "linux":
        yield ok(f"{system}: checkpoints are served on the CPU (lmdeploy needs Linux)")
        return
    libc, version = platform.libc_ver()
    if libc == "glibc":
        system += f", glibc {version}"
    # PyPI: lmdeploy 0.12 to 0.18 has wheels for manylinux on x86_64 alone, since 0.15 for manylinux_2_28.
    if platform.machine() != "x86_64":
        yield warning(
            f"{system}: PyPI has no lmdeploy for {platform.machine()}",
            "Build lmdeploy from source, or serve on the CPU with `--engine transformers`.",
        )
    elif libc != "glibc":
        yield warning(
            f"{system}: PyPI has no lmdeploy for a system without glibc", "Use another system or container image."
        )
    elif tuple(int(number) for number in re.findall(r"\d+", version)[:2]) < _OLDEST_GLIBC:
        yield warning(
            f"{system}: lmdeploy 0.15 and newer, and torch 2.6 and newer, need glibc 2.28",
            "Use a container image with a newer system.",
        )
    else:
        yield ok(system)


def check_packages(machine: Machine) -> Iterator[Finding]:
    """What this program always requires."""
    ours = machine.environment(sys.executable)
    found = problems(required(), ours)
    remedy = "Install the right versions with `pip install .` in a checkout of this project."
    if any("not installed" in one for one in found):
        yield failing("; ".join(found), remedy)
    elif found:
        yield warning("; ".join(found), remedy)
    else:
        yield ok(", ".join(f"{name} {ours.versions[name]}" for name in _SHOWN if name in ours.versions))


def check_gpus(machine: Machine) -> Iterator[Finding]:
    """Whether ``nvidia-smi`` works, and which of its GPUs may be used."""
    nvidia = machine.nvidia
    if not nvidia.installed:
        yield _without_nvidia_smi()
    elif nvidia.error is not None:
        yield _broken(nvidia.error)
    elif not nvidia.gpus and not nvidia.silent:
        yield warning("nvidia-smi finds no GPU: checkpoints are served on the CPU, which is slow", None)
    else:
        for name in nvidia.silent:
            yield warning(f"{name} does not report its memory, so lmdeploy is not started on it", None)
        yield from _visibility(nvidia)


def check_gpu_memory(machine: Machine) -> Iterator[Finding]:
    """How much memory of each usable GPU is free, and what uses the rest."""
    usable = visible_gpus(machine.gpus)
    if not usable:
        return
    try:
        marked = marked_processes()
    except ProcessesUnknownError:
        marked = []
    ours = {one.pid for one in marked if not one.orphaned}
    orphans = {one.pid for one in marked if one.orphaned}
    users = list_processes(machine.limit_s)
    roomy = any(gpu.free_mib >= _SMALL_MODEL_MIB for gpu in usable)
    for gpu in usable:
        text = f"GPU {gpu.index}: {gib(gpu.free_mib)} of {gib(gpu.total_mib)} free"
        details = [_user(one, ours, orphans) for one in users if one.gpu_uuid == gpu.uuid]
        if roomy or gpu.free_mib >= _SMALL_MODEL_MIB:
            yield ok(text, details)
        else:
            yield warning(
                f"{text}; even InternLM2.5-1.8B needs about {gib(_SMALL_MODEL_MIB)}",
                "Stop what uses it, or wait for it."
                + (" `bundle doctor --clean` ends what earlier runs left behind." if orphans else ""),
                details or ["the driver does not report what uses it"],
            )


def check_engine(machine: Machine) -> Iterator[Finding]:
    """What ``--engine auto`` chooses, and why."""
    nvidia, usable = machine.nvidia, visible_gpus(machine.gpus)
    if usable:
        why = f"there is a GPU it may use ({usable[0].name})"
    elif nvidia.error is not None:
        why = "nvidia-smi reports no GPU"
    elif nvidia.gpus:
        why = "CUDA_VISIBLE_DEVICES hides every GPU"
    else:
        why = "there is no NVIDIA GPU"
    yield ok(f"--engine auto chooses {automatic_engine(machine)}: {why}")


def _without_nvidia_smi() -> Finding:
    if _device_without_driver():
        return warning(
            "there is an NVIDIA GPU but no nvidia-smi, so checkpoints are served on the CPU",
            "Install NVIDIA's driver, or put its nvidia-smi on PATH; in a container, start it with `--gpus all`.",
        )
    return ok("no NVIDIA GPU (no nvidia-smi): checkpoints are served on the CPU, which is slow")


def _device_without_driver() -> bool:
    """Whether an NVIDIA graphics device is plugged in, as far as Linux tells."""
    for device in Path("/sys/bus/pci/devices").glob("*"):
        with contextlib.suppress(OSError):
            vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
            if vendor == "0x10de" and kind.startswith("0x03"):
                return True
    return False


def _broken(error: str) -> Finding:
    if "did not answer" in error:
        return failing(f"nvidia-smi {error}", _STUCK)
    if "version mismatch" in error.lower():
        remedy = "The driver was updated under the running kernel module: reboot."
    elif "communicate with the nvidia driver" in error.lower():
        remedy = "The kernel module is not loaded: `sudo modprobe nvidia`, or reinstall the driver; then reboot."
    else:
        remedy = "Until nvidia-smi works, checkpoints are served on the CPU."
    return failing(f"nvidia-smi {error}", remedy)


def _visibility(nvidia: Nvidia) -> Iterator[Finding]:
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return
    visible = visible_gpus(nvidia.gpus)
    if not visible:
        yield warning(
            f"CUDA_VISIBLE_DEVICES={value!r} hides every GPU, so checkpoints are served on the CPU",
            "`unset CUDA_VISIBLE_DEVICES`, or set it to numbers that nvidia-smi lists.",
        )
    else:
        numbers = ", ".join(str(gpu.index) for gpu in visible)
        yield ok(f"CUDA_VISIBLE_DEVICES={value!r} leaves GPU {numbers} of {len(nvidia.gpus)}")


def _user(process: GpuProcess, ours: Collection[int], orphans: Collection[int]) -> str:
    whose = " (left behind by an earlier run)" if process.pid in orphans else ""
    whose = " (a run in progress)" if process.pid in ours else whose
    used = gib(process.used_mib) if process.used_mib is not None else "an unknown amount"
    return f"{used}: {describe(process.pid)}{whose}"
