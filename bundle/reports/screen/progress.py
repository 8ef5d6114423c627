"""How far a run is."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from bundle.runs.predictions import Prediction
from bundle.system.text import duration, plural, printable
from bundle.tasks.scores import Part

_FAILED, _UNSCORED, _WRONG, _RIGHT = 1, 2, 3, 4
"""What a question has come to; 0 if it was not asked. Whether an answer is right is not known where that is secret."""


class Progress:
    """Progress of a run.

    Args:
        learned_rate: The questions a second that a server with a rate limit answers; None if it is not known.
        in_flight: How many requests wait for their reply.

    Attributes:
        done: Questions that were asked.
    """

    def __init__(
        self,
        total: int,
        learned_rate: Callable[[], float | None] = lambda: None,
        in_flight: Callable[[], int] = lambda: 0,
    ) -> None:
        self.total = total
        self._learned_rate = learned_rate
        self._in_flight = in_flight
        self.done = 0
        self._states: dict[Part, bytearray] = {}
        self._failed = 0
        self._scored: Counter[str] = Counter()
        self._right: Counter[str] = Counter()
        self._subjects: set[Part] = set()
        self._retries = 0
        self._started = time.monotonic()

    def count(self, prediction: Prediction) -> None:
        """Count an outcome; it takes the place of the question's earlier one."""
        states = self._states.setdefault(prediction.part, bytearray())
        states.extend(bytes(max(0, prediction.id + 1 - len(states))))
        before = states[prediction.id]
        scored = {None: _UNSCORED, False: _WRONG, True: _RIGHT}[prediction.correct]
        after = states[prediction.id] = _FAILED if prediction.error is not None else scored
        self.done += not before
        self._failed += (after == _FAILED) - (before == _FAILED)
        self._scored[prediction.task] += (after >= _WRONG) - (before >= _WRONG)
        self._right[prediction.task] += (after == _RIGHT) - (before == _RIGHT)
        self._retries += max(prediction.attempts - 1, 0)
        if prediction.error is None:
            self._subjects.add(prediction.part)

    def line(self) -> str:
        """All of it, for a log."""
        parts = [f"{self.done:,} of {plural(self.total, 'question')}"]
        rate, learned = self._rates()
        if rate is not None:
            parts.append(f"{rate:.1f}/s")
            if learned is not None:
                parts.append(f"the server allows about {60 * learned:.0f} a minute")
            if (left_s := self._left_s()) is not None:
                ends = f" (until about {datetime.now() + timedelta(seconds=left_s):%H:%M})" if learned else ""
                parts.append(f"{duration(left_s)} left{ends}")
        if shares := " and ".join(self._shares()):
            # Subjects are asked one after the other, so this does not estimate the score.
            so_far = "" if self.done >= self.total else f" in {plural(len(self._subjects), 'subject')} so far"
            parts.append(f"{shares} correct{so_far}")
        if self._failed:
            parts.append(f"{self._failed} without a reply")
        return ", ".join(parts)

    def labels(self) -> list[tuple[int, str]]:
        """The same for a terminal, in the order of their places, each with its rank: what has a high one gives way."""
        labels = [(0, f"{self.done:,}/{self.total:,}")]
        if shares := " and ".join(self._shares()):
            labels.append((2, f"{shares} correct"))
        rate, learned = self._rates()
        if rate is not None:
            labels.append((3, f"{rate:.1f}/s"))
            if learned is not None:
                labels.append((5, f"limit {60 * learned:.0f}/min"))
            if (left_s := self._left_s()) is not None:
                labels.append((1, f"{duration(left_s)} left"))
        if waiting := self._in_flight():
            labels.append((6, f"{waiting} in flight"))
        if self._retries:
            labels.append((7, plural(self._retries, "retry", "retries")))
        if self._failed:
            labels.append((4, f"{self._failed} failed"))
        return labels

    def _rates(self) -> tuple[float | None, float | None]:
        elapsed = time.monotonic() - self._started
        if elapsed <= 0 or not self.done:
            return None, None
        return self.done / elapsed, self._learned_rate()

    def _left_s(self) -> float | None:
        rate, learned = self._rates()
        rate = learned or rate
        return None if rate is None or self.done >= self.total else max(1, (self.total - self.done) / rate)

    def _shares(self) -> Iterator[str]:
        several = len(self._scored) > 1
        for task, count in list(self._scored.items()):  # another thread counts, too
            name = f"{printable(task)} " if several else ""
            if count:
                yield f"{name}{100 * self._right[task] / count:.1f} % of {count:,}"
