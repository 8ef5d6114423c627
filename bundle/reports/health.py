"""The health of a measurement in plain words, as every report but the page shows it."""

from collections.abc import Iterator

from bundle.runs.health import Example, Finding, Health
from bundle.system.text import plural, printable

DOUBTFUL = "measurement: DOUBTFUL"


def health_lines(health: Health) -> Iterator[str]:
    """One line where all is well; otherwise each fault with an example and what to do."""
    if not health.headline:
        return
    yield health.headline
    if health.is_ok:
        return
    several = len({one.task for one in health.findings}) > 1
    for one in health.findings:
        yield f"  - {described(one, task=several)}"
        if one.is_minor:
            continue
        if one.example is not None:
            yield f"    e.g. {where(one.example)}: {one.example.text}"
        yield f"    {one.remedy}"


def no_reply_lines(health: Health, *, most: int = 5) -> Iterator[str]:
    """Why questions have no reply, the most frequent reasons first, each with what to do."""
    shown = health.no_reply[:most]
    for one in shown:
        yield f"  {one.count} × {one.reason}"
        yield f"      {one.remedy}"
    if rest := health.no_reply[most:]:
        yield f"  {sum(one.count for one in rest)} more, for {plural(len(rest), 'other reason')}: see predictions.jsonl"


def described(finding: Finding, *, task: bool) -> str:
    """What is wrong, where a run has several tasks with the task's name."""
    return f"{printable(finding.task)}: {finding.says}" if task else finding.says


def where(example: Example) -> str:
    """The question of an example, as in "law #3"."""
    return printable(f"{example.subject} #{example.id}")
