"""The machine: system, packages, GPUs, and the engine that a run would choose."""

import os
import platform
import re
import sys
from collections.abc import Collection, Iterator
from typing import Final

from bundle.doctor.processes import ProcessesUnknownError, marked_processes
from bundle.errors import UsageError
from bundle.serving.engines import automatic_engine
from bundle.serving.environments import problems, required
from bundle.serving.gpu_locks import holder
from bundle.serving.gpus import GpuProcess, Nvidia, gib, list_processes, visible_gpus
from bundle.serving.machine import Machine
from bundle.serving.missing_gpus import why_no_gpu
from bundle.system.findings import Finding, failing, ok, warning
from bundle.system.processes import describe

_SHOWN: Final = ("openai", "huggingface-hub", "datasets")
_OLDEST_GLIBC: Final = (2, 28)
# InternLM2.5-1.8B: 3.5 GiB of weights, and the 2 GiB that lmdeploy's engine needs beside them.
_SMALL_MODEL_MIB: Final = 5632


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
    none = why_no_gpu(machine.nvidia)
    if none is None:
        yield from _visibility(machine.nvidia)
    elif not none.serve_on_cpu:
        longer = " --time-limit SECONDS waits longer." if "did not answer" in none.why else ""
        yield failing(none.why, f"{none.remedy or ''}{longer} `--engine transformers` serves on the CPU.".strip())
    elif none.remedy is not None:
        yield warning(f"{none.why}, so checkpoints are served on the CPU", none.remedy)
    else:
        yield ok(f"{none.why}: checkpoints are served on the CPU, which is slow")


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
    roomy = any(gpu.free_mib is None or gpu.free_mib >= _SMALL_MODEL_MIB for gpu in usable)
    for gpu in usable:
        text = f"GPU {gpu.device}: {gpu.free}"
        run = holder(gpu)
        details = [] if run is None else [f"in use by a run: {run}"]
        details += [_user(one, ours, orphans) for one in users if one.gpu_uuid == gpu.uuid]
        if roomy:
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
    try:
        name, why_cpu = automatic_engine(machine)
    except UsageError as error:
        yield failing(f"--engine auto starts nothing. {error.message}", "See above; or use `--engine transformers`.")
        return
    why = why_cpu or f"GPU available ({visible_gpus(machine.gpus)[0].name})"
    yield ok(f"--engine auto chooses {name}: {why}")


def _visibility(nvidia: Nvidia) -> Iterator[Finding]:
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return
    numbers = ", ".join(gpu.device for gpu in visible_gpus(nvidia.gpus))
    yield ok(f"CUDA_VISIBLE_DEVICES={value!r} leaves GPU {numbers} of {len(nvidia.gpus)}")


def _user(process: GpuProcess, ours: Collection[int], orphans: Collection[int]) -> str:
    whose = " (left behind by an earlier run)" if process.pid in orphans else ""
    whose = " (a run in progress)" if process.pid in ours else whose
    used = gib(process.used_mib) if process.used_mib is not None else "an unknown amount"
    return f"{used}: {describe(process.pid)}{whose}"
