"""Errors a user can act on, and the exit codes. The command line prints an error without a traceback."""

from collections.abc import Iterable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import ClassVar


class ExitCode(IntEnum):
    """What the command line returns."""

    DONE = 0
    GATE_NOT_MET = 1
    """Done, but the model did not do what the user requires of it."""
    USAGE = 2
    """Wrong usage or configuration: fix it and run again."""
    SERVER = 3
    """The server did not come up, or died for good."""
    UNANSWERED = 4
    """Done, but some questions have no reply."""
    UNEXPECTED = 70
    """A fault of this program (``EX_SOFTWARE`` of sysexits.h)."""
    INTERRUPTED = 130


def gravest(codes: Iterable[int]) -> int:
    """The exit code of several runs: that of the one that needs attention most."""
    order = (ExitCode.INTERRUPTED, ExitCode.UNEXPECTED, ExitCode.SERVER, ExitCode.USAGE, ExitCode.UNANSWERED)
    found = set(codes)
    return next((code for code in (*order, ExitCode.GATE_NOT_MET) if code in found), max(found, default=0))


class BundleError(Exception):
    """Something went wrong that the user can fix.

    Args:
        message: What went wrong and where, in one or two sentences.
        remedy: What to do next; None if there is nothing to suggest.
        details: Further lines worth showing as they are, such as the end of a log.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.USAGE

    def __init__(self, message: str, *, remedy: str | None = None, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.details = tuple(details)

    def __str__(self) -> str:
        return self.message if self.remedy is None else f"{self.message} {self.remedy}"


class UnexpectedError(Exception):
    """A fault of this program, raised from the exception that shows it.

    Args:
        directory: The run's, where the details belong; None before there is one.
    """

    def __init__(self, directory: Path | None) -> None:
        super().__init__("unexpected error")
        self.directory = directory


class UsageError(BundleError):
    """An argument or option that cannot be used as given."""


class ConfigError(BundleError):
    """A model or task file that cannot be used as written."""


class CheckpointError(BundleError):
    """A model directory that cannot be served as it is."""


class TokenizerError(CheckpointError):
    """A tokenizer that does not reproduce its input, so that no score made with it can be trusted."""


class TemplateError(BundleError):
    """A server that builds other prompts than the checkpoint's chat template, so that no score can be trusted."""

    exit_code: ClassVar[ExitCode] = ExitCode.SERVER


class DataError(BundleError):
    """Questions that could not be found, downloaded or read."""


class AnswerError(BundleError):
    """A reply that could not be searched to the end: neither right nor wrong."""


class UnansweredError(BundleError):
    """A run that is over, although some of its questions have no reply; raised by ``bundle.evaluate`` only."""

    exit_code: ClassVar[ExitCode] = ExitCode.UNANSWERED


class GateError(BundleError):
    """A run that did not do what the user requires of it; raised by ``bundle.evaluate`` only."""

    exit_code: ClassVar[ExitCode] = ExitCode.GATE_NOT_MET


class RunError(BundleError):
    """A run directory that cannot be written, read or continued."""


class ServerError(BundleError):
    """The server did not come up, or died for good."""

    exit_code: ClassVar[ExitCode] = ExitCode.SERVER


class EngineMissingError(ServerError):
    """The engine's program is not installed, or not where it was said to be: nothing was started."""

    exit_code: ClassVar[ExitCode] = ExitCode.USAGE
