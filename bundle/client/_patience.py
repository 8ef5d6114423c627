"""For how long faults that are the server's cost no question anything, and how fast a rate limit lets replies come."""

from bundle.client._faults import AttemptError

_FIRST_PATIENCE_S = 20.0
"""For how long connections may be reset by a server that has never replied: it may not be one."""
_SHORTEST_CYCLE_S = 5.0


class Patience:
    """Measures for how long there has been no reply, from the first fault on. All times are the event loop's.

    Args:
        seconds: For how long rate limits and outages are waited out; 0 where they count like other faults.

    Attributes:
        last_reply_at: When the last reply came.
        has_replied: Whether there has been one.
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

    def is_used_up(self, fault: AttemptError) -> bool:
        """Whether a fault with no time left means that the whole run has waited as long as it may."""
        return 0 < self._seconds == self.with_fault(fault)


class LearnedRate:
    """How fast a server that limits the rate of requests lets replies come, from the end of one pause to the next.

    Attributes:
        per_s: Replies per second; None while it is not known.
    """

    def __init__(self) -> None:
        self.per_s: float | None = None
        self._since: float | None = None
        self._replies = 0

    def replied(self, now: float, *, ends_pause: bool) -> None:
        """Note a reply.

        Args:
            now: When it came.
            ends_pause: Whether it is the first after a pause that the rate limit made necessary.
        """
        if self._since is None:
            self._since = now
        elif ends_pause and now - self._since >= _SHORTEST_CYCLE_S:
            self.per_s = self._replies / (now - self._since)
            self._since, self._replies = now, 0
        self._replies += 1
