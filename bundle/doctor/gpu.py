"""GPUs, their driver, and whether lmdeploy and its torch can use them."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from bundle.doctor import cuda_needs
from bundle.doctor.findings import Finding, failing, ok, warning
from bundle.serving.gpus import Gpu, Nvidia, visible_gpus

_STUCK = (
    "A driver that hangs usually needs a reboot (see `dmesg | grep -i nvrm`). Where it is only slow, "
    "`sudo nvidia-smi -pm 1` keeps it awake, and --time-limit SECONDS waits longer."
)


def look_at_gpus(
    nvidia: Nvidia, cuda: str | None, lmdeploy: str | None, torch_sees_them: Callable[[], bool]
) -> Iterator[Finding]:
    """The driver and each GPU against what is wanted of them.

    Args:
        nvidia: What ``nvidia-smi`` tells.
        cuda: What the server's torch is built for; None where there is none.
        lmdeploy: The version installed; None where there is none.
        torch_sees_them: Asked only where the driver seems too old, because it takes seconds.
    """
    if not nvidia.installed:
        yield _without_nvidia_smi()
    elif nvidia.error is not None:
        yield _broken(nvidia.error)
    elif not nvidia.gpus and not nvidia.silent:
        yield warning("nvidia-smi finds no GPU: checkpoints are served on the CPU, which is slow", None)
    else:
        for name in nvidia.silent:
            yield warning(f"{name} does not tell its memory, so lmdeploy is not started on it", None)
        yield from _visibility(nvidia)
        if nvidia.gpus:
            yield _driver(nvidia.gpus[0].driver, cuda, torch_sees_them)
        for gpu in nvidia.gpus:
            yield _gpu(gpu, nvidia.capabilities.get(gpu.uuid), cuda, lmdeploy)


def device_without_driver() -> bool:
    """Whether an NVIDIA graphics device is plugged in, as far as Linux tells."""
    for device in Path("/sys/bus/pci/devices").glob("*"):
        with contextlib.suppress(OSError):
            vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
            if vendor == "0x10de" and kind.startswith("0x03"):
                return True
    return False


def _without_nvidia_smi() -> Finding:
    if device_without_driver():
        return warning(
            "there is an NVIDIA GPU but no nvidia-smi, so checkpoints are served on the CPU",
            "Install NVIDIA's driver, or put its nvidia-smi on PATH; in a container, start it with `--gpus all`.",
        )
    return ok("no NVIDIA GPU (there is no nvidia-smi): checkpoints are served on the CPU, which is slow")


def _broken(error: str) -> Finding:
    if "did not answer" in error:
        return failing(f"nvidia-smi {error}", _STUCK)
    if "version mismatch" in error.lower():
        remedy = "The driver was updated under the running kernel module: reboot."
    elif "communicate with the nvidia driver" in error.lower():
        remedy = "The kernel module is not loaded: `sudo modprobe nvidia`, or install the driver again; then reboot."
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


def _driver(driver: str, cuda: str | None, torch_sees_them: Callable[[], bool]) -> Finding:
    wanted = cuda or cuda_needs.CUDA_OF_NEW_TORCH
    whose = f"the torch installed is built for CUDA {wanted}" if cuda else f"torch from PyPI is built for CUDA {wanted}"
    oldest = cuda_needs.oldest_driver(wanted)
    if oldest is None:
        return ok(f"driver {driver}; {whose}, of which nothing is known here")
    if cuda_needs.numbers(driver) >= oldest:
        return ok(f"driver {driver}; {whose}, which wants {cuda_needs.dotted(oldest)} or newer")
    if cuda is not None and torch_sees_them():
        return ok(f"driver {driver} with NVIDIA's forward compatibility; {whose}, and finds the GPUs")
    remedy = f"Update the driver to {cuda_needs.dotted(oldest)} or newer."
    older = cuda_needs.oldest_driver("12.8")
    if wanted.startswith("13") and older is not None and cuda_needs.numbers(driver) >= older:
        remedy += (
            f" Or install `{cuda_needs.OLDER_TORCH}`, which is built for CUDA 12.8 and content with this driver: "
            f"`pip install '{cuda_needs.OLDER_TORCH}'` before or after lmdeploy."
        )
    return failing(f"driver {driver} is too old: {whose}, which wants {cuda_needs.dotted(oldest)} or newer", remedy)


def _gpu(gpu: Gpu, capability: tuple[int, ...] | None, cuda: str | None, lmdeploy: str | None) -> Finding:
    name = f"GPU {gpu.index}: {gpu.name}"
    if capability is None:
        return ok(f"{name}; its driver does not tell its compute capability (7.0 is wanted)")
    name += f", compute capability {cuda_needs.dotted(capability)}"
    if capability < cuda_needs.OLDEST_CAPABILITY:
        return failing(
            f"{name}: lmdeploy has code for 7.0 and newer only",
            "Hide it with CUDA_VISIBLE_DEVICES, or use `--engine transformers`.",
        )
    wanted = cuda or cuda_needs.CUDA_OF_NEW_TORCH
    if capability < cuda_needs.OLDEST_CAPABILITY_CUDA_13 and wanted.startswith("13"):
        return failing(
            f"{name}: torch for CUDA {wanted} has no code for it",
            f"Install the last one that has: `pip install '{cuda_needs.OLDER_TORCH}'`.",
        )
    version = cuda_needs.numbers(lmdeploy)[:2] if lmdeploy else (0, 18)
    if not cuda_needs.has_turbomind_code(capability, version):
        return warning(
            f"{name}: the TurboMind of lmdeploy {cuda_needs.dotted(version)} has no code for it",
            "Serve with its other backend: `bundle eval-local … -- --backend pytorch`"
            + (", or upgrade lmdeploy." if version < (0, 18) else "."),
        )
    return ok(name)
