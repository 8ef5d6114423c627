"""A server that is ready, and why one has ended."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from bundle.errors import ServerError
from bundle.serving import diagnosis
from bundle.serving.engine import ServerSpec
from bundle.serving.server_log import ServerLog
from bundle.serving.vital import VitalProcesses
from bundle.system.guarded import GuardedProcess
from bundle.system.text import one_line

LOG_LINES_SHOWN = 15


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is ready.

    Attributes:
        base_url: What an OpenAI client takes as its base URL, ``http://HOST:PORT/v1``.
        api_key: The key that lets a client in; made for this server alone.
        seconds_to_ready: From its start to its first token.
    """

    base_url: str
    api_key: str = field(repr=False)
    pid: int
    seconds_to_ready: float
    spec: ServerSpec = field(repr=False)
    log: ServerLog = field(repr=False)
    vital: VitalProcesses = field(repr=False)
    _process: GuardedProcess = field(repr=False)

    async def wait_for_death(self) -> ServerError:
        """Return, as soon as the server's main process is gone, an error that says why. Does not raise it."""
        await asyncio.shield(self._process.exited)
        return post_mortem("died", self.spec, self._process, self.log, was_ready=True)

    def explained(self, error: ServerError, *, anything: bool = False) -> ServerError:
        """An error of this server with the end of its log, and the cause if the log reveals a known one.

        With ``anything`` the last exception in the log is named where no known cause is revealed.
        """
        if error.details:
            return error  # it is explained already
        lines = self.log.last_lines()
        found = diagnosis.known_failure(lines, self.spec.signs.failures, was_ready=True)
        message, remedy = error.message, error.remedy
        if found is not None:
            message = f"{message} Its log shows why: {found.cause}"
            remedy = f"{found.remedy} Full log: {self.log.path}"
        elif anything and (last := diagnosis.last_exception(lines)) is not None:
            message = f"{message} The last error in its log: {last!r}."
        return ServerError(message, remedy=remedy, details=_shown(lines, found))


class PassingError(ServerError):
    """A start failed for a reason that may well have passed, such as a port taken between our choice and its use."""


def post_mortem(
    what: str,
    spec: ServerSpec,
    process: GuardedProcess,
    log: ServerLog,
    *,
    engine: tuple[int, int | None] | None = None,
    was_ready: bool = False,
) -> ServerError:
    """Why a server ``what`` ("died"), as the log and its end show, or that of a process of its engine.

    Args:
        engine: Which process of its engine has ended, and how if that is known.
    """
    lines = log.last_lines()
    end = None if engine is None else engine[1]
    if process.exited.done():
        end = process.exited.result()
    if process.exited.done() and end is None:
        found = diagnosis.GUARDIAN_KILLED
    else:
        gone = engine is not None
        found = diagnosis.diagnose(lines, end, spec.signs.failures, was_ready=was_ready, engine_gone=gone)
    kind = PassingError if found.passing else ServerError
    how = "" if end is None else f" ({diagnosis.exit_in_words(end)})"
    return kind(
        f"The {spec.engine} server {what}{how}: {found.cause}",
        remedy=f"{found.remedy} Full log: {log.path}",
        details=_shown(lines, found),
    )


def _shown(lines: Sequence[str], found: diagnosis.Diagnosis | None) -> Sequence[str]:
    """The lines of a log to show: of a known cause the one that says it, which is worth more than a traceback's end."""
    return [one_line(found.line)] if found is not None and found.line is not None else lines[-LOG_LINES_SHOWN:]
