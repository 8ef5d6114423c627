"""The rate is kept: over any window, for any arrivals, and no slower than it must be."""

import asyncio
import math
import time

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from bundle.client._pace import RateLimiter
from bundle.errors import UsageError
from tests.evaluation.asking import client_of
from tests.evaluation.simulated_clock import run_simulated
from tests.openai_api import Call, completion, error, loopback_api

ROUNDING = 1e-6
RATES = st.one_of(st.sampled_from([0.16, 1.0, 3.0, 10.0]), st.floats(0.001, 500))
GAPS = st.lists(st.one_of(st.just(0.0), st.floats(0, 30)), min_size=1, max_size=60)


def starts_of(qps: float, arrivals: list[float]) -> list[float]:
    """When requests start that want to start at ``arrivals``, on a simulated clock."""

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        limiter = RateLimiter(qps)
        starts: list[float] = []

        async def request(arrival: float) -> None:
            await asyncio.sleep(arrival)
            await limiter.turn()
            starts.append(loop.time())

        await asyncio.gather(*(request(arrival) for arrival in arrivals))
        return starts

    return sorted(run_simulated(main()))


def arrivals_of(gaps: list[float]) -> list[float]:
    return [sum(gaps[: index + 1]) for index in range(len(gaps))]


@given(qps=RATES, gaps=GAPS)
def test_no_window_holds_more_requests_than_its_length_allows(qps: float, gaps: list[float]) -> None:
    starts = starts_of(qps, arrivals_of(gaps))

    # The tightest windows begin with one request and end with another.
    for first, begin in enumerate(starts):
        for last in range(first, len(starts)):
            length = (starts[last] - begin) * (1 + ROUNDING) + ROUNDING / qps
            assert last - first + 1 <= math.floor(length * qps) + 1


@given(qps=RATES, gaps=GAPS)
def test_a_request_waits_no_longer_than_the_rate_demands(qps: float, gaps: list[float]) -> None:
    arrivals = arrivals_of(gaps)

    free = 0.0
    for arrival, start in zip(arrivals, starts_of(qps, arrivals), strict=True):
        soonest = max(arrival, free)
        assert start == pytest.approx(soonest, rel=ROUNDING, abs=ROUNDING)
        free = start + 1 / qps


def test_the_tutorials_rate_is_one_request_every_six_and_a_quarter_seconds() -> None:
    starts = starts_of(0.16, [0.0] * 5)

    assert starts == pytest.approx([0, 6.25, 12.5, 18.75, 25], abs=ROUNDING)


def test_a_pause_is_not_made_up_for_by_a_burst() -> None:
    starts = starts_of(1.0, [0.0] + [100.0] * 3)

    assert starts == pytest.approx([0, 100, 101, 102], abs=ROUNDING)


def test_a_question_that_is_given_up_while_it_waits_takes_nobodys_turn() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        limiter = RateLimiter(1.0)
        await limiter.turn()
        waiting = [asyncio.ensure_future(limiter.turn()) for _ in range(3)]
        await asyncio.sleep(0.5)
        waiting[0].cancel()
        starts = []
        for one in waiting[1:]:
            await one
            starts.append(loop.time())
        return starts

    assert run_simulated(main()) == pytest.approx([1, 2], abs=ROUNDING)


@pytest.mark.parametrize("qps", [0, -1, math.nan, math.inf, 1e-320])
def test_a_rate_that_cannot_be_kept_is_refused(qps: float) -> None:
    with pytest.raises(UsageError, match="is not a valid rate"):
        RateLimiter(qps)


async def test_every_attempt_counts_for_the_rate() -> None:
    async def handler(call: Call) -> web.Response:
        # Of six requests, three are answered with faults that are asked again at once.
        return completion("A") if call.number % 2 == 0 else error(500, "again", {"Retry-After": "0"})

    began = time.monotonic()
    async with (
        loopback_api(handler) as api,
        client_of(api.url, retries=9, qps=20) as client,
    ):
        await asyncio.gather(*(client.ask([{"role": "user", "content": "?"}], 8) for _ in range(3)))
        achieved = client.achieved_qpm

    assert achieved == len(api.times) == 6
    assert all(at - began > 0.99 * number / 20 for number, at in enumerate(api.times))
