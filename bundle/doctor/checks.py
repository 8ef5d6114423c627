"""Checks run at the same time, none for longer than it may."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from bundle.doctor.findings import Finding, failing, warning
from bundle.errors import BundleError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Check:
    """Something to look at.

    Attributes:
        topic: What it is about, in a word or two.
        look: Does it. Whatever it raises becomes a finding.
        waits_for: Who or what keeps it waiting when it does not end in time.
        patience: How many times the usual limit it may take.
    """

    topic: str
    look: Callable[[], Iterable[Finding]]
    waits_for: str
    patience: float = 1.0


def examine(checks: Sequence[Check], limit_s: float) -> Iterator[tuple[str, tuple[Finding, ...]]]:
    """Run all checks at once and yield each topic with its findings, in the order given.

    The threads are daemons: a driver that hangs in the kernel, or a disk that does not answer, must not keep this
    program from ending.

    Args:
        checks: What to look at.
        limit_s: Most seconds that a check of usual patience may take.
    """
    began = time.monotonic()
    running = [(check, _Running(check)) for check in checks]
    for check, examination in running:
        limit = limit_s * check.patience
        found = examination.result(max(0.0, began + limit - time.monotonic()))
        if found is None:
            found = (
                warning(
                    f"not known: {check.waits_for} did not answer within {limit:g} s",
                    "If it is only slow, give it longer with --time-limit SECONDS.",
                ),
            )
        yield check.topic, found


class _Running:
    """A check under way in a thread of its own."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._done = threading.Event()
        self._found: tuple[Finding, ...] = ()
        threading.Thread(target=self._run, daemon=True, name=f"check {check.topic}").start()

    def result(self, seconds: float) -> tuple[Finding, ...] | None:
        """What was found; None where that takes longer than ``seconds`` from now."""
        return self._found if self._done.wait(seconds) else None

    def _run(self) -> None:
        try:
            self._found = tuple(self._check.look())
        except BundleError as error:
            self._found = (failing(error.message, error.remedy, error.details),)
        except ModuleNotFoundError as error:
            self._found = (
                failing(
                    f"cannot be checked: the package {error.name} is not installed",
                    "Install this program with all its packages: `pip install .` in a checkout of it.",
                ),
            )
        except Exception as error:  # one check that fails must not hide what the others found
            self._found = (warning(f"cannot be checked: {type(error).__name__}: {error}", None),)
        finally:
            self._done.set()


class Fact(Generic[T]):
    """Something several checks want to know: found out once, by the first that asks."""

    def __init__(self, find_out: Callable[[], T]) -> None:
        self._find_out = find_out
        self._lock = threading.Lock()
        self._known: list[T] = []
        self._error: Exception | None = None

    def __call__(self) -> T:
        """What is so; whatever finding it out raised is raised again."""
        with self._lock:
            if not self._known and self._error is None:
                try:
                    self._known.append(self._find_out())
                except Exception as error:
                    self._error = error
        if self._error is not None:
            raise self._error
        return self._known[0]
