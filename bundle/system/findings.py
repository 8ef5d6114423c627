"""What a look at the machine comes to, and the checks that find it (``bundle doctor``)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How good a finding is. The order is that of the exit codes."""

    OK = "ok"
    WARNING = "warning"
    FAILING = "failing"

    @property
    def exit_code(self) -> int:
        """0, 1 or 2."""
        return list(Status).index(self)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. Its remedy is None where there is nothing to do."""

    status: Status
    text: str
    remedy: str | None = None
    details: tuple[str, ...] = ()


def ok(text: str, details: Iterable[str] = ()) -> Finding:
    """Something is as it should be."""
    return Finding(Status.OK, text, details=tuple(details))


def warning(text: str, remedy: str | None, details: Iterable[str] = ()) -> Finding:
    """Something will not stop a run, but may slow it down, or stop another one."""
    return Finding(Status.WARNING, text, remedy, tuple(details))


def failing(text: str, remedy: str | None, details: Iterable[str] = ()) -> Finding:
    """Something will stop a run."""
    return Finding(Status.FAILING, text, remedy, tuple(details))


def worst(findings: Iterable[Finding]) -> Status:
    """The worst of all findings; ok if there are none."""
    return max((finding.status for finding in findings), key=lambda status: status.exit_code, default=Status.OK)


@dataclass(frozen=True, slots=True)
class Check:
    """Something to look at.

    Attributes:
        look: Does it. Whatever it raises becomes a finding.
        waits_for: What keeps it waiting if it does not end in time.
        patience: How many times the usual limit it may take.
    """

    topic: str
    look: Callable[[], Iterable[Finding]]
    waits_for: str
    patience: float = 1.0


SLOW = 3.0
"""The patience for what reads gigabytes from a disk that may be cold."""
