"""What a run's replies show over time and by their length, in few enough numbers to draw."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any, Final

from bundle.runs.gpu_load import GpuLoad
from bundle.runs.predictions import Prediction
from bundle.runs.statistics import wilson

_MOST_BINS: Final = 60
_BREAK_S: Final = 30.0
"""Longer without a request in flight is a break, as between the parts of a run that was resumed; it is left out."""
_MOST_LENGTHS: Final = 8
_MOST_POINTS: Final = 120
_NEARLY_ALL: Final = 0.99
_ROUNDED: Final = 1 + 1e-9
"""Makes up for the rounding of a last bin that ends with the time of asking."""


class Asking:
    """The time in which questions were asked, without breaks.

    ``going_on`` says whether questions are being asked still: then it is not known how many wait for their reply now.
    """

    def __init__(self, rows: Sequence[Prediction], *, going_on: bool = False) -> None:
        self._spans = sorted((row.ended_at - row.latency_s, row.ended_at) for row in rows if row.ended_at is not None)
        self._breaks: list[tuple[float, float]] = []
        self._going_on = going_on
        busy_until = self._spans[0][0] if self._spans else 0.0
        for begin, end in self._spans:
            if begin - busy_until > _BREAK_S:
                self._breaks.append((busy_until, begin))
            busy_until = max(busy_until, end)
        self._ended = busy_until
        self._total = 0.0 if not self._spans else self._place(busy_until) or 0.0

    def _place(self, moment: float) -> float | None:
        """The seconds from the first question to a moment; None for one in a break, or not among those of asking."""
        if not self._spans or not self._spans[0][0] <= moment <= self._ended:
            return None
        left_out = 0.0
        for begin, end in self._breaks:
            if begin < moment < end:
                return None
            left_out += end - begin if end <= moment else 0.0
        return moment - self._spans[0][0] - left_out

    def pace(self) -> dict[str, Any] | None:
        """Replies a second and requests in flight; None where the times of replies are not recorded.

        Returns:
            ``width``, the seconds of a bin, and one number per bin in ``rate`` and ``in_flight`` (a mean; None where
            it is not known yet); ``breaks``, the places of breaks in seconds from the start.
        """
        if len(self._spans) < _MOST_LENGTHS or self._total <= 0:
            return None
        bins = min(_MOST_BINS, max(1, len(self._spans) // 4))
        width = self._total / bins
        replies, busy = [0] * bins, [0.0] * bins
        for begin, end in ((self._place(begin) or 0.0, self._place(end) or 0.0) for begin, end in self._spans):
            first, last = (min(bins - 1, int(moment / width)) for moment in (begin, end))
            replies[last] += 1
            for place in range(first, last + 1):
                busy[place] += max(0.0, min(end, (place + 1) * width) - max(begin, place * width))
        # Who waits still is in no row. Few began to before the last reply by more than nearly all others took.
        lengths = sorted(end - begin for begin, end in self._spans)
        known_until = self._total - (lengths[int(_NEARLY_ALL * len(lengths))] if self._going_on else 0.0)
        return {
            "width": width,
            "rate": [round(n / width, 3) for n in replies],
            "in_flight": [
                round(seconds / width, 2) if (place + 1) * width <= known_until * _ROUNDED else None
                for place, seconds in enumerate(busy)
            ],
            "breaks": [round(self._place(begin) or 0.0, 3) for begin, _ in self._breaks],
        }

    def gpus(self, loads: Sequence[GpuLoad]) -> list[dict[str, Any]]:
        """What every GPU did.

        Returns:
            For each ``gpu``, its number; ``utilization`` and ``used``, pairs of a place in seconds and a number, in
            percent and in GiB; their ``mean`` and their ``most``, and ``memory``, all of it in GiB. Several rows that
            are close together are one pair, their mean. A GPU of which nothing is known is left out.
        """
        placed: dict[int, list[tuple[float, GpuLoad]]] = {}
        for load in loads:
            if (place := self._place(load.at)) is not None:
                placed.setdefault(load.gpu, []).append((place, load))
        found = []
        for gpu, rows in sorted(placed.items()):
            busy = self._thinned([(place, load.utilization) for place, load in rows])
            used = self._thinned([(place, load.used_mib) for place, load in rows], 1 / 1024)
            if busy or used:
                found.append(
                    {
                        "gpu": gpu,
                        "utilization": busy,
                        "mean": round(fmean(value for _, value in busy)) if busy else None,
                        "used": used,
                        "most": max((value for _, value in used), default=None),
                        "memory": round(total / 1024, 1) if (total := rows[-1][1].total_mib) else None,
                    }
                )
        return found

    def _thinned(self, values: Iterable[tuple[float, int | None]], unit: float = 1.0) -> list[tuple[float, float]]:
        """At most `_MOST_POINTS` means, of equal parts of the time."""
        bins: dict[int, list[tuple[float, float]]] = {}
        for place, value in values:
            if value is not None:
                bins.setdefault(int(_MOST_POINTS * place / (self._total or 1.0)), []).append((place, value * unit))
        return [
            (round(fmean(place for place, _ in one), 2), round(fmean(value for _, value in one), 1))
            for _, one in sorted(bins.items())
        ]


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
