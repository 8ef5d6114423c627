"""How much GPU memory is free, and who holds the rest."""

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from bundle.doctor.findings import Finding, ok, warning
from bundle.doctor.processes import describe
from bundle.doctor.words import gib
from bundle.serving.gpus import Gpu, GpuProcess

# InternLM2.5-1.8B: 3.5 GiB of weights, and the 2 GiB that lmdeploy's engine asks for beside them.
_SMALL_MODEL_MIB: Final = 5632


def look_at_memory(
    gpus: Sequence[Gpu],
    holders: Sequence[GpuProcess],
    ours: Collection[int],
    orphans: Collection[int],
) -> Iterator[Finding]:
    """A line for each GPU that may be used.

    Args:
        gpus: Those that may be used.
        holders: The processes that hold memory on any GPU.
        ours: Pids of servers of runs under way.
        orphans: Pids of what earlier runs have left.
    """
    roomy = any(gpu.free_mib >= _SMALL_MODEL_MIB for gpu in gpus)
    for gpu in gpus:
        text = f"GPU {gpu.index}: {gib(gpu.free_mib)} of {gib(gpu.total_mib)} free"
        details = [_holder(one, ours, orphans) for one in holders if one.gpu_uuid == gpu.uuid]
        if roomy or gpu.free_mib >= _SMALL_MODEL_MIB:
            yield ok(text, details)
        else:
            yield warning(
                f"{text}; even InternLM2.5-1.8B needs about {gib(_SMALL_MODEL_MIB)}",
                "End what holds it, or wait for it."
                + (" `bundle doctor --clean` ends what earlier runs have left." if orphans else ""),
                details or ["the driver does not tell who holds it"],
            )


def _holder(process: GpuProcess, ours: Collection[int], orphans: Collection[int]) -> str:
    whose = " (left by an earlier run of ours)" if process.pid in orphans else ""
    whose = " (a run of ours that is under way)" if process.pid in ours else whose
    held = gib(process.used_mib) if process.used_mib is not None else "an amount the driver does not tell"
    return f"{held}: {describe(process.pid)}{whose}"
