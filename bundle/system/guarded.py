"""Our side of the guardian: a process that is certain to be gone when we say so."""

import asyncio
import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from bundle.system import guardian

# How long after its own bounds a guardian may still be busy before it is taken for dead itself.
_PATIENCE_WITH_GUARDIAN = guardian.LONGEST_STOP + 3.0
_SWEEP_SECONDS = 5.0
_SWEEP_AGAIN_SECONDS = 0.05

# Names of variables that hold a key, and values that are an address with a password. What is started here works on this
# machine with what is on it, and needs none of them.
_HOLDS_A_KEY = re.compile(
    r"(^|_)(API_?KEYS?|KEYS?|ACCESS_KEY(_ID)?|SECRETS?(_KEY)?|TOKENS?|PASSWORD|PASSWD|PASS|PAT|CREDENTIALS?)$", re.I
)
_LOGIN = re.compile(r"://[^/@\s]*:[^/@\s]*@")

SAFE_PATH: Mapping[str, str] = {"PYTHONSAFEPATH": "1"}
"""Lets Python import nothing from the current directory, which may be a downloaded checkpoint."""


def without_keys(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` without the variables that hold keys and passwords."""
    return {
        name: value for name, value in environment.items() if not _HOLDS_A_KEY.search(name) and not _LOGIN.search(value)
    }


def ask_program(command: Sequence[str], limit_s: float, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a program that only reports something and needs no key, as `subprocess.run` with a time limit."""
    return subprocess.run(
        command,
        env={**without_keys(os.environ), **SAFE_PATH, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=limit_s,
        check=False,
    )


def this_program(*arguments: str) -> list[str]:
    """The command that starts ``bundle`` anew. It imports modules from the current directory only where we do, too."""
    safe_path = [] if {"", str(Path.cwd())} & set(sys.path) else ["-P"]
    return [sys.executable, *safe_path, "-m", "bundle", *arguments]


def private_directory(prefix: str) -> Path:
    """A new directory for one guarded process, which the guardian removes with it: call it ``bundle-NAME-``."""
    return Path(tempfile.mkdtemp(prefix=prefix))


async def run_guarded(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: int,
    *,
    limit_s: float,
    directory: Path | None = None,
    limits: Mapping[str, int] | None = None,
) -> int | None:
    """Run a program to its end under a guardian; see ``GuardedProcess.start``.

    It is killed after ``limit_s`` seconds and on cancellation. Nothing of it is left when this returns or raises.
    Returns its exit status (negative: the signal); None if its guardian was killed. Raises OSError if it cannot be
    started; TimeoutError if it did not end in time.
    """
    process = GuardedProcess()
    try:
        await process.start(command, environment, log, directory=directory, at_once=True, limits=limits)
        async with asyncio.timeout(limit_s):
            return await asyncio.shield(process.exited)
    finally:
        process.kill()
        await undisturbed(process.gone)


async def undisturbed(*futures: "asyncio.Future[Any]") -> None:
    """Wait for all of ``futures`` even while being cancelled; the cancellation takes effect afterwards."""
    cancelled: asyncio.CancelledError | None = None
    while pending := {future for future in futures if not future.done()}:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


class _OrphansAreOurs:
    """While a server runs, what loses its parent below us becomes our child, so that it can be reaped for certain.

    Only where `adopt_orphans` was called: in another program, children are not ours to end.
    """

    def __init__(self) -> None:
        self.adopts = False
        self._servers = 0
        self._before = False
        self._lock = threading.Lock()
        self._guardians: set[int] = set()

    def begin(self) -> None:
        with self._lock:
            if self._servers == 0 and self.adopts:
                self._before = guardian.become_subreaper()
            self._servers += 1

    def end(self) -> None:
        with self._lock:
            self._servers -= 1
            if self._servers == 0 and self.adopts:
                guardian.become_subreaper(self._before)

    def know(self, guardian_pid: int) -> None:
        """Remember a guardian, which is not an orphan."""
        self._guardians.add(guardian_pid)

    def adopted(self, table: Mapping[int, guardian.Process]) -> set[int]:
        """Our children that we have not started: what lost its parent when its guardian was killed.

        Of what we start, guardians alone lead sessions of their own. What is in no session of ours was started by
        something below a guardian, whatever it has done to its environment.
        """
        if not self.adopts:
            return set()
        us = os.getpid()
        return {
            pid
            for pid, process in table.items()
            if process.parent == us and process.group != table[us].group and pid not in self._guardians
        }


_orphans_are_ours = _OrphansAreOurs()


def adopt_orphans() -> None:
    """Say that this process starts nothing but guardians: what becomes its child below them is theirs, and is ended."""
    _orphans_are_ours.adopts = True


class GuardedProcess(asyncio.SubprocessProtocol):
    """A program started by a guardian. Its state is futures, not tasks, so nothing can cancel what is waited for.

    Attributes:
        exited: Resolves to the return code (negative: the signal) as soon as the program's main process is gone;
            to None if the guardian was killed.
        gone: Resolves when nothing of it is left, to the pids that would not die: normally none.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int | None] = loop.create_future()
        self._started: asyncio.Future[int] = loop.create_future()
        self.gone: asyncio.Future[frozenset[int]] = loop.create_future()
        self._directory: Path | None = None
        self._mark = secrets.token_hex(16)
        self._transport: asyncio.SubprocessTransport | None = None
        self._received = b""
        self._left: frozenset[int] | None = None  # As the guardian reports it.
        self._swept: set[int] = set()

    async def start(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: int,
        *,
        directory: Path | None = None,
        at_once: bool = False,
        limits: Mapping[str, int] | None = None,
        locks: Sequence[int] = (),
    ) -> int:
        """Start the guardian and with it the program, and return the program's pid.

        Whatever comes of this, call ``terminate`` or ``kill`` and wait for ``gone``. Raises OSError if the command
        cannot be started.

        Args:
            directory: A directory of its own, which is removed with it (``private_directory``).
            at_once: Whether it has nothing to save and is always killed without being asked to end.
            limits: What each of its processes may use, by the names of ``resource``: ``RLIMIT_DATA``, in bytes.
            locks: Descriptors of locks that the guardian is to hold, too, until nothing of the program is left.
        """
        self._directory = directory
        _orphans_are_ours.begin()
        try:
            await asyncio.get_running_loop().subprocess_exec(
                lambda: self,
                *(sys.executable, "-I", "-S", guardian.__file__),
                stderr=log,
                env=without_keys(os.environ),
                pass_fds=locks,
                start_new_session=True,  # A terminal's Ctrl-C and hang-up are for us alone.
            )
        except BaseException as error:
            self._finish(frozenset())  # It was never asked to start anything.
            if isinstance(error, OSError) and error.errno == -1:  # uvloop's number where no pair of sockets can be had
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) from error
            raise
        spec = {
            "command": list(command),
            "environment": dict(environment),
            "mark": self._mark,
            "parent": os.getpid(),
            "directory": None if directory is None else str(directory),
            "at_once": at_once,
            "limits": dict(limits or {}),
        }
        self._write(json.dumps(spec))
        return await asyncio.shield(self._started)

    def terminate(self) -> None:
        """Ask the program and all its descendants to end, and insist after a few seconds. Returns at once."""
        self._order("stop")

    def kill(self) -> None:
        """End the program and all its descendants without asking. Returns at once."""
        self._order("kill")

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)
        _orphans_are_ours.know(self._transport.get_pid())

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            match json.loads(line):
                case {"event": "started", "pid": int(pid)}:
                    self._started.set_result(pid)
                case {"event": "failed", "error": str(error)}:
                    self._fail_to_start(error)
                    self._left = frozenset()
                case {"event": "exited", "returncode": int(returncode)}:
                    self.exited.set_result(returncode)
                case {"event": "stopped", "left": list(left)}:
                    self._left = frozenset(left)

    def connection_lost(self, exc: Exception | None) -> None:
        """The guardian has ended. Unless it said that nothing is left, see to that ourselves."""
        if self._transport is not None:
            self._transport.close()
        if not self._started.done():
            self._fail_to_start("Its guardian process ended first.")
        if not self.exited.done():
            self.exited.set_result(None)
        if self._left is not None:
            self._finish(self._left)
        else:
            self._sweep(give_up_at=asyncio.get_running_loop().time() + _SWEEP_SECONDS)

    # How it is done.

    def _order(self, word: str) -> None:
        self._write(word)
        if self._transport is not None and not self.gone.done():
            # A guardian that hangs, or has been stopped, is killed. What it guards is swept up after it.
            asyncio.get_running_loop().call_later(_PATIENCE_WITH_GUARDIAN, self._kill_guardian)

    def _kill_guardian(self) -> None:
        if self._transport is not None and not self.gone.done():
            with contextlib.suppress(ProcessLookupError):
                self._transport.kill()

    def _write(self, line: str) -> None:
        pipe = self._transport.get_pipe_transport(0) if self._transport is not None else None
        if pipe is not None and not pipe.is_closing():
            cast(asyncio.WriteTransport, pipe).write(line.encode() + b"\n")

    def _fail_to_start(self, error: str) -> None:
        self._started.set_exception(OSError(error))
        self._started.exception()  # Marks it as seen: whoever waited for it may have been cancelled.

    def _sweep(self, give_up_at: float, nothing_before: bool = False) -> None:
        """Kill what the guardian left behind until twice there is nothing: one look can miss what forks meanwhile."""
        loop = asyncio.get_running_loop()
        server = None if self._started.exception() else self._started.result()
        left = guardian.stragglers(self._mark, group=server, adopted=_orphans_are_ours.adopted)
        last = loop.time() >= give_up_at - guardian.FOR_TRACKERS
        guardian.send(left if last else left - guardian.resource_trackers(left), signal.SIGKILL)
        self._swept |= left if server is None else left | {server}
        for pid in self._swept:
            with contextlib.suppress(ChildProcessError):  # Orphans are ours to reap, the others their parents'.
                os.waitpid(pid, os.WNOHANG)
        if loop.time() >= give_up_at or (nothing_before and not left):
            self._finish(frozenset(left))
        else:
            loop.call_later(_SWEEP_AGAIN_SECONDS, self._sweep, give_up_at, not left)

    def _finish(self, left: frozenset[int]) -> None:
        if not self.gone.done():
            if self._directory is not None:  # Usually it is gone already.
                shutil.rmtree(self._directory, ignore_errors=True)
            self.gone.set_result(left)
            _orphans_are_ours.end()
