"""Which engine a run would take, and whether its torch finds the GPU."""

from collections.abc import Iterator
from typing import Any

from bundle.doctor.findings import Finding, failing, ok, warning
from bundle.serving.gpus import Nvidia, visible_gpus


def automatic_engine(nvidia: Nvidia) -> str:
    """What ``--engine auto`` takes here; the rule is ``choose_engine``'s."""
    return "lmdeploy" if visible_gpus(nvidia.gpus) else "transformers"


def look_at_choice(nvidia: Nvidia) -> Iterator[Finding]:
    """What ``--engine auto`` takes, and why."""
    name = automatic_engine(nvidia)
    if name == "lmdeploy":
        why = f"there is a GPU it may use ({visible_gpus(nvidia.gpus)[0].name})"
    elif nvidia.error is not None:
        why = "nvidia-smi does not tell of any GPU"
    elif nvidia.gpus:
        why = "CUDA_VISIBLE_DEVICES hides every GPU"
    else:
        why = "there is no NVIDIA GPU"
    yield ok(f"--engine auto takes {name}: {why}")


def look_at_torch(seen: dict[str, Any], nvidia: Nvidia) -> Iterator[Finding]:
    """Whether the torch beside lmdeploy finds the GPUs and has code for them.

    Args:
        seen: What ``torch_probe`` says.
        nvidia: What ``nvidia-smi`` says.
    """
    torch, cuda, count, why = seen["torch"], seen["cuda"], seen["devices"], seen["why"]
    again = "`pip install --force-reinstall torch` in lmdeploy's environment"
    if torch is None:
        yield failing(f"torch cannot be imported beside lmdeploy: {why or 'it is not installed'}", f"Try {again}.")
    elif cuda is None:
        yield failing(
            f"torch {torch} beside lmdeploy is built without CUDA",
            f"Install the one from PyPI: {again}, without an --index-url for CPU.",
        )
    elif not count:
        yield failing(
            f"torch {torch} (CUDA {cuda}) finds no GPU{': ' + why if why else ''}",
            "Update the driver, or install a torch for an older CUDA. In a container, give it the GPUs (`--gpus all`).",
        )
    elif uncovered := _uncovered(seen["architectures"], nvidia):
        yield failing(
            f"torch {torch} (CUDA {cuda}) has no code for {uncovered}", "Install a torch that is built for this GPU."
        )
    elif count < len(visible_gpus(nvidia.gpus)):
        yield warning(
            f"torch {torch} (CUDA {cuda}) finds {count} of {len(visible_gpus(nvidia.gpus))} GPUs",
            "See `dmesg | grep -i nvrm` for the one that is missing.",
        )
    else:
        yield ok(f"torch {torch} (CUDA {cuda}) finds {count} GPU{'' if count == 1 else 's'}")


def _uncovered(architectures: list[str], nvidia: Nvidia) -> str | None:
    """The first visible GPU that none of torch's ``sm_90`` and ``compute_90`` has code for; None where there is none.

    Machine code (sm) runs within its major version, what is compiled at run time (compute) on everything newer.
    """
    built = [name.rstrip("af").rpartition("_") for name in architectures]
    numbers = [(kind, int(digits[:-1] or 0), int(digits[-1])) for kind, _, digits in built if digits.isdigit()]
    for gpu in visible_gpus(nvidia.gpus):
        capability = nvidia.capabilities.get(gpu.uuid)
        if numbers and capability is not None and len(capability) == 2:
            major, minor = capability
            same = any(kind == "sm" and one == major and other <= minor for kind, one, other in numbers)
            if not same and not any(kind == "compute" and (one, other) <= capability for kind, one, other in numbers):
                return f"GPU {gpu.index} ({gpu.name}, compute capability {major}.{minor})"
    return None
