"""Processes as their users know them."""

import time
from pathlib import PurePath

import psutil

from bundle.system.text import age


def describe(pid: int) -> str:
    """A process as its user knows it: program and script, user, since when. No further argument, for it may be a key.

    If nothing can be seen of it (it is in another container, or its owner hides it), that is what is said.
    """
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            command = _command(process)
            running = age(time.time() - process.create_time())
            return f"process {pid}, {command}, user {process.username()}, for {running}"
    except (psutil.Error, OSError, KeyError):
        return f"process {pid}, hidden from here (another container or user)"


def arguments_of(process: psutil.Process) -> list[str]:
    """A process's arguments; none where it is another user's and hidden, for then it is not a guardian of ours."""
    try:
        return process.cmdline()
    except psutil.AccessDenied:
        return []


def _command(process: psutil.Process) -> str:
    arguments = arguments_of(process)
    if not arguments:
        return process.name()
    shown = [PurePath(arguments[0]).name]
    if "python" in shown[0]:
        for place, argument in enumerate(arguments[1:], 1):
            if argument == "-m" and place + 1 < len(arguments):
                shown += ["-m", arguments[place + 1]]
                break
            if argument == "-c":
                shown.append("-c …")
                break
            if not argument.startswith("-"):
                shown.append(PurePath(argument).name)
                break
    return " ".join(shown)
