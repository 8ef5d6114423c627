"""Which processes a program has started."""

import time
from pathlib import Path

import psutil

from bundle.system.guardian import family, process_table

_LAUNCHER = ("lmdeploy", "launcher.py")
_LOOK_EVERY_S = 0.01


def wait_for_server(pid: int, timeout_s: float) -> int | None:
    """Return the lmdeploy server's pid as soon as the ``bundle`` of this ``pid`` has started it; None if it ends."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        table = process_table()  # what psutil has for this takes ten times as long
        if pid not in table or table[pid].zombie:
            return None
        for below in family(table, {pid}, None):
            if any(Path(argument).parts[-2:] == _LAUNCHER for argument in _command_line(below)):
                return below
        time.sleep(_LOOK_EVERY_S)
    return None


def _command_line(pid: int) -> list[str]:
    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return []
