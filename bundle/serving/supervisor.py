"""Runs a server: starts it, knows when it is ready, notices its death, and leaves nothing of it behind."""

import asyncio
import errno
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from bundle.errors import ServerError
from bundle.serving import diagnosis
from bundle.serving.engine import ServerSpec
from bundle.serving.health import Readiness
from bundle.serving.server import LOG_LINES_SHOWN, PassingError, Server, post_mortem
from bundle.serving.server_log import ServerLog
from bundle.serving.vital import VitalProcesses
from bundle.system.guarded import GuardedProcess, private_directory, undisturbed

_LOOK_AT_LOG_SECONDS = 0.25
_SAY_AT_LEAST_EVERY_SECONDS = 10.0
_SAY_AT_MOST_EVERY_SECONDS = 1.0
# A server that has printed why it cannot start usually ends by itself, and what it prints until then may help.
_LAST_WORDS_SECONDS = 0.5


@dataclass(eq=False, slots=True)
class Supervisor:
    """Runs one server for as long as the ``async with`` block lasts.

        async with Supervisor(spec, log_path=run / "server.log", say=print) as server:
            ...

    However the block ends, the server and all its descendants are gone afterwards; if this process dies first, the
    guardian sees to that. Entering raises ServerError if the server does not become ready, with a diagnosis and the
    last lines of its log.

    Its output is appended to ``log_path``; ``launched`` is set when its command has been started, for work that must
    not delay it.
    """

    spec: ServerSpec
    _: KW_ONLY
    log_path: Path
    start_timeout: float = 600.0
    say: Callable[[str], None]
    launched: asyncio.Event | None = None
    api_key: str = field(default_factory=lambda: secrets.token_hex(32), init=False, repr=False)
    _process: GuardedProcess | None = field(default=None, init=False)

    async def __aenter__(self) -> Server:
        try:
            return await self._start()
        except PassingError as error:
            self.say(f"starting again: {error.message}")
            return await self._start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.stop()
        except ServerError as left_over:
            if error is None:
                raise
            self.say(str(left_over))  # What went wrong first is what must be raised.

    async def stop(self, *, at_once: bool = False) -> None:
        """End the server and all its descendants, and return when they are gone. Can be called again.

        It is asked (SIGINT, SIGTERM) and, after some seconds or ``at_once``, killed. A cancellation takes effect only
        when this is done. Raises ServerError if the kernel did not end some of the processes.
        """
        if self._process is None:
            return
        if at_once:
            self._process.kill()
        else:
            self._process.terminate()
        await undisturbed(self._process.gone)
        if left := self._process.gone.result():
            pids = " ".join(map(str, sorted(left)))
            raise ServerError(
                f"Processes of the {self.spec.engine} server are still there after SIGKILL: {pids}.",
                remedy=f"They hang in the kernel or belong to another user. Look at them with `ps -fp {pids}`.",
            )

    def kill(self) -> None:
        """End the server and all its descendants without asking; returns at once. Call it from the loop's thread.

        Cuts a ``stop`` in progress short, for a user who presses Ctrl-C again.
        """
        if self._process is not None:
            self._process.kill()

    async def _start(self) -> Server:
        host = self.spec.host
        port = _free_port(host)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        readiness = Readiness(
            f"http://{address}",
            self.api_key,
            self.spec.served_name,
            limit=self.start_timeout,
            plain=self.spec.plain,
        )
        log, descriptor = self._open_log()
        began = time.monotonic()
        try:
            try:
                directory = self._private_directory()
                command = self.spec.command(port, directory)
                environment = self.spec.environment_beside(os.environ, self.api_key, directory)
                locks = () if self.spec.gpu_locks is None else self.spec.gpu_locks.descriptors
                self._process = process = GuardedProcess()
                pid = await process.start(command, environment, descriptor, directory=directory, locks=locks)
            except OSError as error:
                raise ServerError(
                    f"The {self.spec.engine} server could not be started: {error}.",
                    remedy="`bundle doctor` shows what is installed.",
                ) from None
            finally:
                os.close(descriptor)
            if self.launched is not None:
                self.launched.set()
            vital = VitalProcesses(pid, self.spec.signs.vital, self.spec.signs.lasting)
            await self._wait_until_ready(process, vital, readiness, log, began)
        except BaseException as error:
            if isinstance(error, ServerError):
                self.kill()  # It has nothing to save, and while it was asked to end nobody would be told why.
            await self.__aexit__(type(error), error, error.__traceback__)
            raise

        return Server(
            base_url=f"http://{address}/v1",
            api_key=self.api_key,
            pid=pid,
            seconds_to_ready=time.monotonic() - began,
            spec=self.spec,
            log=log,
            vital=vital,
            _process=process,
        )

    def _private_directory(self) -> Path:
        try:
            directory = private_directory("bundle-server-")
            try:
                for name, content in self.spec.files.items():
                    (directory / name).write_text(content, encoding="utf-8")
            except OSError:
                shutil.rmtree(directory, ignore_errors=True)
                raise
        except OSError as error:
            raise ServerError(
                f"Temporary files cannot be written: {error}.", remedy="Free some space, or set TMPDIR=DIR."
            ) from None
        return directory

    def _open_log(self) -> tuple[ServerLog, int]:
        """The log, and a descriptor for the server's output."""
        try:
            log = ServerLog(self.log_path, secrets=(self.api_key,))
            return log, log.open()
        except OSError as error:
            raise ServerError(
                f"The server's log {self.log_path} cannot be written: {error.strerror}.",
                remedy="Choose another directory with --out.",
            ) from None

    async def _wait_until_ready(
        self, process: GuardedProcess, vital: VitalProcesses, readiness: Readiness, log: ServerLog, began: float
    ) -> None:
        """Return when the server is ready; raise ServerError as soon as it is known that it will not be."""
        ready = asyncio.ensure_future(readiness.wait())
        fatal = asyncio.ensure_future(self._watch_log(log, readiness, began))
        failed = asyncio.ensure_future(vital.failed_start())
        ends: set[asyncio.Future[Any]] = {ready, fatal, failed, process.exited}
        try:
            await asyncio.wait(ends, timeout=self.start_timeout, return_when=asyncio.FIRST_COMPLETED)
            if fatal.done() or failed.done():
                await asyncio.wait({process.exited}, timeout=_LAST_WORDS_SECONDS)
            # First, since a reply from our port can be another server's while ours ends because the port is taken.
            if process.exited.done():
                raise post_mortem("ended before it was ready", self.spec, process, log)
            if fatal.done():
                fatal.result()
                raise post_mortem("cannot start", self.spec, process, log)
            if failed.done():
                what = f"cannot start, since process {failed.result()[0]} of its engine has ended"
                raise post_mortem(what, self.spec, process, log, engine=failed.result())
            if not ready.done():
                raise ServerError(
                    f"The {self.spec.engine} server was not ready after {self.start_timeout:g} s. "
                    f"Expected {readiness.waiting_for}, got: {readiness.seen}.",
                    remedy=f"Allow more time with --start-timeout, or see what it was doing: {log.path}",
                    details=log.last_lines()[-LOG_LINES_SHOWN:],
                )
            try:
                ready.result()
            except ServerError as error:
                raise ServerError(
                    error.message, remedy=error.remedy, details=log.last_lines()[-LOG_LINES_SHOWN:]
                ) from None
        finally:
            ready.cancel()
            fatal.cancel()
            failed.cancel()
            await undisturbed(asyncio.gather(ready, fatal, failed, return_exceptions=True))

    async def _watch_log(self, log: ServerLog, readiness: Readiness, began: float) -> None:
        """Say what the server is doing, until it prints something after which it cannot start."""
        activity = stage = said = None
        said_at = began
        while True:
            for line in log.new_lines():
                if diagnosis.fatal(line, self.spec.signs.failures):
                    return
                if (found := activity_in(line, self.spec.signs.activities)) is not None:
                    activity, stage = found, readiness.waiting_for
            now = time.monotonic()
            doing = activity if activity and stage == readiness.waiting_for else f"waiting for {readiness.waiting_for}"
            quiet = now - said_at
            if quiet >= _SAY_AT_LEAST_EVERY_SECONDS or (doing != said and quiet >= _SAY_AT_MOST_EVERY_SECONDS):
                self.say(f"starting {self.spec.engine}: {doing}")
                said, said_at = doing, now
            await asyncio.sleep(_LOOK_AT_LOG_SECONDS)


def activity_in(line: str, activities: Sequence[tuple[str, str]]) -> str | None:
    """What a line of the log says about the start; None if nothing."""
    for pattern, words in activities:
        if match := re.search(pattern, line):
            return words.format(*match.groups())
    return None


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((host, 0))
            port: int = probe.getsockname()[1]
            return port
    except OSError as error:
        remedy = "Use an address of this machine."
        if error.errno in (errno.EMFILE, errno.ENFILE):
            remedy = "Allow more open files (`ulimit -n`)."
        raise ServerError(f"A server cannot listen on {host}: {error.strerror}.", remedy=remedy) from None
