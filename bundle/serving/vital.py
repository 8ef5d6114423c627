"""Processes of a server without which it answers nothing, such as that of lmdeploy's PyTorch engine."""

import asyncio
import os
import re
from contextlib import suppress
from pathlib import Path

from bundle.system.background import in_thread
from bundle.system.guardian import family, process_table

_LOOK_EVERY_S = 0.25


class VitalProcesses:
    """Those descendants of a server whose command line matches a pattern; none without one. Linux alone shows them.

    A server may live on when its engine has died, and some wait for it for ever: lmdeploy before 0.14 does. Others
    collect a dead engine at once and take ten seconds until they say so, as vLLM does.
    """

    def __init__(self, server: int, pattern: str | None, lasting: str | None = None) -> None:
        """``lasting`` is the pattern of the names of the server's children among them that are no helpers."""
        self._server, self._pattern, self._lasting_names = server, pattern, lasting
        self._alive: set[int] = set()
        self._lasting: set[int] = set()

    async def failed_start(self) -> tuple[int, int | None]:
        """Return, while the server starts, which of them has failed: its pid, and its end as in ``subprocess``.

        Its end is None where the server alone has been told. Helpers come and go until the server is ready. So one of
        them that has ended well does not count, nor one whose end the server has been told.
        """
        failed: dict[int, int | None] = {}
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
                if _state_of(pid)[0]:
                    return pid
            await asyncio.sleep(_LOOK_EVERY_S)

    def look(self) -> dict[int, int | None]:
        """Find what has been started; return what has failed and why, as far as that can be seen.

        Raises nothing: what cannot be seen is not there.
        """
        if self._pattern is None:
            return {}
        table = process_table()
        found = {pid for pid in family(table, {self._server}, None) if re.search(self._pattern, _shown(pid, "cmdline"))}
        self._alive |= found
        if self._lasting_names is not None:
            children = {pid for pid in found if table[pid].parent == self._server}
            self._lasting |= {pid for pid in children if re.search(self._lasting_names, _shown(pid, "comm"))}
        states = {pid: _state_of(pid) for pid in self._alive}
        ends = {pid: end for pid, (has_ended, end) in states.items() if has_ended}
        failed = {pid: end for pid, end in ends.items() if end or pid in self._lasting}
        self._alive -= ends.keys() - failed.keys()
        return failed


def _shown(pid: int, file: str) -> str:
    """What /proc shows of a process: "cmdline", or "comm", its own name for itself in 15 bytes at most.

    Empty for one that has ended, and another user's.
    """
    with suppress(OSError):
        return Path(f"/proc/{pid}/{file}").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def _state_of(pid: int) -> tuple[bool, int | None]:
    """Whether a process has ended, and how, as in ``subprocess``; None where nobody can tell any more."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return True, None
    state, *fields = stat.rpartition(b")")[2].split()
    # proc(5): the 52nd field, exit_code, as waitpid reports it; the state is the third.
    return (True, os.waitstatus_to_exitcode(int(fields[48]))) if state in b"ZX" else (False, None)
