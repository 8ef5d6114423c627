"""Rate limits and outages, on a clock on which hours pass in no time: waited out, learned from, given up by time."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from bundle.client import ChatClient, NoReplyError, RefusedError
from bundle.client._faults import AttemptError, Fate, fault_of_status
from bundle.client._patience import LearnedRate
from bundle.system.text import duration
from tests.evaluation.asking import ask, client_of
from tests.evaluation.simulated_clock import run_simulated

REPLY = {"choices": [{"message": {"content": "B"}, "finish_reason": "stop"}]}
Answer = Callable[[float], Any]


class Server:
    """Stands in for the connection: answers by the time, or raises."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.requests = 0

    async def post(self, *_: object) -> object:
        self.requests += 1
        await asyncio.sleep(0.1)
        answer = self._answer(asyncio.get_running_loop().time())
        if isinstance(answer, AttemptError):
            raise answer
        return answer

    async def close(self) -> None: ...


def simulated(
    answer: Answer,
    work: Callable[[ChatClient], Coroutine[Any, Any, None]],
    *,
    patience_s: float,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[float, float | None]:
    """Have a client at work; return how long it took and the rate that was learned."""

    async def main() -> tuple[float, float | None]:
        client = client_of("http://127.0.0.1:9/v1", patience_s=patience_s, say=say)
        await client._transport.close()
        client._transport = Server(answer)  # type: ignore[assignment]
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
    with pytest.raises(RefusedError, match=f"has given no reply for {words}: HTTP 429: slow down") as caught:
        simulated(noting(times, SLOW_DOWN), ask_together(3), patience_s=patience_s)

    assert caught.value.remedy == "Continue later with --resume; --patience TIME waits longer."
    assert patience_s <= max(times) < patience_s + 60


def test_a_server_that_asks_to_wait_longer_than_the_patience_is_given_up_when_that_ends() -> None:
    times: list[float] = []
    fault = fault_of_status(429, {"error": {"message": "slow down"}}, {"retry-after": "500"})
    with pytest.raises(RefusedError):
        simulated(noting(times, fault), ask_once, patience_s=90)

    assert 90 <= max(times) < 92


def test_without_patience_they_count_as_retries() -> None:
    with pytest.raises(NoReplyError, match="slow down"):
        simulated(lambda now: SLOW_DOWN, ask_once, patience_s=0)


def test_short_cycles_teach_no_rate() -> None:
    rate = LearnedRate()
    for number in range(100):
        rate.replied(number * 0.01, ends_pause=number % 4 == 0)

    assert rate.per_s is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.6, "60 s"), (60, "1 min"), (90, "90 s"), (200, "3 min"), (3600, "1 h"), (9000, "2 h 30 min")],
)
def test_times_are_written_for_people(seconds: float, words: str) -> None:
    assert duration(seconds) == words
