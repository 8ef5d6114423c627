"""How long to wait before asking again."""

import email.utils
import random
import re
import time
from collections.abc import Mapping

LONGEST_WAIT_S = 600.0
"""The longest a server may ask to wait; a question is not asked again where it asks for more."""

_FIRST_PAUSE_S = 0.5
_FIRST_PAUSE_OF_A_BUSY_SERVER_S = 5.0  # limits are kept by the minute mostly, and half a second changes nothing
_LONGEST_PAUSE_S = 60.0
_NUMBER = re.compile(r"\d{1,12}(\.\d*)?")


def pause_s(attempt: int, *, busy: bool) -> float:
    """Seconds to wait after the ``attempt``-th attempt, from 1: twice as long each time, give or take a quarter.

    Args:
        attempt: How often it was asked.
        busy: Whether the server said that it is asked too often.
    """
    first = _FIRST_PAUSE_OF_A_BUSY_SERVER_S if busy else _FIRST_PAUSE_S
    pause = min(first * 2.0 ** min(attempt - 1, 30), _LONGEST_PAUSE_S)
    # So that questions that failed together do not come back together.
    return pause * random.uniform(0.75, 1.25)  # noqa: S311


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait as the server asks, or None.

    ``Retry-After`` has two forms, seconds and a date (RFC 9110, 10.2.3). ``retry-after-ms`` is OpenAI's, and finer.
    """
    milliseconds = headers.get("retry-after-ms", "").strip()
    if _NUMBER.fullmatch(milliseconds):
        return float(milliseconds) / 1000
    value = headers.get("retry-after", "").strip()
    if _NUMBER.fullmatch(value):
        return float(value)
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError, OSError):
        return None
