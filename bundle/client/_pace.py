"""When the next request may be sent: the rate limit, and the pauses after faults."""

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Callable

from bundle.client._faults import AttemptError, Fate
from bundle.errors import UsageError
from bundle.system.text import duration

_MINUTE_S = 60.0
_FIRST_PAUSE_S = 0.5
_FIRST_PAUSE_OF_A_BUSY_SERVER_S = 5.0  # rate limits are mostly per minute: half a second changes nothing
_LONGEST_PAUSE_S = 60.0
_LONGEST_SHARED_PAUSE_S = 30.0
_BETWEEN_PROBES_S = 1.0

_SHORTEST_REFUSAL_S = 5.0
_FIRST_STEP, _LIFTED = 0.05, 0.3
_LEAST_LEFT = 0.8
_LONGEST_BETWEEN_STEPS_S = 960.0
_ENOUGH_REPLIES = 8
_FALLEN = 0.7
_MOST_IN_VAIN = 2

_LONGEST_WAIT_S = 600.0
"""The longest wait that a server may ask for where there is no patience."""
_FIRST_PATIENCE_S = 20.0
"""For how long connections may be reset by a server that has never replied: it may not be one."""


class LastMinute:
    """Counts what happens, and has the length of the last 60 seconds of it."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def add(self) -> None:
        """It happens now."""
        self._times.append(time.monotonic())
        self._forget()

    def __len__(self) -> int:
        self._forget()
        return len(self._times)

    def _forget(self) -> None:
        horizon = time.monotonic() - _MINUTE_S
        while self._times and self._times[0] <= horizon:
            self._times.popleft()


class RateLimiter:
    """Spaces requests evenly, at most ``qps`` a second and no faster than `LearnedPace` says, and counts them.

    A leaky bucket of one request: two requests are at least ``1/qps`` seconds apart on the event loop's clock, and any
    window of ``w`` seconds holds at most ``floor(w*qps) + 1``. Neither unused time nor a pause is made up for by a
    burst: whoever waits does so in line, and only the first in line looks at the clock. Without ``qps`` there is no
    limit but what the server teaches (``learned``). ``sent`` counts the requests. Raises UsageError if ``qps`` is not a
    positive number.
    """

    def __init__(self, qps: float | None) -> None:
        if qps is not None and not (qps > 0 and math.isfinite(qps) and math.isfinite(1 / qps)):
            raise UsageError(
                f"{qps:g} is not a valid rate in requests per second.",
                remedy="Give a number above 0, as in --qps 0.16 for one request every 6.25 seconds.",
            )
        self._qps = math.inf if qps is None else qps
        self._line = asyncio.Lock()
        self._free_at = -math.inf
        self.sent = LastMinute()
        self.learned = LearnedPace()

    async def turn(self, pause_s: Callable[[float], float] = lambda now: 0.0) -> float:
        """Wait until a request may be sent, and count it; return the event loop's time.

        ``pause_s`` says how many seconds a pause still lasts at a time, not positive for none. What it raises is
        raised.
        """
        clock = asyncio.get_running_loop().time
        async with self._line:
            # There is nothing to wait for but time, and meanwhile a pause may have become longer.
            while (wait_s := max(pause_s(now := clock()), self._free_at - now)) > 0:  # noqa: ASYNC110
                await asyncio.sleep(wait_s)
            self._free_at = now + 1 / min(self._qps, self.learned.at(now))
        self.sent.add()
        return now


class LearnedPace:
    """How fast a server that limits the rate of requests is to be asked, learned from its refusals.

    Replies are counted from the end of one refusal to the end of the next: as many a second as the server let come.
    That is the pace from then on, so that it is asked at its rate instead of being asked until it refuses. While it
    does not refuse, the pace rises, carefully first and then in greater steps; after a refusal it rises less often. A
    refusal that passes within seconds teaches nothing: a server that refuses now and then has no such rate. Nor has one
    of which fewer replies come the slower it is asked: a server with a limit lets as many come as before.

    Attributes:
        per_s: Requests per second; None while nothing is known.
    """

    def __init__(self) -> None:
        self.per_s: float | None = None
        self._counted_since: float | None = None
        self._replies = 0
        self._refused_since: float | None = None
        self._raised_at = 0.0
        self._step = _FIRST_STEP
        self._between_steps_s = _MINUTE_S
        self._before: tuple[float, float] | None = None  # another pace, and the replies a second that came at it
        self._in_vain = 0

    def at(self, now: float) -> float:
        """The pace at a time of the event loop; infinite while nothing is known."""
        if self.per_s is None:
            return math.inf
        if self._refused_since is None and now - self._raised_at >= self._between_steps_s:
            self.per_s *= 1 + self._step
            self._step = min(2 * self._step, 1.0)
            if self._step > _LIFTED:
                self._between_steps_s = _MINUTE_S
            self._raised_at = now
        return self.per_s

    def refused(self, now: float) -> None:
        """Note that the server refuses requests because they come too fast."""
        if self._refused_since is None:
            self._refused_since = now

    def replied(self, now: float, sent_at: float) -> None:
        """Note the reply to a request sent at ``sent_at``: only that shows that it was not refused any more."""
        if self._counted_since is None:
            self._counted_since = now
        if self._refused_since is not None and sent_at >= self._refused_since:
            has_lasted = sent_at - self._refused_since >= _SHORTEST_REFUSAL_S
            is_enough = self._replies >= (1 if self.per_s is None else _ENOUGH_REPLIES)
            if has_lasted and is_enough and self._in_vain < _MOST_IN_VAIN:
                self._learn(now, self._replies / (now - self._counted_since))
            self._refused_since = None
        self._replies += 1

    def _learn(self, now: float, per_s: float) -> None:
        if self.per_s is None:
            self.per_s = per_s
        elif self._before is None or self.per_s > self._before[0]:
            self._before = self.per_s, per_s
        elif self.per_s <= self._before[0] / 2:
            self._in_vain = self._in_vain + 1 if per_s < _FALLEN * self._before[1] else 0
            self._before = self.per_s, per_s
        self.per_s = None if self._in_vain >= _MOST_IN_VAIN else max(per_s, _LEAST_LEFT * self.per_s)
        self._counted_since, self._replies = now, 0
        self._raised_at = now
        self._step = _FIRST_STEP
        self._between_steps_s = min(2 * self._between_steps_s, _LONGEST_BETWEEN_STEPS_S)


class SharedPause:
    """A pause of all requests at once, for faults that are the server's and no question's.

    It doubles while it does not help, and then lets single requests through until one of them succeeds. All times are
    the event loop's.

    Attributes:
        in_vain: How many pauses in a row have been followed by the same fault.
    """

    def __init__(self) -> None:
        self.in_vain = 0
        self._began = self._first_began = -math.inf
        self._until = -math.inf
        self._between_probes_s = 0.0

    def begin(self, sent_at: float, asked_s: float | None) -> bool:
        """Pause because of a fault; return whether that is news, as it was not on its way when the last one began.

        ``sent_at`` is when the request was sent that met it, ``asked_s`` how long the server asks to wait, if it says
        so.
        """
        now = asyncio.get_running_loop().time()
        is_new = sent_at >= self._began
        if is_new:
            self.in_vain += 1
            self._began = now
            if self.in_vain == 1:
                self._first_began = now
        elif asked_s is None:
            return False
        pause_s = min(_FIRST_PAUSE_S * 2.0 ** min(self.in_vain - 1, 30), _LONGEST_SHARED_PAUSE_S)
        # A server may ask to wait for no time at all and go on refusing.
        if asked_s is not None and (asked_s > 0 or self.in_vain == 1):
            pause_s = asked_s
        self._between_probes_s = min(pause_s, _BETWEEN_PROBES_S)
        self._until = max(self._until, now + pause_s)
        return is_new

    def end(self, sent_at: float = math.inf) -> None:
        """A request has succeeded; one that was sent before the first of these pauses says nothing about them."""
        if sent_at >= self._first_began:
            self.in_vain = 0
            self._until = -math.inf

    def left_s(self, now: float) -> float:
        """Seconds until the next request may be sent; not positive if it may be sent now."""
        return self._until - now

    def sent(self, now: float) -> None:
        """A request is sent."""
        if self.in_vain > 1:
            self._until = now + self._between_probes_s


class Patience:
    """Measures for how long there has been no reply, from the first fault on. All times are the event loop's.

    Rate limits and outages are waited out for so many seconds; with 0 they count like other faults.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._troubled_since: float | None = None
        self.last_reply_at = 0.0
        self.has_replied = False

    def replied(self, now: float) -> None:
        """Note a reply."""
        self.has_replied = True
        self.last_reply_at = now
        self._troubled_since = None

    def with_fault(self, fault: AttemptError) -> float:
        """For how many seconds such a fault is waited out."""
        if fault.busy or self.has_replied:
            return self._seconds
        return min(self._seconds, _FIRST_PATIENCE_S) if fault.heard and not fault.status else 0.0

    def left_s(self, fault: AttemptError, now: float) -> float:
        """For how many seconds more; not positive if it has lasted too long."""
        if self._troubled_since is None:
            self._troubled_since = now
        return self.with_fault(fault) - (now - self._troubled_since)

    def bounded(self, fault: AttemptError) -> AttemptError:
        """The fault, or where the server asks for a longer wait than there is patience for, what that comes to."""
        if fault.pause_s is None or fault.fate is not Fate.AGAIN:
            return fault
        patience_s = self.with_fault(fault) if fault.busy or fault.outage else 0.0
        if fault.pause_s <= (patience_s or _LONGEST_WAIT_S):
            return fault
        longer = ", or wait longer with --patience TIME" if patience_s else ""
        return AttemptError(
            f"{fault.reason} (asks to wait {duration(fault.pause_s)})",
            Fate.KEY_SPENT if fault.busy or patience_s else Fate.UNANSWERED,
            remedy=f"Continue later with `bundle resume`{longer}.",
        )

    def is_used_up(self, fault: AttemptError) -> bool:
        """Whether a fault with no time left means that the whole run has waited as long as it may."""
        return 0 < self._seconds == self.with_fault(fault)


def pause_s(attempt: int, *, busy: bool) -> float:
    """Seconds to wait after the ``attempt``-th attempt (from 1): exponential backoff with 25 % jitter.

    After a refusal as one request too many (``busy``) it waits longer.
    """
    first = _FIRST_PAUSE_OF_A_BUSY_SERVER_S if busy else _FIRST_PAUSE_S
    pause = min(first * 2.0 ** min(attempt - 1, 30), _LONGEST_PAUSE_S)
    # Without jitter, questions that failed together would come back together.
    return pause * random.uniform(0.75, 1.25)  # noqa: S311
