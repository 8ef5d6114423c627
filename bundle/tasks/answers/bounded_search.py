"""Searching with a regular expression that may be anybody's, in text that may be anything.

Python's ``re`` tries one way to match after another, and for some expressions, such as ``(a+)+b``, there are more ways
than a lifetime lets try. It looks for signals while it does, so a timer ends such a search: what is found in time is
exactly what ``re`` finds.
"""

import re
import signal
import threading
from types import FrameType


class SearchTimeoutError(Exception):
    """The search was given up."""


class _Timer:
    """Raises ``SearchTimeoutError`` in the main thread once that has computed for so long.

    It counts processor time, so that a busy machine gives up on nothing that an idle one would find.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._is_ready = False

    def start(self, seconds: float) -> None:
        if not self._is_ready:
            signal.signal(signal.SIGVTALRM, self._ring)
            self._is_ready = True
        self._is_set = True
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)

    def stop(self) -> None:
        self._is_set = False  # before the next line, for the signal may be on its way
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)

    def _ring(self, signum: int, frame: FrameType | None) -> None:
        if self._is_set:
            self._is_set = False
            raise SearchTimeoutError


_timer = _Timer()


def search(expression: re.Pattern[str], text: str, *, seconds: float) -> re.Match[str] | None:
    """What ``expression.search(text)`` finds.

    Only the main thread can be interrupted; in any other there is no limit.

    Raises:
        SearchTimeoutError: It has found nothing after so many seconds of processor time.
    """
    if threading.current_thread() is not threading.main_thread():
        return expression.search(text)
    _timer.start(seconds)
    try:
        return expression.search(text)
    finally:
        _timer.stop()
