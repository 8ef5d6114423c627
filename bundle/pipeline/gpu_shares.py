"""How many runs of a sweep go on at the same time: as many as there are GPUs for, or one on the CPU."""

import asyncio
import contextlib
from collections.abc import Collection, Sequence
from typing import Final

from bundle.serving.gpu_locks import holder
from bundle.serving.gpus import Gpu, groups_of, select_gpus, visible_gpus
from bundle.serving.machine import Machine
from bundle.system.background import in_thread

_LOOK_EVERY_S: Final = 1.0


class GpuShares:
    """Gives each run its GPUs as they become free.

    Args:
        wanted: As in ``--gpu``.
        ours: Processes whose GPUs are known to be taken: those of our own runs, as they are at any time.
    """

    def __init__(self, machine: Machine, wanted: str | None, ours: Collection[int]) -> None:
        self._machine = machine
        self._wanted = wanted
        self._ours = ours
        self._taken: list[str] = []
        self._given_back = asyncio.Event()

    async def take(self, count: int) -> str:
        """Wait until one more run on ``count`` GPUs can go on beside the others; return its ``--gpu``, "" for none.

        Other programs may hold GPUs, for a while. If they hold all, one run goes on that waits as a single one does.
        Raises UsageError if ``--gpu`` names a GPU that does not exist.
        """
        groups = groups_of(self._wanted, count) if self._wanted and count else ()
        while (free := await in_thread(lambda: self._free(count, groups))) is None and self._taken:
            self._given_back.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._given_back.wait()
        taken = free or (groups[0] if groups else "")
        self._taken.append(taken)
        return taken

    def give_back(self, taken: str) -> None:
        self._taken.remove(taken)
        self._given_back.set()

    def _free(self, count: int, groups: Sequence[str]) -> str | None:
        """The first of these groups that is free; "" for any GPUs, where there are no groups; None if none are."""
        if not count:
            return None if self._taken else ""
        visible = visible_gpus(self._machine.gpus)
        if groups:
            select_gpus(visible, self._wanted, count)  # all of them, before the first run
            untaken = [one for one in groups if one not in self._taken]
            return next((one for one in untaken if self._are_free(select_gpus(visible, one, count))), None)
        free = [gpu for gpu in visible if self._are_free([gpu])]
        return "" if len(free) // count > len(self._taken) else None

    def _are_free(self, gpus: Sequence[Gpu]) -> bool:
        """Whether no other program's run holds one of these."""
        return all(one is None or one.is_ending or one.pid in self._ours for one in map(holder, gpus))
