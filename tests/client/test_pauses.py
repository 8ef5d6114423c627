"""How long is waited before a question is asked again."""

import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.client._pace import pause_s
from bundle.client._retry_after import retry_after_s


@pytest.mark.parametrize(("busy", "first"), [(False, 0.5), (True, 5.0)])
def test_pauses_double_and_a_server_that_is_asked_too_often_gets_longer_ones(busy: bool, first: float) -> None:
    for attempt in range(1, 5):
        pause = pause_s(attempt, busy=busy)
        assert 0.75 <= pause / (first * 2 ** (attempt - 1)) <= 1.25


@given(st.integers(1, 10_000), st.booleans())
def test_no_pause_is_longer_than_75_seconds(attempt: int, busy: bool) -> None:
    assert 0 < pause_s(attempt, busy=busy) <= 75


def test_questions_that_failed_together_do_not_come_back_together() -> None:
    assert len({pause_s(1, busy=False) for _ in range(20)}) > 10


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "60"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "60"}, 60),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"retry-after": "9.5s"}, 9.5),
        ({"retry-after": "1000000000"}, 0),  # in 2001
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "tomorrow"}, None),
    ],
)
def test_what_the_server_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds


@pytest.mark.parametrize(
    ("headers", "message", "seconds"),
    [
        ({}, "limit 20 requests per min, try again in 20s", 20),
        ({}, "Please try again in 6m0s. Visit …", 360),
        ({}, "Rate limit reached. Please try again in 12.5ms.", 0.0125),
        ({}, "Please retry after 2 minutes", 120),
        ({}, "Retry in 34.5s", 34.5),
        ({}, "请在 20 秒后重试", 20),
        ({}, "请求过快，请等待3秒后再试", 3),
        ({}, "Limit 3 / min.", None),
        ({"retry-after": "7"}, "try again in 20s", 7),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m30s"}, "slow down", 90),
        ({"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "1h"}, "slow down", None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "30"}, "slow down", 30),
        ({"ratelimit-remaining": "3", "ratelimit-reset": "30"}, "slow down", None),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "20ms"}, "slow down", 1),
    ],
)
def test_what_a_refused_request_says_about_waiting(
    headers: dict[str, str], message: str, seconds: float | None
) -> None:
    assert retry_after_s(headers, message) == (seconds if seconds is None else pytest.approx(seconds))


@given(st.text() | st.from_regex(r"(try again|retry) (in|after) [0-9.msh ]{0,12}"))
def test_whatever_a_message_says_is_a_time_or_nothing(message: str) -> None:
    seconds = retry_after_s({}, message)

    assert seconds is None or seconds >= 0


def test_a_date_is_counted_from_now() -> None:
    seconds = retry_after_s({"retry-after": formatdate(time.time() + 100, usegmt=True)})

    assert seconds is not None
    assert 90 < seconds <= 100


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_date_is_counted_from_the_servers_clock(hours: int) -> None:
    there = round(time.time()) + 3600 * hours
    headers = {"date": formatdate(there, usegmt=True)}

    assert retry_after_s(headers | {"retry-after": formatdate(there + 20, usegmt=True)}) == 20
    assert retry_after_s(headers | {"x-ratelimit-reset": str(there + 20)}, "slow down") == 20


@pytest.mark.parametrize("per_s", [1, 1000], ids=["seconds", "milliseconds"])
@pytest.mark.parametrize("header", ["retry-after", "x-ratelimit-reset-requests", "x-ratelimit-reset"])
def test_a_time_since_1970_is_counted_from_now(header: str, per_s: int) -> None:
    seconds = retry_after_s({header: str(round(per_s * (time.time() + 100)))}, "slow down")

    assert seconds is not None
    assert 90 < seconds <= 101


@given(st.text() | st.from_regex(r"(\w{3}, )?\d{1,9} \w{3} \d{1,9} \d\d:\d\d:\d\d [-+]?\w{1,9}"))
def test_whatever_the_header_holds_is_a_time_or_nothing(value: str) -> None:
    seconds = retry_after_s({"retry-after": value})

    assert seconds is None or seconds >= 0
