"""Processes of a server without which it answers nothing, such as that of lmdeploy's PyTorch engine."""

import asyncio
import os
import re
from contextlib import suppress
from pathlib import Path

from bundle.system.background import in_thread
from bundle.system.guardian import family, process_table

_LOOK_EVERY_S = 0.5


class VitalProcesses:
    """Those descendants of a server whose command line matches a pattern; none without one. Linux alone shows them.

    A server may live on when its engine has died, and some wait for it for ever: lmdeploy before 0.14 does.
    """

    def __init__(self, server: int, pattern: str | None) -> None:
        self._server, self._pattern = server, pattern
        self._alive: set[int] = set()

    async def failed_start(self) -> tuple[int, int]:
        """Return, while the server starts, which of them has failed: its pid, and its end as in ``subprocess``.

        Helpers come and go until the server is ready. So one that has ended well does not count, nor one whose end the
        server has been told.
        """
        failed: dict[int, int] = {}
        while True:
            before, failed = failed, await in_thread(self.look)
            for pid in before.keys() & failed.keys():
                return pid, failed[pid]
            await asyncio.sleep(_LOOK_EVERY_S)

    async def end_of_one(self) -> int:
        """Return, once the server is ready, the pid of one that has ended, in whatever way."""
        for pid in await in_thread(self.look):  # since the last look at the start
            return pid
        while True:
            for pid in self._alive:
                if _end_of(pid) is not None:
                    return pid
            await asyncio.sleep(_LOOK_EVERY_S)

    def look(self) -> dict[int, int]:
        """Find what has been started; return what has failed and is still a child of a process that does not know it.

        Raises nothing: what cannot be seen is not there.
        """
        if self._pattern is None:
            return {}
        descendants = family(process_table(), {self._server}, None)
        self._alive |= {pid for pid in descendants if re.search(self._pattern, _command_line(pid))}
        ends = {pid: end for pid in self._alive if (end := _end_of(pid)) is not None}
        failed = {pid: end for pid, end in ends.items() if end != 0}
        self._alive -= ends.keys() - failed.keys()
        return failed


def _command_line(pid: int) -> str:
    """Empty for a process that has ended, and another user's."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def _end_of(pid: int) -> int | None:
    """How a process has ended, as in ``subprocess``; None for one that runs, and 0 where that is lost."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    state, *fields = stat.rpartition(b")")[2].split()
    # proc(5): the 52nd field, exit_code, as waitpid reports it; the state is the third.
    return os.waitstatus_to_exitcode(int(fields[48])) if state in b"ZX" else None
