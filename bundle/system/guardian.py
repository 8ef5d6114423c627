"""The guardian: the small process between us and a program we run. It outlives nothing and lets nothing outlive it.

The program is a server, or the check of a tokenizer; both are called the server here. Run as ``python -I -S
guardian.py``, never imported for its work: it knows the standard library only and starts in a few hundredths of a
second. It speaks JSON lines.

In, on stdin: first ``{"command": [...], "environment": {...}, "mark": "...", "parent": PID}``, so that
nothing secret is in an argument list; afterwards the words ``stop`` (ask, then insist) and
``kill`` (at once). Further members are optional:
``"directory": DIR``, the server's own, which is locked while it lives and removed in the end, and ``"at_once": true``
for one that has nothing to save and is never asked to end first, and ``"limits": {"RLIMIT_DATA": BYTES, ...}``, which
each of its processes gets.
Out, on stdout: ``{"event": "started", "pid": N}`` or ``{"event": "failed", "error": "..."}``, then
``{"event": "exited", "returncode": N}`` as soon as the server's main process is gone, and last
``{"event": "stopped", "left": [PID, ...]}`` when everything it started is gone too, or would not die.
Its stderr is the server's log: the server inherits it as stdout and stderr.

It stops everything on request, when a signal asks it to end, when the server's main process ends, and when its parent
dies in any way, SIGKILL included; that takes ``LONGEST_STOP`` seconds at most. How nothing gets away:

- On Linux it is the "child subreaper" of all it starts: whatever double-forks, daemonises or leaves the session still
  becomes its child, and ``waitpid`` saying that there is no child left is the proof that nothing is left.
- If the guardian itself is killed, the kernel kills the server's main process (PR_SET_PDEATHSIG), and the parent kills
  the rest (``stragglers``): by the mark in their environment, by their session, and because, being the next subreaper,
  it has become the parent of whatever shows neither.
- If the guardian was stopped (SIGSTOP) when its parent dies, the kernel wakes it (PR_SET_PDEATHSIG again).
- If parent and guardian are killed in the same instant, the main process still dies; those of its children survive that
  do not end by themselves when it does. Their environment holds ``BUNDLE_GUARDIAN``, and their session is the one whose
  number is in the file ``session`` of the server's directory: a process that sets its title, as vLLM's do, overwrites
  what can be seen of its environment, but cannot leave the session of a leader it did not choose.

multiprocessing's resource trackers are killed last. They end by themselves when everything else has, and then remove
the shared memory that a killed process has left in ``/dev/shm``.

Elsewhere (macOS) there is no subreaper and no parent-death signal: what ``ps`` shows as a descendant, or in the
server's process group, is ended; a process that left the group *and* lost its parent is missed.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

MARK = "BUNDLE_GUARDIAN"
SESSION = "session"
"""The file in a server's directory that holds its session's number."""

# Signals that ask us to end; the last three are how batch systems warn every process of a job.
ASKED_TO_END = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU),
)
# What everything alive is sent, and how many seconds it then has: few, for an inference server has nothing to save, and
# in all below the ten seconds after our parent's death in which nothing may be left.
# SIGINT comes twice because uvicorn, once asked to end, waits for open connections until a second one.
ASK_TO_END = ((signal.SIGINT, 3.0), (signal.SIGINT, 1.0), (signal.SIGTERM, 1.5), (signal.SIGKILL, 4.0))
# The main process is gone already: its workers serve no one. A large one takes seconds to die on a busy machine.
END_WORKERS = ((signal.SIGTERM, 0.5), (signal.SIGKILL, 9.0))
LONGEST_STOP = sum(seconds for _, seconds in ASK_TO_END)
# Resource trackers that have not ended by themselves are killed when the others have been gone for so long, or when so
# much of the last step is left.
TRACKERS_ALONE = 2.0
FOR_TRACKERS = 0.5

# A grandchild's death is announced to its own parent only, so while stopping we also look by ourselves this often.
_LOOK_AGAIN_SECONDS = 0.05
_LINUX = sys.platform == "linux"
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 1, 36, 37  # from <linux/prctl.h>


def _prctl(option: int, argument: int) -> None:
    """Call prctl(2) where there is one. A refusal is not an error: the other measures still hold."""
    if _LINUX:
        ctypes.CDLL(None).prctl(option, *(ctypes.c_ulong(value) for value in (argument, 0, 0, 0)))


def ask_to_end_with_parent() -> None:
    """Have the kernel send us SIGTERM when the process that started us dies."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Process(NamedTuple):
    """One row of the process table. ``group`` is the session on Linux, and the process group elsewhere."""

    parent: int
    group: int
    zombie: bool


def process_table() -> dict[int, Process]:
    """Every process of the machine that we may see, by its pid."""
    return _table_from_proc() if _LINUX else _table_from_ps()


def _table_from_proc() -> dict[int, Process]:
    table = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib would double the start-up time
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                    # "pid (name) state ppid pgrp session ..."; the name may itself hold spaces and parentheses.
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue  # It ended while we were looking.
            table[int(name)] = Process(int(fields[1]), int(fields[3]), fields[0] in b"ZX")
    return table


def _table_from_ps() -> dict[int, Process]:
    command = ["ps", "-axo", "pid=,ppid=,pgid=,stat="]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as ps:
        listing = ps.communicate()[0]
    table = {}
    for line in listing.splitlines():
        pid, parent, group, state = line.split()[:4]
        table[int(pid)] = Process(int(parent), int(group), state.startswith("Z"))
    table.pop(ps.pid, None)  # It is our child, too, and gone by now.
    return table


def family(table: dict[int, Process], roots: set[int], group: int | None) -> set[int]:
    """The descendants of ``roots`` and the members of ``group``, with theirs; the roots themselves are left out."""
    children: dict[int, list[int]] = {}
    for pid, process in table.items():
        children.setdefault(process.parent, []).append(pid)
    found: set[int] = set()
    to_visit = [child for root in roots for child in children.get(root, [])]
    to_visit += [pid for pid, process in table.items() if process.group == group]
    while to_visit:
        pid = to_visit.pop()
        if pid not in found and pid not in roots:
            found.add(pid)
            to_visit += children.get(pid, [])
    return found


def stragglers(
    mark: str, group: int | None, adopted: Callable[[dict[int, Process]], set[int]] = lambda table: set()
) -> set[int]:
    """Processes alive that carry ``mark`` in their environment or are in ``group``, with all their descendants.

    ``adopted`` finds others in the process table.
    """
    table = process_table()
    wanted = f"{MARK}={mark}".encode()
    marked = set()
    for pid in table if _LINUX else ():
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123
                if wanted in file.read().split(b"\0"):
                    marked.add(pid)
        except OSError:
            continue  # Another user's process, or one that ended meanwhile.
    marked |= adopted(table)
    found = marked | family(table, marked, group)
    return {pid for pid in found if not table[pid].zombie} - {os.getpid()}


def resource_trackers(pids: set[int]) -> set[int]:
    """Those of ``pids`` that are resource trackers of Python's multiprocessing. Only Linux shows which."""
    found = set()
    for pid in pids if _LINUX else ():
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123
                if b"multiprocessing.resource_tracker" in file.read():
                    found.add(pid)
        except OSError:
            continue
    return found


def send(pids: set[int], signum: int) -> None:
    """Send a signal to each of ``pids``; one that is gone or not ours to signal is passed over."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signum)


def become_subreaper(wanted: bool = True) -> bool:
    """Have orphaned descendants become our children, or not. Returns what held before; False where not supported."""
    before = ctypes.c_int(0)
    _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.addressof(before))
    _prctl(_PR_SET_CHILD_SUBREAPER, int(wanted))
    return bool(before.value)


class Guardian:
    """Starts one server, watches it, and ends it together with all that came of it."""

    def __init__(self) -> None:
        self._parent = os.getppid()
        self._server: subprocess.Popen[bytes] | None = None
        self._returncode: int | None = None
        self._has_children = False
        self._asked_to_stop = False
        self._asked_to_kill = False
        self._at_once = False
        self._directory: str | None = None
        self._input = b""
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Do all of it: from reading what to start until nothing of it is left."""
        self._listen()
        become_subreaper()
        while b"\n" not in self._input and not self._asked_to_stop:
            self._wait(None)
        try:
            if b"\n" not in self._input or not self._start():
                return
            while self._returncode is None and not self._asked_to_stop and not self._asked_to_kill:
                self._wait(None)
            left = self._end_all()
        finally:
            self._remove_directory()
        _report(event="stopped", left=sorted(left))

    def _listen(self) -> None:
        """Turn everything that can happen into something the selector wakes up for."""
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        # The kernel sends it when our parent dies: even if stopped, we go on and do our work.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)
        signals, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        for signum in (*ASKED_TO_END, signal.SIGCHLD):
            # A handler, not SIG_IGN: what is ignored would stay ignored in the server.
            signal.signal(signum, lambda *_: None)
        self._selector.register(signals, selectors.EVENT_READ, self._on_signal)
        self._selector.register(0, selectors.EVENT_READ, self._on_input)
        # The end of our input means that the parent died, unless a child it had forked holds the other end open.
        # So watch the parent itself as well, where the system can.
        try:
            self._selector.register(os.pidfd_open(self._parent), selectors.EVENT_READ, self._on_parents_death)
        except (AttributeError, OSError):
            self._asked_to_stop = os.getppid() != self._parent

    def _on_signal(self, fd: int) -> None:
        if set(os.read(fd, 1024)) - {signal.SIGCHLD}:
            self._asked_to_stop = True

    def _on_input(self, fd: int) -> None:
        received = os.read(fd, 65536)
        if not received:
            self._selector.unregister(fd)
            self._asked_to_stop = True
        self._input += received
        if self._server is not None:
            self._take_orders()

    def _take_orders(self) -> None:
        *words, self._input = self._input.split(b"\n")
        self._asked_to_stop |= b"stop" in words
        self._asked_to_kill |= b"kill" in words

    def _on_parents_death(self, fd: int) -> None:
        self._selector.unregister(fd)
        self._asked_to_stop = True

    def _wait(self, seconds: float | None) -> None:
        """Sleep until something happens, or for so long, and take note of what did."""
        for key, _ in self._selector.select(seconds):
            key.data(key.fd)
        self._reap()

    def _reap(self) -> None:
        """Collect every child that has ended: the server, and orphans that became ours."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._has_children = False
                return
            self._has_children = True
            if pid == 0:
                return
            if self._server is not None and pid == self._server.pid:
                self._returncode = os.waitstatus_to_exitcode(status)
                _report(event="exited", returncode=self._returncode)

    def _start(self) -> bool:
        line, _, self._input = self._input.partition(b"\n")
        spec = json.loads(line)
        self._directory, self._at_once = spec.get("directory"), spec.get("at_once", False)
        if self._directory is not None:
            with contextlib.suppress(OSError):  # Never released: the lock ends with this process.
                fcntl.flock(os.open(self._directory, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
        if self._asked_to_stop or spec["parent"] != os.getppid():
            return False  # It died before it could be watched.
        guardian = os.getpid()
        limits = spec.get("limits") or {}

        def prepare() -> None:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != guardian:
                os._exit(1)  # It died before that line: no signal will come.
            for name, most in limits.items():
                with contextlib.suppress(OSError, ValueError):  # less is allowed already, or there is no such limit
                    resource.setrlimit(getattr(resource, name), (most, most))

        try:
            self._server = subprocess.Popen(
                spec["command"],
                env={**spec["environment"], MARK: spec["mark"]},
                stdin=subprocess.DEVNULL,
                stdout=2,
                stderr=2,
                start_new_session=True,
                preexec_fn=prepare,
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            _report(event="failed", error=str(error))
            return False
        self._has_children = True
        if self._directory is not None:
            with contextlib.suppress(OSError), open(os.path.join(self._directory, SESSION), "w") as file:  # noqa: PTH118, PTH123
                file.write(str(self._server.pid))
        _report(event="started", pid=self._server.pid)
        self._take_orders()
        return True

    def _end_all(self) -> set[int]:
        """End the server and every descendant. Returns those that would not die, normally none."""
        assert self._server is not None
        steps = END_WORKERS if self._returncode is not None else ASK_TO_END
        others_seen = time.monotonic()
        for signum, patience in steps:
            if (self._asked_to_kill or self._at_once) and signum != signal.SIGKILL:
                continue
            deadline = time.monotonic() + patience
            told: set[int] = set()
            while time.monotonic() < deadline:
                self._reap()
                members = self._members()
                if not members and not self._has_children:
                    return set()
                # Those forked meanwhile get it as well, but none twice: a second SIGINT means something else.
                if signum != signal.SIGKILL:
                    send(members - told, signum)
                else:
                    now, others = time.monotonic(), members - resource_trackers(members)
                    if others:
                        others_seen = now
                    over = now >= min(others_seen + TRACKERS_ALONE, deadline - FOR_TRACKERS)
                    send(members if over else others, signum)
                told |= members
                self._wait(_LOOK_AGAIN_SECONDS)
                if self._asked_to_kill and signum != signal.SIGKILL:
                    break
        return self._members()

    def _remove_directory(self) -> None:
        if self._directory is not None:
            import shutil  # It would double the start-up time.

            shutil.rmtree(self._directory, ignore_errors=True)

    def _members(self) -> set[int]:
        """All that came of the server and is not known to be dead. A direct child counts until it is reaped."""
        assert self._server is not None
        table = process_table()
        found = family(table, {os.getpid()}, self._server.pid)
        return {pid for pid in found if not table[pid].zombie or table[pid].parent == os.getpid()}


def _report(**event: object) -> None:
    with contextlib.suppress(BrokenPipeError):  # The parent is gone, and with it whoever would want to know.
        os.write(1, json.dumps(event).encode() + b"\n")


if __name__ == "__main__":
    Guardian().run()
