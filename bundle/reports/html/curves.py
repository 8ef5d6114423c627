"""What a run's replies show over time and by their length, in few enough numbers to draw."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

from bundle.runs.predictions import Prediction
from bundle.runs.statistics import wilson

_MOST_BINS: Final = 60
_BREAK_S: Final = 30.0
"""Longer without a request in flight is a break, as between the parts of a run that was resumed; it is left out."""
_MOST_LENGTHS: Final = 8


def pace(rows: Sequence[Prediction]) -> dict[str, Any] | None:
    """Replies a second and requests in flight over the time of asking; None where the times are not recorded.

    Returns:
        ``width``, the seconds of a bin, and one number per bin in ``rate`` and ``in_flight`` (a mean); ``breaks``,
        the places of breaks in seconds from the start.
    """
    spans = sorted((row.ended_at - row.latency_s, row.ended_at) for row in rows if row.ended_at is not None)
    if len(spans) < _MOST_LENGTHS:
        return None
    shifted, breaks = _without_breaks(spans)
    total = max(end for _, end in shifted)
    if total <= 0:
        return None
    bins = min(_MOST_BINS, max(1, len(spans) // 4))
    width = total / bins
    replies, busy = [0] * bins, [0.0] * bins
    for begin, end in shifted:
        first, last = (min(bins - 1, int(moment / width)) for moment in (begin, end))
        replies[last] += 1
        for place in range(first, last + 1):
            busy[place] += max(0.0, min(end, (place + 1) * width) - max(begin, place * width))
    return {
        "width": width,
        "rate": [round(n / width, 3) for n in replies],
        "in_flight": [round(seconds / width, 2) for seconds in busy],
        "breaks": [round(moment, 3) for moment in breaks],
    }


def _without_breaks(spans: Sequence[tuple[float, float]]) -> tuple[list[tuple[float, float]], list[float]]:
    """The spans, by their beginning, in seconds from the first and without the breaks, and where these were."""
    origin = busy_until = spans[0][0]
    shifted, breaks = [], []
    for begin, end in spans:
        if begin - busy_until > _BREAK_S:
            breaks.append(busy_until - origin)
            origin += begin - busy_until
        busy_until = max(busy_until, end)
        shifted.append((begin - origin, end - origin))
    return shifted, breaks


def by_length(rows: Sequence[Prediction]) -> dict[str, Any] | None:
    """Accuracy by length of the reply, in bins of about as many replies; None without several lengths or scores.

    Returns:
        ``unit``, ``tokens`` where all were counted, else ``characters``; and ``bins``, each with its lowest and
        highest length, ``n``, ``accuracy`` and its interval in percent.
    """
    scored = [row for row in rows if row.correct is not None]
    counted = all(row.completion_tokens is not None for row in scored)
    pairs = sorted(
        ((row.completion_tokens or 0) if counted else len(row.reply or ""), bool(row.correct)) for row in scored
    )
    if len({length for length, _ in pairs}) < 2:
        return None
    edges = sorted({pairs[len(pairs) * part // _MOST_LENGTHS][0] for part in range(_MOST_LENGTHS)})
    bins = []
    for low, high in pairwise((*edges, pairs[-1][0] + 1)):
        inside = [(length, right) for length, right in pairs if low <= length < high]
        right = sum(right for _, right in inside)
        interval = wilson(right / len(inside), len(inside))
        bins.append(
            {
                "low": inside[0][0],
                "high": inside[-1][0],
                "n": len(inside),
                "accuracy": 100 * right / len(inside),
                "from": 100 * interval.low,
                "to": 100 * interval.high,
            }
        )
    return {"unit": "tokens" if counted else "characters", "bins": bins} if len(bins) > 1 else None
