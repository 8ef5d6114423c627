"""When the next request may be sent: the rate limit, and the pauses after faults."""

import asyncio
import math
import random
import time
from collections import deque

from aiolimiter import AsyncLimiter

from bundle.errors import UsageError

_MINUTE_S = 60.0
_FIRST_PAUSE_S = 0.5
_FIRST_PAUSE_OF_A_BUSY_SERVER_S = 5.0  # rate limits are mostly per minute: half a second changes nothing
_LONGEST_PAUSE_S = 60.0
_LONGEST_SHARED_PAUSE_S = 30.0
_BETWEEN_PROBES_S = 1.0


class RateLimiter:
    """Spaces requests evenly, at most ``qps`` a second, and counts them.

    aiolimiter's leaky bucket is given a capacity of one request that drains in ``1/qps`` seconds, so there are no
    bursts: two requests are at least ``1/qps`` seconds apart on the event loop's clock, and any window of ``w`` seconds
    holds at most ``floor(w*qps) + 1``. A bucket of capacity ``n`` would release ``n`` at once, and a window could hold
    more than its share. Unused time is not made up for.

    Args:
        qps: Maximum requests per second; None for no limit.

    Raises:
        UsageError: ``qps`` is not a positive number.
    """

    def __init__(self, qps: float | None) -> None:
        if qps is not None and not (qps > 0 and math.isfinite(qps) and math.isfinite(1 / qps)):
            raise UsageError(
                f"{qps:g} is not a valid rate in requests per second.",
                remedy="Give a number above 0, as in --qps 0.16 for one request every 6.25 seconds.",
            )
        self._limiter = None if qps is None else AsyncLimiter(1, 1 / qps)
        self._sent: deque[float] = deque()

    async def turn(self) -> None:
        """Wait until a request may be sent, and count it."""
        if self._limiter is not None:
            await self._limiter.acquire()
        self._sent.append(time.monotonic())
        self._forget()

    @property
    def last_minute(self) -> int:
        """Requests sent in the last 60 seconds."""
        self._forget()
        return len(self._sent)

    def _forget(self) -> None:
        horizon = time.monotonic() - _MINUTE_S
        while self._sent and self._sent[0] <= horizon:
            self._sent.popleft()


class SharedPause:
    """A pause of all requests at once, for faults that are the server's and no question's.

    It doubles while it does not help, and then lets single requests through until one of them succeeds. All times are
    the event loop's.

    Attributes:
        in_vain: How many pauses in a row have been followed by the same fault.
    """

    def __init__(self) -> None:
        self.in_vain = 0
        self._began = -math.inf
        self._until = -math.inf
        self._between_probes_s = 0.0

    def begin(self, sent_at: float, asked_s: float | None) -> None:
        """Pause because of a fault.

        Args:
            sent_at: When the request was sent that met it.
            asked_s: Seconds that the server asks to wait; None if it does not say.
        """
        now = asyncio.get_running_loop().time()
        if sent_at >= self._began:
            self.in_vain += 1
            self._began = now
        elif asked_s is None:
            return  # it was on its way when the pause began
        pause_s = min(_FIRST_PAUSE_S * 2.0 ** min(self.in_vain - 1, 30), _LONGEST_SHARED_PAUSE_S)
        # A server may ask to wait for no time at all and go on refusing.
        if asked_s is not None and (asked_s > 0 or self.in_vain == 1):
            pause_s = asked_s
        self._between_probes_s = min(pause_s, _BETWEEN_PROBES_S)
        self._until = max(self._until, now + pause_s)

    def end(self) -> None:
        """A request has succeeded."""
        self.in_vain = 0
        self._until = -math.inf

    def left_s(self, now: float) -> float:
        """Seconds until the next request may be sent; not positive if it may be sent now."""
        return self._until - now

    def sent(self, now: float) -> None:
        """A request is sent."""
        if self.in_vain > 1:
            self._until = now + self._between_probes_s


def pause_s(attempt: int, *, busy: bool) -> float:
    """Seconds to wait after the ``attempt``-th attempt (from 1): exponential backoff with 25 % jitter.

    Args:
        attempt: How many attempts have failed.
        busy: Whether the server said that it is asked too often.
    """
    first = _FIRST_PAUSE_OF_A_BUSY_SERVER_S if busy else _FIRST_PAUSE_S
    pause = min(first * 2.0 ** min(attempt - 1, 30), _LONGEST_PAUSE_S)
    # Without jitter, questions that failed together would come back together.
    return pause * random.uniform(0.75, 1.25)  # noqa: S311
