"""From the log of a server that did not come up, or died, to a cause and a remedy."""

import re
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from bundle.serving import known_failures
from bundle.serving.known_failures import KNOWN_FAILURES, PACKAGES


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why a server is not there, and what to do about it.

    Attributes:
        cause: The end of a sentence that begins with the server: "the GPU has too little free memory."
        remedy: Whole sentences.
    """

    cause: str
    remedy: str


PORT_TAKEN = Diagnosis(known_failures.PORT_TAKEN.cause, known_failures.PORT_TAKEN.remedy)
GUARDIAN_KILLED = Diagnosis(
    "the process that guards it was killed.",
    "Somebody did that, or the kernel for want of memory: see `dmesg | tail`.",
)

_BY_SIGNAL = {
    signal.SIGKILL: Diagnosis(
        "it was killed, probably by the kernel for want of memory.",
        "See `dmesg | tail`; give the machine or the container more memory, or use a smaller checkpoint.",
    ),
    signal.SIGBUS: Diagnosis(
        "memory it had mapped was not there: the shared memory is full, or a file of weights was cut short.",
        "See `df -h /dev/shm` and the weights' sizes; in a container, see `--shm-size`.",
    ),
    signal.SIGILL: Diagnosis(
        "this CPU lacks instructions that its packages were compiled for.", "Install builds of them for this CPU."
    ),
    signal.SIGSEGV: Diagnosis(
        "it crashed in compiled code.",
        "Check with `bundle doctor` that torch, the engine and the driver belong together.",
    ),
}
# SIGKILL leaves no time for words, so only what was said immediately before can have to do with it.
_LINES_BEFORE_SIGKILL = 5

_MODULE_MISSING = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")
_ERROR_LINE = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception|Exit|Failure)\b|\bERROR\b|\bFATAL\b|^(?i:fatal|error)\b")


def diagnose(log_lines: Sequence[str], returncode: int | None) -> Diagnosis:
    """What a server's log and its end say about the cause.

    Args:
        log_lines: The last lines of its log, oldest first.
        returncode: As of ``subprocess``: negative for a signal; None while it is still running.
    """
    signum = None if returncode is None else _signal_of(returncode)
    if signum == signal.SIGKILL:
        log_lines = log_lines[-_LINES_BEFORE_SIGKILL:]
    return (
        _known(log_lines)
        or _module_missing(log_lines)
        or (_BY_SIGNAL.get(signum) if signum is not None else None)
        or _last_error(log_lines)
    )


def fatal(line: str) -> bool:
    """Whether a server that prints this line while it starts is certain not to come up."""
    return any(pattern.search(line) for failure in KNOWN_FAILURES for pattern in failure.fatal)


def exit_in_words(returncode: int) -> str:
    """``exit code 1`` or ``killed by SIGKILL``."""
    signum = _signal_of(returncode)
    return f"exit code {returncode}" if signum is None else f"killed by {signum.name}"


def _known(log_lines: Sequence[str]) -> Diagnosis | None:
    for failure in KNOWN_FAILURES:
        for pattern in (*failure.fatal, *failure.telling):
            for line in reversed(log_lines):
                if match := pattern.search(line):
                    what = match.group(1).strip().rstrip(".") if match.re.groups else ""
                    return Diagnosis(failure.cause.replace("{0}", what), failure.remedy)
    return None


def _module_missing(log_lines: Sequence[str]) -> Diagnosis | None:
    for line in reversed(log_lines):
        if match := _MODULE_MISSING.search(line):
            module = match.group(1)
            package = PACKAGES.get(module.partition(".")[0], module.partition(".")[0])
            return Diagnosis(f"the Python module {module} is missing.", f"Install it: `pip install {package}`.")
    return None


def _last_error(log_lines: Sequence[str]) -> Diagnosis:
    said = [line.strip() for line in log_lines if line.strip()]
    if not said:
        return Diagnosis("it printed nothing that would say why.", "See `bundle doctor` for what is installed.")
    errors = [line for line in said if _ERROR_LINE.search(line)]
    return Diagnosis(f"the last it said of it is {(errors or said)[-1]!r}.", "The lines before may tell more.")


def _signal_of(returncode: int) -> signal.Signals | None:
    """The signal that ended a process; a shell in between reports it as 128 and its number."""
    with suppress(ValueError):
        if returncode < 0:
            return signal.Signals(-returncode)
        if returncode > 128:
            return signal.Signals(returncode - 128)
    return None
