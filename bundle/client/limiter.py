"""How many requests go out in a time."""

import math
import time
from collections import deque

from aiolimiter import AsyncLimiter

from bundle.errors import UsageError

_MINUTE_S = 60.0


class RateLimiter:
    """Lets requests go out one after the other, never more than ``qps`` a second, and counts them.

    aiolimiter's leaky bucket is given room for a single request that leaks out in ``1/qps`` seconds. So there are no
    bursts: two requests are at least ``1/qps`` seconds apart on the event loop's clock, and a window of ``w`` seconds,
    wherever it begins, holds at most ``floor(w*qps) + 1``. A bucket with room for ``n`` would let ``n`` out at once,
    after which a window holds more than its share. Time that was not used is not made up for.

    Args:
        qps: Most requests a second; None for as many as there are.

    Raises:
        UsageError: It is not a positive number.
    """

    def __init__(self, qps: float | None) -> None:
        if qps is not None and not (qps > 0 and math.isfinite(qps) and math.isfinite(1 / qps)):
            raise UsageError(
                f"{qps:g} requests a second cannot be kept.",
                remedy="Give a number above 0, as in --qps 0.16 for one request every 6.25 seconds.",
            )
        self._limiter = None if qps is None else AsyncLimiter(1, 1 / qps)
        self._sent: deque[float] = deque()

    async def turn(self) -> None:
        """Wait until a request may go out; it counts from then on."""
        if self._limiter is not None:
            await self._limiter.acquire()
        self._sent.append(time.monotonic())
        self._forget()

    @property
    def last_minute(self) -> int:
        """Requests that went out in the last 60 seconds."""
        self._forget()
        return len(self._sent)

    def _forget(self) -> None:
        horizon = time.monotonic() - _MINUTE_S
        while self._sent and self._sent[0] <= horizon:
            self._sent.popleft()
