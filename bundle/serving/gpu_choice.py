"""Which GPUs a server gets: free ones that no other run holds, waiting for them if the user wants that."""

import time
from collections.abc import Callable, Sequence
from typing import Final

from bundle.errors import ServerError
from bundle.serving.engine import Job
from bundle.serving.gpu_locks import GpuLocks, Holder, holder, one_at_a_time
from bundle.serving.gpus import Gpu, ask_for_gpus, needed_mib, require_memory, select_gpus
from bundle.serving.missing_gpus import require_gpus
from bundle.system import guardian

_LOOK_AGAIN_S: Final = 1.0
ENDING_S: Final = guardian.LONGEST_STOP + 10.0
"""How long the server of a killed run may need to end, and the driver to take its memory back."""


def reserve_gpus(job: Job, engine: str, count: int, say: Callable[[str], None]) -> tuple[tuple[Gpu, ...], GpuLocks]:
    """Choose the GPUs to serve on and lock them: those with the most free memory, unless the user has named some.

    Raises UsageError if there are fewer than ``count``; ServerError if they are in use by other runs, or have too
    little free memory, and still are when the wait is over.
    """
    nvidia, began, said, is_fresh = job.machine.nvidia, time.monotonic(), None, False
    while True:
        try:
            gpus, locks = _reserve(require_gpus(nvidia, engine, job.gpu), job, count)
        except ServerError as error:
            is_ending = isinstance(error, _InUseError) and error.is_ending
            wait_s = max(job.wait_s, ENDING_S if is_ending else 0.0)
            left = began + wait_s - time.monotonic()
            if left <= 0 and is_fresh:
                raise
            if left > 0 and error.message != said:
                said = error.message
                say(f"waiting for a GPU, at most {wait_s:.0f} s: {said}")
            time.sleep(max(0.0, min(_LOOK_AGAIN_S, left)))
            # What was said before may be from when another run's memory was not free yet.
            nvidia, is_fresh = ask_for_gpus(job.machine.limit_s), True
        else:
            for device, why in locks.unlocked.items():
                say(f"GPU {device} cannot be locked, so another run may use it too: {why}")
            return gpus, locks


class _InUseError(ServerError):
    """GPUs are held by other runs."""

    def __init__(self, held: Sequence[tuple[Gpu, Holder | None]]) -> None:
        self.is_ending = all(holder is None or holder.is_ending for _, holder in held)
        first, *others = _in_use(held)
        super().__init__(
            f"{first}.", remedy="Wait for it with --wait TIME, or choose another GPU with --gpu.", details=others
        )


def _in_use(held: Sequence[tuple[Gpu, Holder | None]]) -> list[str]:
    return [f"GPU {gpu.device} is in use by another run: {holder or 'it has just ended'}" for gpu, holder in held]


def _reserve(allowed: Sequence[Gpu], job: Job, count: int) -> tuple[tuple[Gpu, ...], GpuLocks]:
    chosen = select_gpus(allowed, job.gpu, count)
    best_first = chosen if job.gpu is not None else select_gpus(allowed, None, len(allowed))
    locks = GpuLocks()
    taken: list[Gpu] = []
    held: list[Gpu] = []
    with one_at_a_time():
        for gpu in best_first:
            if len(taken) < len(chosen):
                (taken if locks.take(gpu) else held).append(gpu)
    by_others = [(gpu, holder(gpu)) for gpu in held]
    if len(taken) < len(chosen):
        raise _InUseError(by_others)
    try:
        require_memory(taken[:count], needed_mib(job.checkpoint.weights.size, count))
    except ServerError as error:
        details = [*error.details, *_in_use(by_others)]
        raise ServerError(error.message, remedy=error.remedy, details=details) from None
    return tuple(taken), locks
