"""A comparison in plain words."""

import re
from collections.abc import Iterator

from bundle.reports.comparison.comparison import Comparison
from bundle.reports.comparison.rows import Row, Standing
from bundle.system.text import one_line

_FINGERPRINT = re.compile(r"[0-9a-f]{40}")


def verdict(row: Row) -> str:
    """Whether a group's or a subject's difference is more than chance, in one sentence."""
    if row.lost + row.won == 0:
        return f"{row.name}: no difference at all: every question is right in both runs or wrong in both."
    moved = f"{row.name}: {_direction(row)}"
    flips = f"{row.won} questions won, {row.lost} lost, {p_says(_p(row))}"
    match row.standing:
        case Standing.BETTER | Standing.WORSE:
            return f"{moved} (95 % interval {between(row)}; {flips}). That is more than chance."
        case Standing.UNCLEAR:
            return (
                f"{moved} (95 % interval {between(row)}; {flips}). That is not clear: the test, in which every "
                "question counts the same, and the interval of the mean, in which every subject does, do not agree."
            )
        case _:
            return f"{moved} (95 % interval {between(row)}; {flips}). That can be chance."


def points(value: float) -> str:
    """A difference with its sign: "+1.25", "−0.50", "0.00"."""
    text = f"{abs(value):.2f}"
    return text if float(text) == 0 else f"{'+' if value > 0 else '−'}{text}"


def between(row: Row) -> str:
    """The interval: "−1.2 to +3.4"."""
    return f"{_short(row.interval.low)} to {_short(row.interval.high)}"


def p_value(p: float) -> str:
    """A p-value as precise as it is worth: "0.31", "0.012", "0.0004", "< 0.0001"."""
    if p < 0.0001:
        return "< 0.0001"
    if p < 0.001:
        return f"{p:.4f}"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def p_says(p: float) -> str:
    """A p-value in a sentence: "p = 0.31", "p < 0.0001"."""
    shown = p_value(p)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"


def left_out(comparison: Comparison) -> Iterator[str]:
    """What was not compared, and what else to know before believing the numbers; one sentence each."""
    unanswered = comparison.only_base + comparison.only_new + comparison.neither
    if unanswered:
        yield (
            f"{_questions(unanswered)} left out, not answered in both: {comparison.only_base} only in the base, "
            f"{comparison.only_new} only in the new run, {comparison.neither} in neither."
        )
    if comparison.not_common:
        yield f"{_questions(comparison.not_common)} left out that only one of the runs was asked."
    if comparison.secret:
        yield f"{_questions(comparison.secret)} left out whose right answers are secret."
    if comparison.other_messages:
        yield f"{_questions(comparison.other_messages)} asked with other messages, such as fewer examples to fit."


def settings(comparison: Comparison) -> Iterator[str]:
    """In what the runs differ besides their answers, one line each."""
    for one in comparison.settings:
        yield f"{one.name}: {_value(one.base)} → {_value(one.new)}"


def _direction(row: Row) -> str:
    amount = f"{abs(row.difference):.2f} points"
    if float(f"{row.difference:.2f}") == 0:
        return f"the same score, {row.new:.2f}"
    return f"{amount} {'better' if row.difference > 0 else 'worse'}, {row.base:.2f} → {row.new:.2f}"


def _p(row: Row) -> float:
    return row.p if row.corrected_p is None else row.corrected_p


def _short(value: float) -> str:
    text = f"{abs(value):.1f}"
    return text if float(text) == 0 else f"{'+' if value > 0 else '−'}{text}"


def _questions(number: int) -> str:
    return "1 question is" if number == 1 else f"{number} questions are"


def _value(value: object) -> str:
    text = "none" if value is None else one_line(str(value), 60)
    return text[:12] if _FINGERPRINT.match(text) else text
