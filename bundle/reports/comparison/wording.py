"""A comparison in plain words."""

import re
from collections.abc import Iterator

from bundle.reports.comparison.comparison import Comparison
from bundle.reports.comparison.rows import Row, Standing
from bundle.reports.health import described
from bundle.system.text import one_line, plural

_FINGERPRINT = re.compile(r"[0-9a-f]{40}")


def verdict(row: Row) -> str:
    """Whether a difference is statistically significant, in one or two sentences."""
    if row.lost + row.won == 0:
        return f"{row.name}: no difference: every question is correct in both runs or wrong in both."
    moved = (
        f"{row.name}: {_direction(row)} (95 % interval {between(row)}; "
        f"{row.won} won, {lost(row)}, {p_says(row.shown_p)})."
    )
    match row.standing:
        case Standing.BETTER | Standing.WORSE:
            return f"{moved} Statistically significant: chance alone would rarely make such a difference."
        case Standing.UNCLEAR:
            return (
                f"{moved} Unclear: the test, which gives every question the same weight, and the interval of the mean, "
                "which gives every subject the same weight, disagree."
            )
        case _:
            return f"{moved} Not statistically significant: it may be due to chance."


def lost(row: Row) -> str:
    """The questions lost, and how: "8 lost", or "168 lost (12 to another letter, 156 to no letter)"."""
    if not row.lost_without:
        return f"{row.lost} lost"
    return f"{row.lost} lost ({row.lost - row.lost_without} to another letter, {row.lost_without} to no letter)"


def points(value: float) -> str:
    """A difference with its sign: "+1.25", "−0.50", "0.00"."""
    return _signed(value, 2)


def between(row: Row) -> str:
    """The interval: "−1.2 to +3.4"."""
    return f"{_signed(row.interval.low, 1)} to {_signed(row.interval.high, 1)}"


def p_value(p: float) -> str:
    """A p-value with as many digits as are meaningful: "0.31", "0.012", "0.0004", "< 0.0001"."""
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
    """What was not compared, and what else to know before relying on the numbers; one sentence each."""
    unanswered = comparison.only_base + comparison.only_new + comparison.neither
    if unanswered:
        yield (
            f"{plural(unanswered, 'question')} excluded because not answered in both runs: {comparison.only_base} "
            f"answered only in the base, {comparison.only_new} only in the new run, {comparison.neither} in neither."
        )
    if comparison.not_common:
        yield f"{plural(comparison.not_common, 'question')} excluded because only one of the runs includes them."
    if comparison.secret:
        yield f"{plural(comparison.secret, 'question')} excluded because the gold answers are secret."
    before, now = comparison.unparsed
    if before or now:
        yield f"Replies without an option: {before} in the base, {now} in the new run."
    for label, run in (("base", comparison.base), ("new", comparison.new)):
        for one in run.health.grave:
            yield f"Doubtful measurement ({label}): {described(one, task=len(run.tasks) > 1)}. {one.remedy}"
    if comparison.other_messages:
        yield f"{plural(comparison.other_messages, 'question')} sent with different messages, such as fewer examples."


def settings(comparison: Comparison) -> Iterator[str]:
    """Settings in which the runs differ, one line each."""
    for one in comparison.settings:
        yield f"{one.name}: {_value(one.base)} → {_value(one.new)}"


def _direction(row: Row) -> str:
    if float(f"{row.difference:.2f}") == 0:
        return f"the same score, {row.new:.2f}"
    better = "better" if row.difference > 0 else "worse"
    return f"{abs(row.difference):.2f} points {better}, {row.base:.2f} → {row.new:.2f}"


def _signed(value: float, digits: int) -> str:
    text = f"{abs(value):.{digits}f}"
    return text if float(text) == 0 else f"{'+' if value > 0 else '−'}{text}"


def _value(value: object) -> str:
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value)) or None
    text = "none" if value is None else one_line(str(value), 60)
    return text[:12] if _FINGERPRINT.match(text) else text
