"""From the log of a server that did not start, or died, to a cause and a remedy."""

import re
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from bundle.serving.known_failures import COMMON_FAILURES, ENGINE_GONE, NO_MEMORY, PORT_TAKEN, KnownFailure, raised


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why a server is gone, and the remedy.

    Attributes:
        passing: Whether a second start may well succeed.
        line: The line of the log that shows it; None if the cause is not certain.
    """

    cause: str
    remedy: str
    passing: bool = False
    line: str | None = field(default=None, compare=False)


GUARDIAN_KILLED: Final = Diagnosis(
    "the process that guards it was killed.",
    "A user killed it, or the kernel for lack of memory: see `dmesg | tail`.",
)

_BY_SIGNAL: Final = {
    signal.SIGKILL: Diagnosis("it was killed, probably by the kernel for lack of memory.", NO_MEMORY),
    signal.SIGXCPU: Diagnosis("its CPU time limit was used up.", "Raise the limit (`ulimit -t`)."),
    signal.SIGBUS: Diagnosis(
        "memory it had mapped was missing: the shared memory is full, or a weight file was truncated.",
        "See `df -h /dev/shm` and the sizes of the weight files; in a container, see `--shm-size`.",
    ),
    signal.SIGILL: Diagnosis(
        "this CPU lacks instructions that its packages were compiled for.", "Install builds of them for this CPU."
    ),
    signal.SIGSEGV: Diagnosis(
        "it crashed in compiled code.",
        "Check with `bundle doctor` that torch, the engine and the driver fit together.",
    ),
}
# SIGKILL leaves no time for words, so only what was printed immediately before can have to do with it.
_LINES_BEFORE_SIGKILL: Final = 5
# What a server that was ready missed while it started, it can do without.
_LINES_OF_AN_END: Final = 10

_WARNING: Final = re.compile(r"\bWARN(?:ING)?\b|\b[A-Z]\w*Warning: |^\[W\b")
_MODULE_MISSING: Final = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")
_ERROR_LINE: Final = re.compile(
    r"^[A-Za-z_][\w.]*(?:Error|Exception|Exit|Failure)\b|\bERROR\b|\bFATAL\b|^(?i:fatal|error)\b"
)

_EXCEPTION: Final = re.compile(raised(r"\w*(?:Error|Exception)", "") + r"|^ *Value error, ")  # the latter: pydantic's
_TRACEBACK: Final = "Traceback (most recent call last):"
_CHAINED: Final = ("The above exception was", "During handling of the above exception")
_SEE_ABOVE: Final = re.compile(
    r"See (?:root cause|stack trace) (?:\(?above|for root)|engine process (?:is not alive|exited before)"
)
"""What follows from an error that was printed before; the last two are lmdeploy's, of a dead engine process."""
_BARE_EXCEPTION: Final = re.compile(r"[\w.]+(?:Error|Exception)")
_CARETS: Final = re.compile(r"[\s^~]*")

# What to install for a missing module; any other has its package's name.
_PACKAGES: Final = {
    "lmdeploy": "'.[gpu]'",
    "_turbomind": "--force-reinstall '.[gpu]'",
    "torch": "'.[gpu]'` or `pip install '.[cpu]'",
    "transformers": "'.[gpu]'` or `pip install '.[cpu]'",
    "ray": "'ray[default]'",
    "google": "protobuf",
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "yaml": "pyyaml",
    "sklearn": "scikit-learn",
    "flash_attn": "flash-attn --no-build-isolation",
}


def diagnose(
    log_lines: Sequence[str],
    returncode: int | None,
    failures: Sequence[KnownFailure] = (),
    *,
    was_ready: bool = False,
    engine_gone: bool = False,
) -> Diagnosis:
    """What a server's log and its end say about the cause.

    Args:
        returncode: As in ``subprocess``: negative for a signal; None while it is still running.
        failures: The engine's own, which are considered before those in common.
        was_ready: Whether it had started, so that no failure of a start is the cause.
        engine_gone: Whether a process of its engine has ended, which explains an end without an exception.
    """
    signum = None if returncode is None else _signal_of(returncode)
    if signum == signal.SIGKILL:
        log_lines = log_lines[-_LINES_BEFORE_SIGKILL:]
    near_the_end = log_lines[-_LINES_OF_AN_END if was_ready else 0 :]
    exception = last_exception(log_lines)
    return (
        known_failure(log_lines, failures, was_ready=was_ready)
        or (None if signum else _module_missing(near_the_end if exception is None else _serious(near_the_end)))
        or (None if signum is None else _BY_SIGNAL.get(signum))
        or (Diagnosis(ENGINE_GONE.cause, ENGINE_GONE.remedy) if engine_gone and exception is None else None)
        or _last_error(log_lines)
    )


def fatal(line: str, failures: Sequence[KnownFailure] = ()) -> bool:
    """Whether a server that prints this line while starting is certain to fail."""
    patterns = (pattern for failure in (*failures, *COMMON_FAILURES) for pattern in failure.fatal)
    return not _WARNING.search(line) and any(re.search(pattern, line) for pattern in patterns)


def exit_in_words(returncode: int) -> str:
    """``exit code 1`` or ``killed by SIGKILL``."""
    signum = _signal_of(returncode)
    return f"exit code {returncode}" if signum is None else f"killed by {signum.name}"


def known_failure(
    log_lines: Sequence[str], failures: Sequence[KnownFailure] = (), *, was_ready: bool = False
) -> Diagnosis | None:
    """What a server's log reveals of its ways to fail; None if nothing. See ``diagnose``."""
    considered = sorted((*failures, *COMMON_FAILURES), key=lambda failure: (failure.passing, failure.vague))
    considered = [failure for failure in (PORT_TAKEN, *considered) if not (was_ready and failure.passing)]
    # A traceback after a warning belongs to it, or is of a crash that had nothing to do with it.
    return _revealed(_serious(log_lines), considered) or _revealed(
        [line for line in log_lines if not _WARNING.search(line)], considered
    )


def _revealed(lines: Sequence[str], failures: Sequence[KnownFailure]) -> Diagnosis | None:
    serious = lines[::-1]
    for failure in failures:
        if failure.vague and any(_EXCEPTION.search(line) and not _SEE_ABOVE.search(line) for line in serious):
            continue
        for pattern in (*failure.fatal, *failure.telling):
            for line in serious:
                if match := re.search(pattern, line):
                    what = match.group(1).strip().rstrip(".") if match.re.groups else ""
                    return Diagnosis(failure.cause.replace("{0}", what), failure.remedy, failure.passing, line)
    return None


def last_exception(log_lines: Sequence[str]) -> str | None:
    """The last line of a server's log that names an exception; None if none does."""
    for line in reversed(_serious(log_lines)):
        if _EXCEPTION.search(line) and not _SEE_ABOVE.search(line):
            return line.strip()
    return None


def _serious(log_lines: Sequence[str]) -> list[str]:
    """The lines that are neither warnings nor part of a traceback that was logged with one."""
    kept = []
    warned = within = False
    for line in log_lines:
        if warned and line.startswith(_TRACEBACK):
            within = True
        elif within and (line.startswith((" ", "\t")) or not line.strip()):
            continue
        elif within:  # the exception; one that it was raised from may follow
            within = False
        elif not (warned and line.startswith(_CHAINED)):
            warned = _WARNING.search(line) is not None
            if not warned:
                kept.append(line)
    return kept


def _module_missing(log_lines: Sequence[str]) -> Diagnosis | None:
    for line in reversed(log_lines):
        if match := _MODULE_MISSING.search(line):
            module = match.group(1)
            package = _PACKAGES.get(module.partition(".")[0], module.partition(".")[0])
            return Diagnosis(
                f"the Python module {module} is not installed.", f"Install it: `pip install {package}`.", line=line
            )
    return None


def _last_error(log_lines: Sequence[str]) -> Diagnosis:
    printed = [line.strip() for line in log_lines if line.strip()]
    if not printed:
        return Diagnosis("it printed nothing that explains it.", "`bundle doctor` shows what is installed.")
    first_hand = [line for line in printed if not _SEE_ABOVE.search(line)]
    exceptions = [line for line in first_hand if _EXCEPTION.search(line) and not _WARNING.search(line)]
    last = (exceptions or [line for line in first_hand if _ERROR_LINE.search(line)] or printed)[-1]
    if _BARE_EXCEPTION.fullmatch(last):  # as of an assertion: what was asserted stands before
        before = [line for line in printed[: printed.index(last)] if not _CARETS.fullmatch(line)]
        last = f"{last}: {before[-1]}" if before else last
    return Diagnosis(f"its last output was {last!r}.", "The lines before it may say more.")


def _signal_of(returncode: int) -> signal.Signals | None:
    """The signal that ended a process; a shell in between reports it as 128 plus its number."""
    with suppress(ValueError):
        if returncode < 0:
            return signal.Signals(-returncode)
        if returncode > 128:
            return signal.Signals(returncode - 128)
    return None
