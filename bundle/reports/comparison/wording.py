"""A comparison in plain words."""

import re
from collections.abc import Iterator

from bundle.reports.comparison.comparison import Comparison
from bundle.reports.comparison.rows import Row
from bundle.reports.health import described
from bundle.reports.html.settings import without_paths
from bundle.reports.texts import ENGLISH, Words, catalog
from bundle.system.text import one_line

_MEAN = re.compile(r"mean of (\d+) subjects")
"""As `rows` names it."""
_FINGERPRINT = re.compile(r"[0-9a-f]{40}")
_OF_USERS = ("model.headers", "engine.file_environment", "sampling.extra_body", "sampling.max_out_len")
"""Settings that have further ones, with names of their own."""


def verdict(row: Row, words: Words = ENGLISH) -> str:
    """Whether a difference is statistically significant, in one or two sentences."""
    name = named(row, words)
    if row.lost + row.won == 0:
        return words.labelled(name, words("verdict.none"))
    return words(
        "screen.verdict",
        name=name,
        moved=_direction(row, words),
        between=between(row, words),
        won=row.won,
        lost=lost(row, words),
        p=p_says(row.shown_p),
        verdict=words(f"verdict.{row.standing.name.lower()}"),
    )


def named(row: Row, words: Words) -> str:
    """What a row is called: its score's name, or that it is a mean over some of the subjects."""
    return row.name if words.language == "en" else _MEAN.sub(lambda of: words("screen.mean_of", n=of[1]), row.name)


def lost(row: Row, words: Words = ENGLISH) -> str:
    """The questions lost, and how: "8 lost", or "168 lost (12 to another letter, 156 to no letter)"."""
    if not row.lost_without:
        return words("screen.lost", n=row.lost)
    other = row.lost - row.lost_without
    return words("screen.lost_without", n=row.lost, other=other, none=row.lost_without)


def points(value: float) -> str:
    """A difference with its sign: "+1.25", "−0.50", "0.00"."""
    return _signed(value, 2)


def between(row: Row, words: Words = ENGLISH) -> str:
    """The interval: "−1.2 to +3.4"."""
    return words("screen.between", low=_signed(row.interval.low, 1), high=_signed(row.interval.high, 1))


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


def notes(comparison: Comparison) -> Iterator[tuple[str, dict[str, object]]]:
    """What was not compared: the end of a text's key, and the values in it."""
    base, new, neither = comparison.only_base, comparison.only_new, comparison.neither
    if unanswered := base + new + neither:
        yield "unanswered", {"n": unanswered, "base": base, "new": new, "neither": neither}
    if comparison.not_common:
        yield "not_common", {"n": comparison.not_common}
    if comparison.secret:
        yield "secret", {"n": comparison.secret}
    if any(comparison.unparsed):
        yield "unparsed", {"base": comparison.unparsed[0], "new": comparison.unparsed[1]}
    if comparison.other_messages:
        yield "other_messages", {"n": comparison.other_messages}


def left_out(comparison: Comparison, words: Words = ENGLISH) -> Iterator[str]:
    """What was not compared, and what else to know before relying on the numbers; one sentence each."""
    for key, values in notes(comparison):
        yield words(f"compare.{key}", **values)
    for label, run in (("base", comparison.base), ("new", comparison.new)):
        for one in run.health.grave:
            said = described(one, task=len(run.tasks) > 1, words=words)
            yield words(f"screen.doubtful_{label}", said=said, remedy=words(f"remedy.{one.fault}"))


def settings(comparison: Comparison) -> Iterator[tuple[str, str, str, str]]:
    """Settings in which the runs differ: the key of a text, the name in it if any, and the value in either run."""
    for one in comparison.settings:
        kind = next((kind for kind in _OF_USERS if one.name.startswith(f"{kind}.")), "other")
        named = (f"setting.{kind}.of", one.name.removeprefix(f"{kind}.").replace("_", " "))
        key, name = (f"setting.{one.name}", "") if f"setting.{one.name}" in catalog() else named
        yield key, name, _value(one.base), _value(one.new)


def _direction(row: Row, words: Words) -> str:
    if float(f"{row.difference:.2f}") == 0:
        return words("screen.same_score", new=row.new)
    key = "screen.points_better" if row.difference > 0 else "screen.points_worse"
    return words(key, points=abs(row.difference), base=row.base, new=row.new)


def _signed(value: float, digits: int) -> str:
    text = f"{abs(value):.{digits}f}"
    return text if float(text) == 0 else f"{'+' if value > 0 else '−'}{text}"


def _value(value: object) -> str:
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value)) or None
    text = "–" if value is None else one_line(without_paths(str(value)), 80)
    return text[:12] if _FINGERPRINT.match(text) else text
