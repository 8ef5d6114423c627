"""What lmdeploy and its torch need of this machine: driver, GPUs, packages.

Where the numbers come from:

- The oldest driver of each CUDA: docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html, table 1
  (12.x: 525 or newer, 13.x: 580 or newer), and the CUDA Toolkit's release notes for the exact versions on Linux.
- TurboMind (lmdeploy's own engine) is built for CUDA 12: the wheels of 0.12 to 0.18 on PyPI require
  nvidia-cuda-runtime-cu12, and their README says "CUDA 12.8" since 0.13.
- torch on PyPI is built for CUDA 12.8 up to 2.10 and for CUDA 13.0 from 2.11 on, as its own requirements say
  (nvidia-cuda-runtime-cu12==12.8.90, cuda-toolkit==13.0.2), and lmdeploy takes it up to 2.12.1 since 0.16. CUDA 13
  has no code for Volta (7.0) any more: github.com/pytorch/pytorch/pull/175253.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

from bundle.errors import ServerError
from bundle.serving.environments import Environment, ProbeError, in_short, problems, required, required_by
from bundle.serving.gpus import Gpu, visible_gpus
from bundle.serving.lmdeploy.support import Version, dotted, has_turbomind_code
from bundle.serving.machine import Machine
from bundle.system.findings import SLOW, Check, Finding, failing, ok, warning

_OLDEST_DRIVER: Final = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}
"""On Linux, by the CUDA that a program was built for."""
_OLDEST_CAPABILITY: Final = (7, 0)
_OLDEST_CAPABILITY_CUDA_13: Final = (7, 5)
_CUDA_OF_NEW_TORCH: Final = "13.0"
"""What pip installs torch for unless something holds it back."""
_OLDER_TORCH: Final = "torch<2.11"
"""The newest torch that is built for CUDA 12.8, and so works with older drivers and Volta."""

_INSTALL: Final = "`pip install '.[gpu]'` in a checkout of this project"
_TOKENIZER_TRAP: Final = (
    "under transformers 5 the tokenizer code of InternLM2.5 silently drops spaces and newlines; "
    "a run with such a checkpoint is stopped before the first question"
)


def lmdeploy_checks(machine: Machine) -> tuple[Check, ...]:
    """The checks of driver and GPUs, of lmdeploy's packages, and of its torch."""
    return (
        Check("gpu", partial(check_gpus, machine), "nvidia-smi or torch", SLOW),
        Check("lmdeploy", partial(check_packages, machine), "lmdeploy's Python"),
        Check("torch", partial(check_torch, machine), "torch", SLOW),
    )


def check_gpus(machine: Machine) -> Iterator[Finding]:
    """The driver and each GPU, against what lmdeploy and its torch need."""
    nvidia = machine.nvidia
    if not nvidia.gpus:
        return
    cuda = version = None
    with suppress(ServerError, ProbeError):  # the check of its packages says so
        installed = _environment(machine)
        cuda, version = installed.cuda, installed.versions["lmdeploy"]
    yield _check_driver(machine, nvidia.gpus[0].driver, cuda)
    for gpu in nvidia.gpus:
        yield _check_gpu(gpu, nvidia.capabilities.get(gpu.uuid), cuda, version)


def check_packages(machine: Machine) -> Iterator[Finding]:
    """lmdeploy, and what it requires beside it."""
    try:
        found = machine.installation("lmdeploy")
    except ServerError as error:
        if visible_gpus(machine.gpus):
            yield failing(error.message, f"Install it with {_INSTALL}, or serve with `--engine transformers`.")
        else:
            yield ok(f"{error.message} It only helps with an NVIDIA GPU")
        return
    try:
        beside = _environment(machine)
    except ProbeError as error:
        yield failing(f"lmdeploy's Python {error}", "Fix its environment, or make a new one.")
        return
    named = f"lmdeploy {found.version}" + ("" if found.interpreter == sys.executable else f" in {found.interpreter}")
    for package in ("torch", "transformers"):
        if package in beside.versions:
            named += f", {package} {beside.versions[package]}"
    is_trap = (_numbers(beside.versions.get("transformers", "")) or (0,))[0] >= 5
    ours = [one for one in required("gpu") if not (is_trap and one.name == "transformers")]
    wrong = problems([*required_by("lmdeploy", beside), *ours], beside)
    if wrong:
        yield warning(f"{named}: {in_short(wrong)}", f"Install matching versions with {_INSTALL}.")
    elif not is_trap:
        yield ok(named)
    if is_trap:
        yield warning(
            f"{named}: {_TOKENIZER_TRAP}",
            f"`{found.interpreter} -m pip install 'transformers>=4.56,<5'`, unless no checkpoint contains such code.",
        )


def check_torch(machine: Machine) -> Iterator[Finding]:
    """Whether the torch beside lmdeploy finds the GPUs and has code for them."""
    usable = visible_gpus(machine.gpus)
    if not usable:
        return
    try:
        seen = machine.torch(machine.installation("lmdeploy").interpreter)
    except ServerError:
        return  # the check of its packages says so
    except ProbeError as error:
        yield failing(
            f"the torch beside lmdeploy {error}",
            "Fix lmdeploy's environment; if its disk is only slow, allow more time with --time-limit SECONDS.",
        )
        return
    torch, cuda, count, why = seen["torch"], seen["cuda"], seen["devices"], seen["why"]
    again = "`pip install --force-reinstall torch` in lmdeploy's environment"
    name = f"torch {torch} (CUDA {cuda})"
    if torch is None:
        yield failing(f"torch cannot be imported beside lmdeploy: {why or 'not installed'}", f"Try {again}.")
    elif cuda is None:
        yield failing(
            f"torch {torch} beside lmdeploy is built without CUDA",
            f"Install the one from PyPI: {again}, without an --index-url for CPU.",
        )
    elif not count:
        yield failing(
            f"{name} finds no GPU{': ' + why if why else ''}",
            "Update the driver, or install a torch for an older CUDA. In a container, pass the GPUs (`--gpus all`).",
        )
    elif uncovered := _uncovered(seen["architectures"], machine):
        yield failing(f"{name} has no code for {uncovered}", "Install a torch that is built for this GPU.")
    elif count < len(usable):
        yield warning(
            f"{name} finds {count} of {len(usable)} GPUs", "See `dmesg | grep -i nvrm` for the one that is missing."
        )
    else:
        yield ok(f"{name} finds {count} GPU{'' if count == 1 else 's'}")


def _environment(machine: Machine) -> Environment:
    """What is installed beside lmdeploy. Raises ServerError if it is not installed; ProbeError if that is unknown."""
    installed = machine.installation("lmdeploy")
    found = machine.environment(installed.interpreter)
    # One that pip knows nothing of counts, too.
    return replace(found, versions={"lmdeploy": installed.version, **found.versions})


def _check_driver(machine: Machine, driver: str, cuda: str | None) -> Finding:
    wanted = cuda or _CUDA_OF_NEW_TORCH
    whose = f"the installed torch is built for CUDA {wanted}" if cuda else f"torch from PyPI is built for CUDA {wanted}"
    oldest = _OLDEST_DRIVER.get((_numbers(wanted) or (0,))[0])
    if oldest is None:
        return ok(f"driver {driver}; {whose}, whose needs are unknown")
    if _numbers(driver) >= _numbers(oldest):
        return ok(f"driver {driver}; {whose}, which needs {oldest} or newer")
    if cuda is not None and _torch_finds_gpus(machine):
        return ok(f"driver {driver} with NVIDIA's forward compatibility; {whose}, and finds the GPUs")
    remedy = f"Update the driver to {oldest} or newer."
    if wanted.startswith("13") and _numbers(driver) >= _numbers(_OLDEST_DRIVER[12]):
        remedy += (
            f" Or install `{_OLDER_TORCH}`, which is built for CUDA 12.8 and works with this driver: "
            f"`pip install '{_OLDER_TORCH}'` before or after lmdeploy."
        )
    return failing(f"driver {driver} is too old: {whose}, which needs {oldest} or newer", remedy)


def _check_gpu(gpu: Gpu, capability: Version | None, cuda: str | None, lmdeploy: str | None) -> Finding:
    name = f"GPU {gpu.index}: {gpu.name}"
    if capability is None:
        return ok(f"{name}; its driver does not report its compute capability (7.0 is needed)")
    name += f", compute capability {dotted(capability)}"
    if capability < _OLDEST_CAPABILITY:
        return failing(
            f"{name}: lmdeploy has code for 7.0 and newer only",
            "Hide it with CUDA_VISIBLE_DEVICES, or use `--engine transformers`.",
        )
    wanted = cuda or _CUDA_OF_NEW_TORCH
    if capability < _OLDEST_CAPABILITY_CUDA_13 and wanted.startswith("13"):
        return failing(
            f"{name}: torch for CUDA {wanted} has no code for it",
            f"Install the last one that has: `pip install '{_OLDER_TORCH}'`.",
        )
    version = _numbers(lmdeploy)[:2] if lmdeploy else (0, 18)
    if not has_turbomind_code(capability, version):
        return ok(f"{name}: the TurboMind of lmdeploy {dotted(version)} has no code for it; its PyTorch engine serves")
    return ok(name)


def _torch_finds_gpus(machine: Machine) -> bool:
    """Whether the torch beside lmdeploy does. Takes seconds."""
    try:
        return bool(machine.torch(machine.installation("lmdeploy").interpreter)["devices"])
    except (ServerError, ProbeError):
        return False


def _uncovered(architectures: list[str], machine: Machine) -> str | None:
    """The first visible GPU that none of torch's ``sm_90`` and ``compute_90`` has code for; None if all are covered.

    Machine code (sm) runs within its major version, what is compiled at run time (compute) on everything newer.
    """
    built = [name.rstrip("af").rpartition("_") for name in architectures]
    numbers = [(kind, int(digits[:-1] or 0), int(digits[-1])) for kind, _, digits in built if digits.isdigit()]
    for gpu in visible_gpus(machine.gpus):
        capability = machine.nvidia.capabilities.get(gpu.uuid)
        if numbers and capability is not None and len(capability) == 2:
            major, minor = capability
            same = any(kind == "sm" and one == major and other <= minor for kind, one, other in numbers)
            if not same and not any(kind == "compute" and (one, other) <= capability for kind, one, other in numbers):
                return f"GPU {gpu.index} ({gpu.name}, compute capability {major}.{minor})"
    return None


def _numbers(version: str) -> Version:
    """The numbers in a version; none if it has none."""
    return tuple(int(number) for number in re.findall(r"\d+", version))
