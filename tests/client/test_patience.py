"""Rate limits and outages, on a clock on which hours pass in no time: waited out, learned from, given up by time."""

import asyncio
import itertools
import random
import re
import statistics
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from bundle.client import ChatClient, NoReplyError, RefusedError
from bundle.client._faults import AttemptError, Fate, fault_of_status
from bundle.client._pace import LearnedPace
from bundle.system.text import duration
from tests.evaluation.asking import ask, client_of
from tests.evaluation.simulated_clock import run_simulated

REPLY = {"choices": [{"message": {"content": "B"}, "finish_reason": "stop"}]}
Answer = Callable[[float], Any]


class Server:
    """Stands in for the connection: answers by the time, or raises; a request that holds ``fails`` meets ``fault``."""

    def __init__(self, answer: Answer, reply_s: float, fault: AttemptError | None) -> None:
        self._fault = fault
        self.fails: bytes | None = None
        self._answer = answer
        self._reply_s = reply_s
        self.requests = self.in_flight = 0

    async def post(self, _: str, body: bytes, *others: object, **more: object) -> object:
        self.requests += 1
        self.in_flight += 1
        await asyncio.sleep(0.1)
        self.in_flight -= 1
        answer = self._answer(asyncio.get_running_loop().time())
        if self.fails is not None and self.fails in body:
            answer = self._fault
        if isinstance(answer, AttemptError):
            raise answer
        await asyncio.sleep(self._reply_s - 0.1)
        return answer

    async def close(self) -> None: ...


def simulated(
    answer: Answer,
    work: Callable[[ChatClient], Coroutine[Any, Any, None]],
    *,
    patience_s: float,
    say: Callable[[str], None] = lambda _: None,
    qps: float | None = None,
    reply_s: float = 0.1,
    fault: AttemptError | None = None,
) -> tuple[float, float | None]:
    """Have a client at work; return how long it took and the rate that was learned."""

    async def main() -> tuple[float, float | None]:
        client = client_of("http://127.0.0.1:9/v1", patience_s=patience_s, say=say, qps=qps)
        await client._transport.close()
        client._transport = Server(answer, reply_s, fault)  # type: ignore[assignment]
        async with client:
            await work(client)
        return asyncio.get_running_loop().time(), client.learned_qps

    return run_simulated(main())


async def ask_once(client: ChatClient) -> None:
    assert (await ask(client)).text == "B"


def ask_at(second: float) -> Callable[[ChatClient], Coroutine[Any, Any, None]]:
    async def work(client: ChatClient) -> None:
        await ask_once(client)
        await asyncio.sleep(second)
        await ask_once(client)

    return work


def ask_together(count: int) -> Callable[[ChatClient], Coroutine[Any, Any, None]]:
    async def work(client: ChatClient) -> None:
        await asyncio.gather(*(ask_once(client) for _ in range(count)))

    return work


def limited(per_minute: int) -> Answer:
    """A rate limit over sliding minutes."""
    recent: list[float] = []

    def answer(now: float) -> Any:
        recent[:] = [then for then in recent if now - then < 60]
        if len(recent) >= per_minute:
            return fault_of_status(429, {"error": {"message": "try again in 20s"}}, {})
        recent.append(now)
        return REPLY

    return answer


def down(begin: float, end: float) -> Answer:
    """Connections that are reset for a time."""
    lost = AttemptError("connection failed: ConnectionResetError", Fate.AGAIN, outage=True)
    return lambda now: lost if begin <= now < end else REPLY


def test_a_rate_limit_costs_no_question_and_its_rate_is_learned() -> None:
    said: list[str] = []
    took, rate = simulated(limited(20), ask_together(100), patience_s=90, say=said.append)

    assert 240 <= took < 400
    assert rate is not None
    assert 15 <= 60 * rate <= 20.5
    assert said == ["the server limits the rate of requests; slowing down (HTTP 429: try again in 20s)"]


@pytest.mark.parametrize("minutes", [1, 59])
def test_an_outage_that_ends_within_the_patience_costs_nothing(minutes: int) -> None:
    took, _ = simulated(down(1, 60 * minutes), ask_at(1), patience_s=3600)

    assert 60 * minutes <= took < 60 * minutes + 60


def test_patience_counts_from_the_first_fault_and_not_from_the_last_reply() -> None:
    simulated(down(7000, 7030), ask_at(7000), patience_s=60)


def test_a_question_that_alone_fails_is_given_up_as_soon_as_the_server_replies_to_another() -> None:
    said: list[str] = []
    fault = AttemptError("HTTP 404: Not Found", Fate.AGAIN, outage=True)

    async def work(client: ChatClient) -> None:
        await ask_once(client)
        transport: Any = client._transport
        transport.fails = b"1+1"
        with pytest.raises(NoReplyError, match="HTTP 404: Not Found") as caught:
            await ask_once(client)
        assert (caught.value.transient, caught.value.attempts > 4) == (True, True)
        transport.fails = None
        await ask_once(client)

    took, _ = simulated(lambda now: REPLY, work, patience_s=3600, say=said.append, fault=fault)

    assert took < 90
    assert said[0] == "no replies at present; retrying for up to 1 h (HTTP 404: Not Found)"


def noting(times: list[float], fault: AttemptError) -> Answer:
    """The same fault each time, and when that was."""

    def answer(now: float) -> AttemptError:
        times.append(now)
        return fault

    return answer


SLOW_DOWN = fault_of_status(429, {"error": {"message": "slow down"}}, {})


@pytest.mark.parametrize(("patience_s", "words"), [(90.0, "90 s"), (1800.0, "30 min"), (3600.0, "1 h")])
def test_without_any_reply_the_run_ends_once_the_patience_does(patience_s: float, words: str) -> None:
    times: list[float] = []
    with pytest.raises(RefusedError, match=f"has not replied for {words}: HTTP 429: slow down") as caught:
        simulated(noting(times, SLOW_DOWN), ask_together(3), patience_s=patience_s)

    assert caught.value.remedy == "Continue later with `bundle resume`; --patience TIME waits longer."
    assert patience_s <= max(times) < patience_s + 60


ASKS_TO_WAIT = {"retry-after": "1500"}


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_asks_to_wait_longer_than_the_patience_ends_the_run_and_says_why(status: int) -> None:
    times: list[float] = []
    fault = fault_of_status(status, {"error": {"message": "maintenance"}}, ASKS_TO_WAIT)

    async def work(client: ChatClient) -> None:
        client._patience.replied(0.0)  # it has replied before
        await ask_once(client)

    with pytest.raises(RefusedError, match=rf"HTTP {status}: maintenance \(asks to wait 25 min\)") as caught:
        simulated(noting(times, fault), work, patience_s=90)

    assert caught.value.remedy == "Continue later with `bundle resume`, or wait longer with --patience TIME."
    assert len(times) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_of_many_minutes_is_waited_and_it_is_said_until_when(status: int) -> None:
    said: list[str] = []
    fault = fault_of_status(status, {"error": {"message": "maintenance"}}, ASKS_TO_WAIT)
    requests: list[float] = []

    def answer(now: float) -> Any:
        requests.append(now)
        return fault if 1 < now < 1400 else REPLY

    took, _ = simulated(answer, ask_at(1), patience_s=3600, say=said.append)

    assert 1500 < took < 1510
    assert len(requests) == 3
    (line,) = [one for one in said if "asks to wait" in one]
    assert re.fullmatch(
        rf"the server asks to wait 25 min, until (\d{{4}}-\d\d-\d\d )?\d\d:\d\d \(HTTP {status}: maintenance\)", line
    )


def test_a_pause_is_not_followed_by_a_burst() -> None:
    """The turns that were due meanwhile are not used all at once."""
    times: list[float] = []

    def answer(now: float) -> Any:
        times.append(now)
        return fault_of_status(429, {}, {"retry-after": "30"}) if len(times) == 1 else REPLY

    simulated(answer, ask_together(10), patience_s=60, qps=1.0)

    # The first two were on their way before the pause could begin.
    assert min(after - before for before, after in itertools.pairwise(times)) >= 1 - 1e-6


def test_without_patience_they_count_as_retries() -> None:
    with pytest.raises(NoReplyError, match="slow down"):
        simulated(lambda now: SLOW_DOWN, ask_once, patience_s=0)


@pytest.mark.parametrize("reply_s", [0.1, 20])
@pytest.mark.parametrize("share", [0.1, 0.33])
def test_a_server_that_refuses_now_and_then_has_no_rate(share: float, reply_s: float) -> None:
    lot = random.Random(0)

    async def work(client: ChatClient) -> None:
        async def worker() -> None:
            for _ in range(20):
                await ask_once(client)

        await asyncio.gather(*(worker() for _ in range(32)))

    def answer(now: float) -> Any:
        return SLOW_DOWN if lot.random() < share else REPLY

    took, rate = simulated(answer, work, patience_s=3600, reply_s=reply_s)
    assert rate is None
    assert took < 20 * reply_s + 120


def test_a_rate_is_not_lowered_where_fewer_replies_come_the_slower_the_server_is_asked() -> None:
    pace = LearnedPace()
    now = 0.0
    for _ in range(100):
        now += 1 / min(pace.at(now), 1.0) + 6
        pace.refused(now)
        for _ in range(8):
            pace.replied(now := now + 2 / min(pace.at(now), 1.0) + 6, now)

    assert pace.per_s is None


def test_a_server_is_asked_at_its_rate_and_hardly_refuses_any_more() -> None:
    server = limited(20)
    refused: list[float] = []
    times: list[float] = []

    def answer(now: float) -> Any:
        reply = server(now)
        (refused if isinstance(reply, AttemptError) else times).append(now)
        return reply

    took, rate = simulated(answer, ask_together(600), patience_s=3600)
    assert rate is not None
    assert 0.8 * 20 <= 60 * rate <= 1.5 * 20
    assert took < 1.2 * 60 * 600 / 20
    # All in flight are refused at first; later it is only tried now and then whether the limit has been lifted.
    assert sum(one > 120 for one in refused) <= 40
    gaps = [after - before for before, after in itertools.pairwise(times) if before > 120]
    assert statistics.median(gaps) == pytest.approx(60 / 20, rel=0.2)


def test_a_rate_limit_that_is_lifted_is_noticed() -> None:
    before, after = limited(20), limited(2000)
    took, rate = simulated(lambda now: (before if now < 600 else after)(now), ask_together(4000), patience_s=3600)

    assert rate is not None
    assert 60 * rate > 400
    assert took < 3600 < 60 * 4000 / 20


def test_a_limit_that_has_been_lowered_is_kept_to() -> None:
    before, after = limited(60), limited(6)
    took, rate = simulated(lambda now: (before if now < 120 else after)(now), ask_together(300), patience_s=3600)

    assert rate is not None
    assert 60 * rate < 12
    assert took < 1.4 * (120 + 60 * 180 / 6)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.6, "60 s"), (60, "1 min"), (90, "90 s"), (200, "3 min"), (3600, "1 h"), (9000, "2 h 30 min")],
)
def test_times_are_written_for_people(seconds: float, words: str) -> None:
    assert duration(seconds) == words
