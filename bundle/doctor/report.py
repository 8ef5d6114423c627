"""The report of all findings: lines for a person, JSON for a program; and amounts as people read them."""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

import typer

from bundle.system.findings import Finding, Status, worst
from bundle.system.text import one_line

_COLOURS: Final = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILING: "red"}
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
        "findings": [
            {
                "topic": topic,
                "status": finding.status.value,
                "text": finding.text,
                "remedy": finding.remedy,
                "details": list(finding.details),
            }
            for topic, finding in findings
        ],
    }


def size(count: float) -> str:
    """Bytes, in the largest unit that leaves a number above one: ``3.6 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """A length of time, in the unit that fits: ``3 min``, ``5 h``, ``40 days``."""
    minutes = seconds / 60
    if minutes < 120:
        return f"{minutes:.0f} min"
    hours = minutes / 60
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"
