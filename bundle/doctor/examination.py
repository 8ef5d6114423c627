"""All checks of ``bundle doctor``, run at the same time, none for longer than it may.

A check's module is imported when the check runs: a package that is missing is a finding of the checks that need it, and
slow ones are imported while other checks wait for programs and servers.
"""

import importlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import typer

from bundle.errors import BundleError
from bundle.runs.finding import OUTPUTS
from bundle.serving.machine import Machine
from bundle.system.background import begin
from bundle.system.findings import SLOW, Check, Finding, Status, failing, warning, worst
from bundle.system.text import hanging, one_line

# What waits for a program gives up a little before its check does, for it can say what it waited for.
_OF_LIMIT: Final = 0.9
# Ending processes takes seconds, removing gigabytes longer: neither should be given up halfway.
_CLEANING_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Options:
    """What to look at besides the machine.

    ``limit_s`` is the time limit of a check; slow ones have three times as long.
    """

    data: str | None = None
    model_dir: Path | None = None
    out: Path = OUTPUTS
    clean: bool = False
    limit_s: float = 10.0


def examine(options: Options) -> Iterator[tuple[str, Finding]]:
    """Run all checks at once and yield each finding with its topic."""
    for topic, findings in run_checks(all_checks(options), options.limit_s):
        for finding in findings:
            yield topic, finding


def all_checks(options: Options) -> list[Check]:
    """Every check, in the order of the report."""
    machine = Machine(_OF_LIMIT * options.limit_s)
    limit_s, clean, out = options.limit_s, options.clean, options.out
    cleaning = max(SLOW, _CLEANING_S / limit_s) if clean else SLOW
    checks = [
        Check("system", _later("machine", "check_system"), "the system"),
        Check("packages", _later("machine", "check_packages", machine), "the disk that Python is on"),
        Check("gpu", _later("machine", "check_gpus", machine), "nvidia-smi"),
        Check("gpu memory", _later("machine", "check_gpu_memory", machine), "nvidia-smi"),
        Check("engine", _later("machine", "check_engine", machine), "nvidia-smi"),
        *_engines(machine),
    ]
    if options.model_dir is not None:
        look = _later("inputs", "check_checkpoint", options.model_dir, machine, _OF_LIMIT * SLOW * limit_s)
        checks.append(Check("checkpoint", look, "the checkpoint's disk", SLOW))
    # Two servers may have to be asked for data, one after the other.
    data = _later("inputs", "check_data", options.data, _OF_LIMIT / 2 * limit_s)
    checks += [
        Check("data", data, "the source of the questions"),
        Check("disk", _later("resources", "check_output", out), f"the disk of {out}"),
        Check("disk", _later("resources", "check_caches"), "the disk of the caches or of temporary files"),
        Check("network", _later("resources", "check_loopback"), "the network"),
        Check("network", _later("resources", "check_proxies"), "the network"),
        Check("network", _later("resources", "check_descriptors"), "the system"),
        Check("leftovers", _later("leftovers", "check_processes", clean), "the list of processes", cleaning),
        Check("leftovers", _later("leftovers", "check_files", out, clean), "a disk", cleaning),
        Check("leftovers", _later("leftovers", "check_converted", clean), "the disk of the cache", cleaning),
    ]
    topics = list(dict.fromkeys(check.topic for check in checks))
    return sorted(checks, key=lambda check: topics.index(check.topic))


def run_checks(checks: Sequence[Check], limit_s: float) -> Iterator[tuple[str, tuple[Finding, ...]]]:
    """Run checks at once and yield each topic with its findings, in the order given.

    The threads are daemons: a driver that hangs in the kernel, or a disk that does not answer, must not keep this
    program from ending.
    """
    began = time.monotonic()
    for check, started in [(check, begin(partial(_findings, check))) for check in checks]:
        limit = limit_s * check.patience
        try:
            found = started.result(max(0.0, began + limit - time.monotonic()))
        except TimeoutError:
            waited = f"unknown: {check.waits_for} did not answer within {limit:g} s"
            found = (warning(waited, "If it is only slow, allow more time with --time-limit SECONDS."),)
        yield check.topic, found


def _later(module: str, function: str, *arguments: object) -> Callable[[], Iterable[Finding]]:
    """A function of this package, imported when it is called."""

    def look() -> Iterable[Finding]:
        found: Iterable[Finding] = getattr(importlib.import_module(f"bundle.doctor.{module}"), function)(*arguments)
        return found

    return look


def _engines(machine: Machine) -> list[Check]:
    try:
        from bundle.serving.engines import ENGINES  # imported late: see above
    except ModuleNotFoundError as error:
        missing = _missing(error)
        return [Check("engine", lambda: [missing], "nothing")]
    return [check for engine in ENGINES.values() for check in engine.checks(machine)]


def _findings(check: Check) -> tuple[Finding, ...]:
    try:
        return tuple(check.look())
    except BundleError as error:
        return (failing(error.message, error.remedy, error.details),)
    except ModuleNotFoundError as error:
        return (_missing(error),)
    except Exception as error:  # one check that fails must not hide what the others found
        return (warning(f"cannot be checked: {type(error).__name__}: {error}", None),)


def _missing(error: ModuleNotFoundError) -> Finding:
    return failing(
        f"cannot be checked: the package {error.name} is not installed",
        "Install this program with all its packages: `pip install .` in a checkout of it.",
    )


# Green and yellow as on the screen of a run.
_COLOURS: Final[Mapping[Status, int | str]] = {Status.OK: 28, Status.WARNING: 130, Status.FAILING: "red"}
_TOPIC_WIDTH: Final = 11
_INDENT: Final = " " * (10 + _TOPIC_WIDTH)
_LONGEST: Final = 600


def lines(topic: str, finding: Finding) -> list[str]:
    """A finding as plain text: its status, its topic, what was found; below that details and the remedy."""
    shown = [f"{finding.status:<8}  {topic:<{_TOPIC_WIDTH}}{one_line(finding.text, _LONGEST)}"]
    shown += [f"{_INDENT}  {one_line(detail, _LONGEST)}" for detail in finding.details]
    if finding.remedy is not None:
        shown.append(f"{_INDENT}-> {one_line(finding.remedy, _LONGEST)}")
    return shown


def show(topic: str, finding: Finding) -> None:
    """Print a finding; on a terminal its status is coloured."""
    first, *others = lines(topic, finding)
    first = hanging(first, len(_INDENT))
    others = [hanging(line, len(line) - len(line.lstrip()) + 2) for line in others]
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        word = finding.status.value
        first = typer.style(word, fg=_COLOURS[finding.status], bold=True) + first[len(word) :]
    for line in (first, *others):
        typer.echo(line)


def show_summary(findings: Iterable[Finding]) -> None:
    """Print the last line: how many findings there are of each kind."""
    found = [finding.status for finding in findings]
    typer.echo(", ".join(f"{found.count(status)} {status}" for status in Status))


def to_json(findings: Sequence[tuple[str, Finding]]) -> dict[str, Any]:
    """All findings, each with its topic, as what JSON can hold."""
    return {
        "status": worst(finding for _, finding in findings).value,
        "findings": [{"topic": topic, **asdict(finding)} for topic, finding in findings],
    }
