"""How many requests are in flight, at servers of different make."""

import asyncio
from collections.abc import Callable

import pytest

from bundle.evaluation._window import Window
from tests.evaluation.simulated_clock import run_simulated
from tests.patience import PATIENCE_S

Latency = Callable[[int], float]


def in_flight_at(
    latency_s: Latency, *, count: int, most: int, adaptive: bool = True, busy_above: int = 10**9
) -> list[int]:
    """How many requests were in flight at the start of each, at a server that takes ``latency_s`` of that many.

    A server with ``busy_above`` refuses what comes on top of that many, and is asked again.
    """
    return run_simulated(_ask(latency_s, count, most, adaptive, busy_above))


async def _ask(latency_s: Latency, count: int, most: int, adaptive: bool, busy_above: int) -> list[int]:
    window = Window(most, adaptive=adaptive)
    in_flight, left, seen = 0, count, []

    async def work() -> None:
        nonlocal in_flight, left
        while True:
            async with window:
                if left <= 0:
                    return
                left -= 1
                in_flight += 1
                seen.append(before := in_flight)
                took, refused = latency_s(in_flight), in_flight > busy_above
                await asyncio.sleep(took)
                in_flight -= 1
                if refused:
                    left += 1
                    window.busy(min(in_flight, busy_above))
                else:
                    window.replied(took, before)  # which is what its time was made of

    await asyncio.gather(*(work() for _ in range(most)))
    return seen


def test_a_server_of_our_own_is_asked_as_many_at_once_as_it_has_room_for() -> None:
    assert in_flight_at(lambda _: 0.1, count=64, most=32, adaptive=False)[31] == 32


def test_a_server_with_room_for_all_is_soon_asked_as_many_at_once_as_is_allowed() -> None:
    seen = in_flight_at(lambda _: 0.07, count=1346, most=128)

    assert seen[0] == 1
    assert seen.index(128) < 8 + 16 + 32 + 64 + 128
    assert seen[-500] == 128


def test_a_server_that_answers_one_at_a_time_is_not_asked_many() -> None:
    seen = in_flight_at(lambda in_flight: 0.02 * in_flight, count=2000, most=128)

    assert max(seen) <= 64
    assert sum(seen[400:]) / len(seen[400:]) < 24


def test_a_server_with_room_for_some_is_asked_about_as_many_in_the_end() -> None:
    seen = in_flight_at(lambda in_flight: 0.1 * max(1, in_flight / 40), count=9000, most=1000)

    steady = seen[-1000:]
    assert 30 < sum(steady) / len(steady) < 160


@pytest.mark.parametrize("limit", [1, 3, 20])
def test_a_server_that_says_it_is_asked_too_often_is_asked_less(limit: int) -> None:
    seen = in_flight_at(lambda _: 0.1, count=600, most=128, busy_above=limit)

    assert sum(seen[200:]) / len(seen[200:]) < 2 * limit + 1


def test_a_few_refusals_in_every_round_make_it_no_narrower() -> None:
    window = Window(64, adaptive=True)
    for _ in range(40):
        for number in range(window.limit):
            window.replied(0.1, window.limit)
            if number % 3 == 0:
                window.busy(window.limit // 2)

    assert window.limit >= 16


async def test_refusals_of_the_only_request_make_it_as_wide_as_it_was() -> None:
    window = Window(64, adaptive=True)

    async def refused_one_in_three(count: int) -> None:
        for number in range(count):
            async with window:
                if number % 3 == 0:
                    window.busy(0)
                window.replied(0.1, 1)

    while window.limit > 1:
        window.busy(0)
        window.replied(0.1, 1)
    await refused_one_in_three(9)

    assert window.limit >= 16


def test_never_more_are_in_flight_than_is_allowed_and_never_none() -> None:
    seen = in_flight_at(lambda in_flight: 0.01 * in_flight, count=3000, most=5, busy_above=3)

    assert max(seen) <= 5
    assert len(seen) >= 3000


@pytest.mark.parametrize(("slots", "limit"), [(128, 128), (8, 16)])
def test_long_replies_are_not_waited_for_where_all_of_them_have_begun_to_arrive(slots: int, limit: int) -> None:
    window, server = Window(128, adaptive=True), asyncio.Semaphore(slots)

    async def work() -> None:
        async with window, server:
            await asyncio.sleep(0.1)
            window.begun()
            await asyncio.sleep(10)
            window.ended()

    async def limit_after_a_second() -> int:
        workers = [asyncio.create_task(work()) for _ in range(128)]
        await asyncio.sleep(1)
        limit = window.limit
        for worker in workers:
            worker.cancel()
        return limit

    assert run_simulated(limit_after_a_second()) == limit


async def test_whoever_gives_up_waiting_takes_no_place() -> None:
    window = Window(1, adaptive=False)

    async def one() -> None:
        async with window:
            pass

    async with window:
        waiting = [asyncio.create_task(one()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*waiting[1:])


async def test_a_place_given_to_somebody_who_is_cancelled_in_the_same_moment_is_not_lost() -> None:
    window = Window(1, adaptive=False)
    entered = asyncio.Event()

    async def one() -> None:
        async with window:
            entered.set()

    async with window:
        cancelled = asyncio.create_task(one())
        await asyncio.sleep(0)
    cancelled.cancel()  # its turn has come, and it does not know yet
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(cancelled, return_exceptions=True)
        await one()
    assert entered.is_set()
