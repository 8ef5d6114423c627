"""How many requests are in flight at once."""

import asyncio
import enum
from collections import deque

_FIRST_LIMIT = 16
_WORTHWHILE_GAIN, _FULL_GAIN = 1.2, 1.7
_SLOW, _SHRUNK, _LOSS = 3.0, 0.75, 0.88
_MISSES = 2
_PATIENCE = 8
_MANY = 0.4
_REST_S, _LONGEST_REST_S = 15.0, 240.0
_ENOUGH_ALONE = 3


class _Growth(enum.Enum):
    DOUBLING = enum.auto()
    RESTING = enum.auto()
    CREEPING = enum.auto()


class Window:
    """Limits the number of concurrent requests. Use as an async context manager, once per request.

    How many a server of our own can handle is known (``adaptive=False``). For any other server the window searches for
    it, as congestion control does:

    - It starts small and doubles as long as that gives a fifth more replies per second, or quadruples if the last step
      gave nearly as many more as it could. It quadruples before the first reply, too, when replies to all requests in
      flight have begun to arrive: then none of them is queueing at the server. Long replies are not waited for.
    - When two rounds in a row gain nothing, it returns to the last useful width, and tries again eight rounds later.
    - When replies take three times as long as in the quickest round without a higher rate, requests are queueing at the
      server: the window shrinks by a quarter. If that makes replies no quicker, the server has become slower, and the
      window is what it was.
    - When the server refuses many requests of a round as too many, it shrinks to as many as the server has in hand, or
      to half. A quarter of a minute later it grows by an eighth per round, until the server refuses again with as many
      in hand; then it shrinks again and waits twice as long, for every refusal makes all requests pause. Fewer
      refusals say something about the rate of requests, which the client slows, not about their number. So do those
      of a request that is the only one: after three the window is as wide as it was, and refusals change it no more.

    A round is as many replies as the window is wide, so every figure is a mean over all requests in flight. The rate of
    replies follows from how many were in flight and how long they took (Little's law); if counted, it would rise and
    fall with the waves in which a batching server replies.

    Args:
        most: Upper limit.
        adaptive: Whether to search for a lower one.
    """

    def __init__(self, most: int, *, adaptive: bool) -> None:
        self.most = most
        self.limit = min(_FIRST_LIMIT, most) if adaptive else most
        self._adaptive = adaptive
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._growth = _Growth.DOUBLING
        self._rounds_without_gain = 0
        self._last_worthwhile = self.limit
        self._best_rate = 0.0
        self._quickest_s = float("inf")
        self._shrunk_from, self._rate_then = 0, 0.0
        self._rest_s, self._next_rest_s = 0.0, _REST_S
        self._narrowest = 0
        self._refused_alone, self._widest_refused = 0, 1
        self._of_a_wider_window = 0
        self._arriving = 0
        self._begin_round()

    async def __aenter__(self) -> None:
        if self._in_flight < self.limit:
            self._in_flight += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()
            raise

    async def __aexit__(self, *error: object) -> None:
        self._leave()

    def begun(self) -> None:
        """Learn that a reply begins to arrive; `ended` says when it is over."""
        self._arriving += 1
        if self._adaptive and self._growth is _Growth.DOUBLING and not self._best_rate and self._arriving >= self.limit:
            self._last_worthwhile = self.limit
            self._set(4 * self.limit)
            self._begin_round()

    def ended(self) -> None:
        """Learn that a reply which had begun to arrive no longer does."""
        self._arriving -= 1

    def replied(self, latency_s: float, in_flight: float) -> None:
        """Learn from a reply, while so many requests were in flight on average."""
        if not self._adaptive:
            return
        if self._of_a_wider_window > 0:
            self._of_a_wider_window -= 1
            return
        self._replies += 1
        self._in_flight_then += in_flight
        self._latency_s += latency_s
        if self._replies >= self.limit:
            self._end_round()

    def busy(self, in_hand: int) -> None:
        """Learn that the server refused a request as one too many while it had ``in_hand`` others to answer."""
        self._refused += 1
        if not self._adaptive or self._refused_alone >= _ENOUGH_ALONE:
            return
        if self._in_flight == 1:
            self._refused_alone += 1
            if self._refused_alone == _ENOUGH_ALONE:
                self._growth = _Growth.DOUBLING
                self._set(self._widest_refused)
                self._begin_round()
                return
        self._widest_refused = max(self._widest_refused, self.limit)
        as_before = self._growth is _Growth.CREEPING and in_hand >= self._last_worthwhile
        if not self._narrowest and (as_before or self._refused > _MANY * self.limit):
            self._growth = _Growth.CREEPING
            self._rest_s = self._next_rest_s
            self._next_rest_s = min(2 * self._next_rest_s, _LONGEST_REST_S)
            self._begin_round()
            # All requests in flight may meet that: halving once a round is enough.
            self._narrowest = max(1, self.limit // 2)
        if self._narrowest:
            self._set(min(self.limit, max(self._narrowest, in_hand)))
            self._last_worthwhile = self.limit

    def _end_round(self) -> None:
        latency_s = max(self._latency_s / self._replies, 1e-6)
        rate = self._in_flight_then / self._replies / latency_s
        self._quickest_s = min(self._quickest_s, latency_s)
        gained, full = rate > self._best_rate * _WORTHWHILE_GAIN, rate > self._best_rate * _FULL_GAIN
        self._best_rate = max(self._best_rate, rate)
        self._rounds_without_gain = 0 if gained else self._rounds_without_gain + 1
        shrunk_from, self._shrunk_from = self._shrunk_from, 0
        if shrunk_from and rate < _LOSS * self._rate_then:
            self._quickest_s, self._best_rate = latency_s, rate
            self._set(shrunk_from)
        elif not gained and latency_s > _SLOW * self._quickest_s and self._growth is not _Growth.DOUBLING:
            self._shrunk_from, self._rate_then = self.limit, rate
            self._set(int(_SHRUNK * self.limit))
        elif self._growth is _Growth.CREEPING:
            self._rest_s -= latency_s  # which is about how long a round takes
            if self._rest_s <= 0:
                self._set(self.limit + max(1, self.limit // 8))
        elif self._growth is _Growth.DOUBLING and gained:
            self._last_worthwhile = self.limit
            self._set((4 if full else 2) * self.limit)
        elif self._growth is _Growth.DOUBLING and self._rounds_without_gain >= _MISSES:
            self._growth = _Growth.RESTING
            self._set(self._last_worthwhile)
        elif self._growth is _Growth.RESTING and self._rounds_without_gain >= _PATIENCE:
            self._growth, self._best_rate, self._rounds_without_gain = _Growth.DOUBLING, rate, 0
            self._last_worthwhile = self.limit
            self._set(2 * self.limit)
        self._begin_round()

    def _begin_round(self) -> None:
        self._replies = 0
        self._latency_s = 0.0
        self._in_flight_then = 0.0
        self._refused = 0
        self._narrowest = 0

    def _set(self, limit: int) -> None:
        limit = max(1, min(limit, self.most))
        if limit < self.limit:
            # These say nothing about the narrower window, and would make it even narrower.
            self._of_a_wider_window = self._in_flight
        self.limit = limit
        self._admit()

    def _leave(self) -> None:
        self._in_flight -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._in_flight < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self._in_flight += 1
                turn.set_result(None)
