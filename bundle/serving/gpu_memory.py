"""Whether the GPU memory of a server is free again after its end."""

import asyncio
import contextlib
from collections.abc import Sequence

from bundle.serving.gpus import Gpu, GpuProcess, ask_for_gpus, gib, list_processes
from bundle.system import guardian
from bundle.system.background import in_thread

_UNTIL_FREE_S = 10.0
"""Drivers need a moment to take a killed process's memory back, and longer for tens of gigabytes."""
_LOOK_AGAIN_S = 0.5
_NOT_MUCH_MIB = 512


class GpuMemory:
    """The GPU memory of one server: whether it is free again after the server's end.

    The driver is asked once while the server runs, to know which processes are the server's, and again when they are
    gone. In a container it may not name them; then there is only the free memory to compare.

    Args:
        gpus: Those that the server was started on, as they were before that; none for a server on the CPU.
    """

    def __init__(self, gpus: Sequence[Gpu]) -> None:
        self._before = {gpu.uuid: gpu for gpu in gpus}
        self._ours: frozenset[int] | None = None

    async def note(self, server: int) -> None:
        """Note which processes of the server with this pid use memory. Takes up to a second."""
        if self._before:
            self._ours = await in_thread(lambda: self._users(server))

    async def wait_until_free(self, limit_s: float = _UNTIL_FREE_S) -> str | None:
        """Wait until the memory is free, after all processes of the server have ended, at most ``limit_s`` seconds.

        Returns what is still in use then, for the user; None if all is free, or if that is unknown.
        """
        if self._ours is None:
            return None
        held: str | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while held := await in_thread(self._held):  # noqa: ASYNC110 - the driver announces nothing
                    await asyncio.sleep(_LOOK_AGAIN_S)
        return held

    def _users(self, server: int) -> frozenset[int]:
        family = guardian.family(guardian.process_table(), {server}, server) | {server}
        return frozenset(process.pid for process in self._processes() if process.pid in family)

    def _held(self) -> str | None:
        if self._ours:
            return self._held_by_us(self._ours)
        for gpu in ask_for_gpus().gpus:
            before = self._before.get(gpu.uuid)
            if before is None or before.free_mib is None or gpu.free_mib is None:
                continue
            less = before.free_mib - gpu.free_mib
            if less > _NOT_MUCH_MIB and not self._processes():
                return (
                    f"GPU {gpu.index} has {gib(less)} less free memory than before, and its "
                    "driver does not report what uses it; all processes of the server have ended"
                )
        return None

    def _held_by_us(self, ours: frozenset[int]) -> str | None:
        for process in self._processes():
            if process.pid in ours:
                gpu = self._before[process.gpu_uuid]
                how_much = "memory" if process.used_mib is None else gib(process.used_mib)
                return (
                    f"GPU {gpu.index}: the driver still counts {how_much} for process {process.pid} of the server, "
                    "which has ended; see nvidia-smi"
                )
        return None

    def _processes(self) -> list[GpuProcess]:
        return [process for process in list_processes() if process.gpu_uuid in self._before]
