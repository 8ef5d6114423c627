"""How long a server asks to wait."""

import contextlib
import email.utils
import re
import time
from collections.abc import Mapping

_NUMBER = re.compile(r"\d{1,13}(\.\d*)?")
_LEAST_TIME_S, _LEAST_TIME_MS = 1e9, 1e12
"""From these numbers on it is a time since 1970, in seconds or in milliseconds, and no duration."""
_LIMITS = ("x-ratelimit-{}-requests", "x-ratelimit-{}-tokens", "x-ratelimit-{}", "ratelimit-{}")
_DURATION = re.compile(
    r"(\d{1,9}(?:\.\d{1,9})?)\s*(ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hours?|秒|分钟?)(?![a-z])",
    re.IGNORECASE,
)
_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "秒": 1.0, "分": 60.0}
# "Please try again in 6m0s", "Retry after 2 minutes", "retryDelay": "34s" (Gemini), "请在 20 秒后重试".
_ASKED = re.compile(
    r"(?:\b(?:again|retry|wait)\s+(?:in|after|for)?\s*|\bretry_?delay\W+|请(?:在|等待?)?\s*)((?:\d[\d.]*\s*[a-z秒分]+\s?)+)",
    re.IGNORECASE,
)


def retry_after_s(headers: Mapping[str, str], message: str = "") -> float | None:
    """Seconds the server asks to wait, in its headers or else in its message; None if it does not say.

    Dates and times count from the server's ``Date``: the clock here may be set otherwise, or be set meanwhile.

    ``Retry-After`` holds seconds or a date (RFC 9110, 10.2.3), with some servers seconds or milliseconds since 1970, or
    a number with a unit. ``retry-after-ms`` is OpenAI's, and finer. Of
    ``x-ratelimit-reset-requests`` and ``-tokens`` ("1s", "6m0s", "20ms"), other servers' ``x-ratelimit-reset`` and the
    IETF draft's ``ratelimit-reset`` the longest counts whose limit is used up.
    """
    milliseconds = headers.get("retry-after-ms", "").strip()
    if _NUMBER.fullmatch(milliseconds):
        return float(milliseconds) / 1000
    now = _time_of(headers.get("date", ""))
    if now is None:
        now = time.time()
    value = headers.get("retry-after", "").strip()
    if _NUMBER.fullmatch(value) or _DURATION.fullmatch(value):
        return _duration_s(value, now)
    if (until := _time_of(value)) is not None:
        return max(until - now, 0.0)
    if not message:
        return None
    resets = [
        _duration_s(headers.get(name.format("reset"), ""), now)
        for name in _LIMITS
        if headers.get(name.format("remaining"), "0").strip() == "0"
    ]
    if known := [reset for reset in resets if reset is not None]:
        return max(known)
    return _duration_s(asked[1], now) if (asked := _ASKED.search(message)) else None


def _time_of(date: str) -> float | None:
    """An HTTP date in seconds since 1970; None if it is none."""
    with contextlib.suppress(ValueError, TypeError, OverflowError, OSError):
        return email.utils.parsedate_to_datetime(date).timestamp()
    return None


def _duration_s(text: str, now: float) -> float | None:
    """Seconds in "6m0s", "1.5 s", "20ms", "30 seconds", "2 minutes" or "12", or until a time since 1970."""
    if _NUMBER.fullmatch(text.strip()):
        number = float(text)
        if number < _LEAST_TIME_S:
            return number
        return max((number if number < _LEAST_TIME_MS else number / 1000) - now, 0.0)
    parts = [(float(number), unit.lower()) for number, unit in _DURATION.findall(text)]
    if not parts:
        return None
    return sum(number * (0.001 if unit.startswith(("ms", "mil")) else _UNITS_S[unit[0]]) for number, unit in parts)
