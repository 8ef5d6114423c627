"""What finding out how many requests a server can handle costs, against having known it."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from benchmarks.batching import Engine, Request, State
from benchmarks.parameters import Batching
from benchmarks.prefix_cache import PrefixCache
from bundle.evaluation._leases import Pool
from bundle.evaluation._window import Window
from bundle.tasks.catalog import Question
from tests.evaluation.simulated_clock import run_simulated

MOST, PAUSE_S = 128, 0.5
SHORT = [4] * 1346
LONG = [*map(random.Random(1).randint, [60] * 400, [180] * 400)]
USUAL_SIZE = 26
GPU = {"prefill_ms": 30, "ms_per_token": 8}


@dataclass(frozen=True)
class Server:
    """A server with an engine.

    Attributes:
        refuses_above: How many requests it takes at once.
        becomes: The engine after a third of the replies.
    """

    engine: Batching
    refuses_above: int = MOST
    becomes: Batching | None = None


class Busy(Exception):  # noqa: N818
    """The server has too many requests already; ``in_hand`` says how many."""

    def __init__(self, in_hand: int) -> None:
        self.in_hand = in_hand


class RunningServer:
    """The server on the event loop's clock, which may be a simulated one."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._engine = Engine(server.engine, PrefixCache(0))
        self._loop = asyncio.get_running_loop()
        self._in_hand: dict[Request, tuple[Callable[[], None], asyncio.Future[None]]] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def reply(self, tokens: int, begun: Callable[[], None]) -> None:
        """Wait for a reply of so many tokens; ``begun`` is called with the first of them."""
        if len(self._in_hand) >= self._server.refuses_above:
            await asyncio.sleep(0.001)
            raise Busy(len(self._in_hand))
        self._advance()
        request = Request(prompt_tokens=1000, blocks=(), steps=tokens)
        self._in_hand[request] = begun, self._loop.create_future()
        self._engine.submit(request, self._loop.time())
        self._advance()
        await self._in_hand[request][1]
        del self._in_hand[request]

    def slow_down(self) -> None:
        if self._server.becomes is not None:
            self._engine._batching = self._server.becomes

    def _advance(self) -> None:
        for request in self._engine.advance(self._loop.time()):
            begun, reply = self._in_hand[request]
            if request.generated == 1:
                begun()
            if request.state is State.FINISHED:
                reply.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
        at = self._engine.next_event()
        self._timer = None if at is None else self._loop.call_at(at, self._advance)


def seconds(server: Server, lengths: Sequence[int], most: int, *, adaptive: bool, prefix_order: bool = False) -> float:
    """How long it takes to get whole replies of so many tokens.

    As the client does, nobody asks for half a second after a refusal.
    """
    return run_simulated(_ask(server, lengths, most, adaptive, prefix_order))


async def _ask(server: Server, lengths: Sequence[int], most: int, adaptive: bool, prefix_order: bool) -> float:
    loop, window, running = asyncio.get_running_loop(), Window(most, adaptive=adaptive), RunningServer(server)
    in_flight, replied, paused_until = 0, 0, 0.0
    pool = Pool(1)
    subjects = (str(number // USUAL_SIZE) for number in range(len(lengths)))
    questions = [Question("t", "val", subject, number, [], "A", 5) for number, subject in enumerate(subjects)]
    pool.add(questions, prefix_order=prefix_order)

    async def ask(tokens: int) -> None:
        nonlocal in_flight, replied, paused_until
        in_flight += 1
        before = in_flight
        while True:
            await asyncio.sleep(max(0.0, paused_until - loop.time()))
            asked_at = loop.time()
            try:
                await running.reply(tokens, window.begun)
                break
            except Busy as refusal:
                window.busy(refusal.in_hand)
                paused_until = loop.time() + PAUSE_S
        in_flight_then, in_flight = (before + in_flight) / 2, in_flight - 1
        window.ended()
        window.replied(loop.time() - asked_at, in_flight_then)
        replied += 1
        if replied == len(lengths) // 3:
            running.slow_down()

    async def work() -> None:
        while True:
            async with window:
                question = await pool.next(0, window.limit)
                if question is None:
                    return
                await ask(lengths[question.id])
                pool.read(0, question.key)
                pool.ended(0, question.key)

    await asyncio.gather(*(work() for _ in range(most)))
    return loop.time()


SERVERS = {
    "8 slots": Server(Batching(slots=8, **GPU)),
    "32 slots": Server(Batching(slots=32, **GPU)),
    "128 slots": Server(Batching(slots=128, **GPU)),
    "every request costs": Server(Batching(slots=64, prefill_ms=2, prefills_at_once=1, ms_per_token_per_request=0.4)),
    "prompts cost": Server(Batching(slots=128, prefill_ms=8, prefills_at_once=2, ms_per_token=8)),
    "refuses above 8": Server(Batching(slots=128, **GPU), refuses_above=8),
    "refuses above 32": Server(Batching(slots=128, **GPU), refuses_above=32),
    "refuses above 50": Server(Batching(slots=128, **GPU), refuses_above=50),
    "loses slots": Server(Batching(slots=64, **GPU), becomes=Batching(slots=16, **GPU)),
    "slows down": Server(Batching(slots=64, **GPU), becomes=Batching(slots=64, prefill_ms=120, ms_per_token=32)),
}


@pytest.mark.parametrize(
    "lengths", [pytest.param(SHORT, id="short"), pytest.param(LONG, id="long", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", SERVERS)
def test_looking_for_the_best_number_of_requests_costs_a_twentieth_of_the_time(
    name: str, lengths: Sequence[int]
) -> None:
    best = min(seconds(SERVERS[name], lengths, most, adaptive=False) for most in (8, 32, 48, MOST))
    # Where all is done in a second, two replies that are waited for count for more, or two pauses after refusals.
    little = 2 * PAUSE_S if name.startswith("refuses") else 0.1
    assert seconds(SERVERS[name], lengths, MOST, adaptive=True) <= max(1.05 * best, best + little)


def test_a_server_that_becomes_slower_but_has_as_many_slots_is_asked_as_much_at_once() -> None:
    best = seconds(SERVERS["slows down"], 4 * SHORT, MOST, adaptive=False)
    assert seconds(SERVERS["slows down"], 4 * SHORT, MOST, adaptive=True) <= 1.05 * best


def test_sending_a_question_of_every_subject_ahead_costs_a_tenth_of_a_second_more_where_it_is_worth_nothing() -> None:
    server = SERVERS["128 slots"]
    best = seconds(server, SHORT, MOST, adaptive=False)
    assert seconds(server, SHORT, MOST, adaptive=False, prefix_order=True) <= best + 0.1
    assert seconds(server, SHORT, MOST, adaptive=True, prefix_order=True) <= best + 0.2
