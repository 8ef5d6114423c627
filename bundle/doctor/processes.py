"""Processes of servers that this program started: those of runs in progress, and those left behind.

A server and its descendants carry the guardian's mark in their environment. While a run lasts, every one of them
descends from its guardian or, should that be killed, from this program itself; on Linux also those that daemonise. One
that carries the mark and descends from neither is left over from a run that was killed together with its guardian.

A process that sets its title, as vLLM's engine does, overwrites what can be seen of its environment. It is recognised
by its session, whatever it shows: another process in it carries the mark, or the guardian recorded it in the server's
directory.
"""

import contextlib
import itertools
import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

import psutil

from bundle.system.guardian import MARK, SESSION, resource_trackers
from bundle.system.processes import arguments_of, describe

_GUARDIAN: Final = ("bundle", "system", "guardian.py")
_ASKED_S: Final = 3.0
_KILLED_S: Final = 3.0
_TRACKERS_S: Final = 10.0
"""A busy machine takes seconds to let one run; where none is stuck, it is gone at once."""
_LOOKS: Final = 3
_CLOCKS_DIFFER_S: Final = 2.0


_GoneAndLeft = tuple[list[psutil.Process], list[psutil.Process]]


class ProcessesUnknownError(Exception):
    """The processes of this machine cannot be listed. The text says why."""


@dataclass(frozen=True, slots=True)
class MarkedProcess:
    """A process of a server that this program started, of this user.

    Attributes:
        process: It; knows its start time, so that another process with its pid is not taken for it.
        guardian_stopped: Whether its guardian lives but is stopped (SIGSTOP), so that it will do nothing.
    """

    process: psutil.Process
    orphaned: bool
    guardian_stopped: bool

    @property
    def pid(self) -> int:
        return self.process.pid


def marked_processes() -> list[MarkedProcess]:
    """All processes of this user that carry the mark. Raises ProcessesUnknownError if the system does not list them."""
    processes = list(_own_processes())
    sessions = frozenset(_sessions(processes))
    return [marked for process in processes if (marked := _marked(process, sessions)) is not None]


def session_is_alive(directory: Path) -> bool:
    """Whether a process is left of the server whose directory this is, so that its record is still needed."""
    session = _recorded_session(directory)
    return session is not None and any(_session_of(pid) == session for pid in psutil.pids())


def end_orphans(say: Callable[[str], None]) -> list[MarkedProcess]:
    """End what was left behind: SIGTERM, and SIGKILL for what is still there after some seconds.

    Each is looked at again right before it is signalled, so that nothing else is hit that has its pid by then. What it
    forks meanwhile is found by looking again. Raises ProcessesUnknownError if the system does not list them. Returns
    those that are still there, normally none.
    """
    orphans: list[MarkedProcess] = []
    # Once, for those that show which sessions are ours may be the first to end.
    sessions = frozenset(_sessions(list(_own_processes())))

    def signal(those: Sequence[psutil.Process], send: Callable[[psutil.Process], None], seconds: float) -> _GoneAndLeft:
        """Signal those that are still orphans, and wait."""
        for process in those:
            marked = _marked(process, sessions)
            if marked is not None and marked.orphaned:
                with contextlib.suppress(psutil.Error):  # psutil itself refuses where the pid is another's by now
                    send(process)
        gone_and_left: _GoneAndLeft = psutil.wait_procs(those, timeout=seconds)
        return gone_and_left

    for _ in range(_LOOKS):
        orphans = [marked for marked in marked_processes() if marked.orphaned]
        if not orphans:
            return []
        said = {marked.pid: describe(marked.pid) for marked in orphans}
        processes = [marked.process for marked in orphans]
        _, asked = signal(processes, psutil.Process.terminate, _ASKED_S)
        # A resource tracker ends by itself when the others have, and then removes their shared memory.
        trackers = resource_trackers({process.pid for process in asked})
        signal([process for process in asked if process.pid not in trackers], psutil.Process.kill, _KILLED_S)
        _, left = psutil.wait_procs(asked, timeout=_TRACKERS_S)
        _, killed = signal(left, psutil.Process.kill, _KILLED_S)
        for process in processes:
            if process not in killed:
                say(said[process.pid] + (", which ignored SIGTERM" if process in asked else ""))
    return [marked for marked in marked_processes() if marked.orphaned]


def _own_processes() -> Iterator[psutil.Process]:
    # psutil gives no useful error without /proc.
    if psutil.LINUX and not Path("/proc/self/stat").exists():
        raise ProcessesUnknownError("there is no /proc")
    me, pid = os.getuid(), os.getpid()
    try:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.uids().real == me and process.pid != pid:
                    yield process
    except OSError as error:
        raise ProcessesUnknownError(f"the processes cannot be listed ({error})") from None


def _sessions(processes: Sequence[psutil.Process]) -> Iterator[int]:
    """The sessions of servers: those of processes that carry the mark, and those that guardians recorded."""
    for process in processes:
        with contextlib.suppress(psutil.Error, OSError):
            if MARK in process.environ() and (session := _session_of(process.pid)) is not None:
                yield session
    for path in Path(tempfile.gettempdir()).glob(f"bundle-*/{SESSION}"):
        if (session := _recorded_session(path.parent)) is not None:
            yield session


def _recorded_session(directory: Path) -> int | None:
    """The session of a server's directory; None if it is not this user's, or is by now another's."""
    try:
        status = (directory / SESSION).stat()
        if status.st_uid != os.getuid() or status.st_mtime < psutil.boot_time():
            return None
        session = int((directory / SESSION).read_text())
        # As long as anything is left of a session, no new process gets its number.
        reused = psutil.Process(session).create_time() > status.st_mtime + _CLOCKS_DIFFER_S
    except psutil.NoSuchProcess:
        reused = False
    except (OSError, ValueError, psutil.Error):
        return None
    return None if reused else session


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _marked(process: psutil.Process, sessions: Collection[int]) -> MarkedProcess | None:
    """A process that carries the mark; None where it does not, has ended or cannot be inspected.

    ``sessions``: those of servers; a process in one of them without the mark has overwritten its environment.
    """
    try:
        environment = process.environ()
        ours = MARK in environment or _session_of(process.pid) in sessions
        if not ours or process.status() == psutil.STATUS_ZOMBIE:
            return None
        ancestors = process.parents()
        for ancestor in ancestors:
            if _is_guardian(ancestor):
                return MarkedProcess(process, False, ancestor.status() == psutil.STATUS_STOPPED)
            if _is_bundle(ancestor):
                return MarkedProcess(process, False, False)
        # Only what was seen up to the first process of all is known to have no guardian: one in between may just have
        # ended, and what it leaves then becomes the guardian's.
        if (ancestors or [process])[-1].ppid() not in (0, 1) or not process.is_running():
            return None
    except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
        return None
    return MarkedProcess(process, True, False)


def _is_guardian(process: psutil.Process) -> bool:
    return any(PurePath(argument).parts[-3:] == _GUARDIAN for argument in arguments_of(process))


def _is_bundle(process: psutil.Process) -> bool:
    arguments = arguments_of(process)
    if not arguments or "python" not in PurePath(arguments[0]).name:
        return False
    # Options of the interpreter may come first, as in `python -X dev -m bundle`.
    run_as_module = any(pair == ("-m", "bundle") for pair in itertools.pairwise(arguments))
    return run_as_module or any(PurePath(argument).name == "bundle" for argument in arguments[1:4])
