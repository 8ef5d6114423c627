"""Whether the GPU memory of a server that has ended is free again."""

import asyncio
import contextlib
from collections.abc import Sequence

from bundle.serving import guardian
from bundle.serving.gpus import Gpu, GpuProcess, list_gpus, list_processes
from bundle.system.background import in_thread

_LIMIT_S = 10.0
"""Drivers need a moment to take a killed process's memory back, and longer for tens of gigabytes."""
_LOOK_AGAIN_S = 0.5
_NOT_MUCH_MIB = 512


class GpuMemory:
    """What one server holds of the memory of some GPUs.

    The driver is asked once while the server serves, to know which processes are the server's, and again when they are
    gone. In a container it may not name them; then there is only the free memory to compare.

    Args:
        gpus: Those that the server was started on, as they were before that; none for a server on the CPU.
    """

    def __init__(self, gpus: Sequence[Gpu]) -> None:
        self._before = {gpu.uuid: gpu for gpu in gpus}
        self._ours: frozenset[int] | None = None

    async def note(self, server: int) -> None:
        """Note which processes of the server with this pid hold memory. Takes up to a second."""
        if self._before:
            self._ours = await in_thread(lambda: self._holders(server))

    async def wait_until_free(self, limit_s: float = _LIMIT_S) -> str | None:
        """Wait until the memory is free, after all processes of the server have ended.

        Args:
            limit_s: Seconds after which it is not waited for any more.

        Returns:
            What is still held then, for the user; None where all is free, and where nobody can tell.
        """
        if self._ours is None:
            return None
        held: str | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while held := await in_thread(self._held):  # noqa: ASYNC110 - the driver tells nobody
                    await asyncio.sleep(_LOOK_AGAIN_S)
        return held

    def _holders(self, server: int) -> frozenset[int]:
        family = guardian.family(guardian.process_table(), {server}, server) | {server}
        return frozenset(process.pid for process in self._processes() if process.pid in family)

    def _held(self) -> str | None:
        if self._ours:
            return self._held_by_us(self._ours)
        for gpu in list_gpus():
            before = self._before.get(gpu.uuid)
            if before is not None and gpu.free_mib < before.free_mib - _NOT_MUCH_MIB and not self._processes():
                missing = _gib(before.free_mib - gpu.free_mib)
                return (
                    f"GPU {gpu.index} has {missing} less memory free than before, and its driver does not tell who "
                    "holds it; all processes of the server have ended"
                )
        return None

    def _held_by_us(self, ours: frozenset[int]) -> str | None:
        for process in self._processes():
            if process.pid in ours:
                gpu = self._before[process.gpu_uuid]
                how_much = "memory" if process.used_mib is None else _gib(process.used_mib)
                return (
                    f"GPU {gpu.index}: the driver still counts {how_much} for process {process.pid} of the server, "
                    "which has ended; see nvidia-smi"
                )
        return None

    def _processes(self) -> list[GpuProcess]:
        return [process for process in list_processes() if process.gpu_uuid in self._before]


def _gib(mib: int) -> str:
    return f"{mib / 1024:.1f} GiB"
