"""For how long faults that are the server's cost no question anything."""

from bundle.client._faults import AttemptError, Fate
from bundle.system.text import duration

_LONGEST_WAIT_S = 600.0
"""The longest wait that a server may ask for where there is no patience."""
_FIRST_PATIENCE_S = 20.0
"""For how long connections may be reset by a server that has never replied: it may not be one."""


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
