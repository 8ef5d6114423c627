"""The health of a measurement in plain words, as every report but the page shows it."""

from collections.abc import Iterator

from bundle.reports.texts import ENGLISH, Words
from bundle.runs.health import MINOR, Example, Finding, Health
from bundle.system.text import printable


def headline(health: Health, words: Words = ENGLISH) -> str:
    """The verdict in one line; "" without replies."""
    if not health.replies:
        return ""
    if health.is_ok:
        return words.join([words("screen.ok"), *(_said(one, words) for one in health.findings)])
    if health.unparsed < MINOR * health.replies:
        return words("screen.doubtful")
    counts = {"unparsed": health.unparsed, "replies": health.replies, "percent": health.unparsed_percent}
    return words("screen.doubtful_unparsed", **counts)


def health_lines(health: Health, words: Words = ENGLISH) -> Iterator[str]:
    """One line where all is well; otherwise each fault with an example and what to do."""
    if not health.replies:
        return
    yield headline(health, words)
    if health.is_ok:
        return
    several = len({one.task for one in health.findings}) > 1
    for one in health.findings:
        yield f"  - {described(one, task=several, words=words)}"
        if one.is_minor:
            continue
        if one.example is not None:
            yield words("screen.example", where=where(one.example), text=one.example.text)
        yield f"    {words(f'remedy.{one.fault}')}"


def no_reply_lines(health: Health, *, most: int = 5, words: Words = ENGLISH) -> Iterator[str]:
    """Why questions have no reply, the most frequent reasons first, each with what to do."""
    shown = health.no_reply[:most]
    for one in shown:
        yield f"  {one.count} × {one.reason}"
        yield f"      {words(f'cause.{one.cause}')}"
    if rest := health.no_reply[most:]:
        yield words("screen.other_reasons", n=sum(one.count for one in rest), reasons=len(rest))


def described(finding: Finding, *, task: bool, words: Words = ENGLISH) -> str:
    """What is wrong, where a run has several tasks with the task's name."""
    said = _said(finding, words)
    return f"{printable(finding.task)}: {said}" if task else said


def where(example: Example) -> str:
    """The question of an example, as in "law #3"."""
    return printable(f"{example.subject} #{example.id}")


def _said(finding: Finding, words: Words) -> str:
    return words(f"fault.{finding.fault}", **finding.filled)
