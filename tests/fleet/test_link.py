"""One worker as its driver sees it: calls, errors, silence."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.client import EarlyDecisions, NoReplyError, RefusedError, Reply
from bundle.errors import BundleError, CheckpointError, ServerError
from bundle.fleet import DistantClient, Link
from bundle.fleet.wire import error_from_json, error_to_json, from_line, reply_from_json, reply_to_json, to_line
from bundle.tasks.answers import FirstCapital
from bundle.tasks.prompts import Message
from tests.evaluation.simulated_clock import run_simulated

MESSAGES: list[Message] = [{"role": "user", "content": "A or B?"}]


def worker(answer: Callable[[Link, int, str, Any], None]) -> Link:
    """One that answers as told."""
    link = Link(lambda data: answer(link, *from_line(data)), "node-1")
    return link


def reply(text: str, **more: Any) -> Sequence[Any]:
    return reply_to_json(Reply(text, "stop", 300, 2, None, 0.5, 1, **more))


async def test_a_reply_comes_as_the_worker_had_it_however_the_bytes_arrive() -> None:
    begun = asyncio.Event()

    def answer(link: Link, number: int, name: str, arguments: Any) -> None:
        assert (name, arguments) == ("ask", [MESSAGES, 5, {}, None, None])
        lines = to_line(number, "begun", None) + to_line(
            number, "result", [reply("答案 A", thinking="hm"), ["no top_k"]]
        )
        for byte in lines:
            link.received(bytes([byte]))

    client = DistantClient(worker(answer), "echo")
    assert await client.ask(MESSAGES, 5, begun=begun.set) == reply_from_json(reply("答案 A", thinking="hm"))
    assert begun.is_set()
    assert client.changes == ["no top_k"]
    assert client.achieved_qpm == 1


async def test_what_a_worker_was_called_for_when_it_is_stopped_has_no_outcome() -> None:
    """The end that it is asked for is not what went wrong."""
    sent: list[str] = []
    link = worker(lambda _, number, name, arguments: sent.append(name))
    proving = asyncio.ensure_future(link.call("prove"))
    await asyncio.sleep(0)

    link.stop()
    link.lose("it has ended")

    with pytest.raises(asyncio.CancelledError):
        await proving
    assert sent == ["prove", "stop"]


@pytest.mark.parametrize(
    "error",
    [
        NoReplyError("HTTP 400", 2, 0.5, transient=False, too_long=True),
        RefusedError("no such model", remedy="name another", no_model=True),
        CheckpointError("a shard is missing", remedy="copy it", details=["model-2"]),
        ServerError("it died"),
        ZeroDivisionError("division by zero"),
    ],
)
async def test_an_error_comes_as_what_it_was_and_names_its_machine(error: Exception) -> None:
    link = worker(lambda link, number, *_: link.received(to_line(number, "error", error_to_json(error))))
    with pytest.raises(Exception) as met:
        await link.call("ask")
    found = met.value
    if isinstance(error, NoReplyError):
        assert isinstance(found, NoReplyError)
        assert (found.reason, found.attempts, found.transient, found.too_long) == ("HTTP 400", 2, False, True)
        return
    assert type(found) is (type(error) if isinstance(error, BundleError) else ServerError)
    assert str(found).startswith("node-1: ")


async def test_a_call_that_is_cancelled_is_called_off() -> None:
    told: list[str] = []
    link = worker(lambda link, number, name, arguments: told.append(name))
    call = asyncio.ensure_future(link.call("ask"))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait({call})
    assert told == ["ask", "cancel"]


async def test_a_lost_worker_fails_what_it_was_asked_and_will_be_asked() -> None:
    link = worker(lambda *_: None)
    call = asyncio.ensure_future(link.call("ask"))
    await asyncio.sleep(0)
    link.lose("node-1: gone.")
    with pytest.raises(ServerError, match="gone"):
        await call
    with pytest.raises(ServerError, match="gone"):
        await link.call("ask")


async def test_one_that_writes_something_else_is_given_up() -> None:
    link = worker(lambda link, number, *_: link.received(b"Segmentation fault\n"))
    with pytest.raises(ServerError, match="not of its protocol"):
        await link.call("ask")


def test_one_that_falls_silent_is_given_up_after_30_seconds() -> None:
    async def main() -> float:
        link = worker(lambda *_: None)
        link.received(to_line(0, "hello", {"bundle": "1"}))
        loop = asyncio.get_running_loop()
        for _ in range(10):
            await asyncio.sleep(20)
            link.received(to_line(0, "log", ""))
        heard_at = loop.time()
        await link.lost
        return loop.time() - heard_at

    assert 29 <= run_simulated(main()) <= 31


async def test_what_one_worker_learns_of_thinking_holds_for_all_that_follows() -> None:
    told: list[object] = []
    replies = iter([reply("B", decided_early=True), reply("C", took_text_back=True), reply("D", decided_early=True)])

    def answer(link: Link, number: int, name: str, arguments: Any) -> None:
        told.append(arguments[-1])
        link.received(to_line(number, "result", [next(replies), []]))

    client = DistantClient(worker(answer), "echo")
    reading = EarlyDecisions(FirstCapital(), tls=False, options="ABCD")
    await client.ask(MESSAGES, 5, reading=reading)
    assert not reading.mistaken
    await client.ask(MESSAGES, 5, reading=reading)
    assert reading.mistaken, "the first was stopped before the second showed that text may be thinking"
    reading.mistaken = False
    await client.ask(MESSAGES, 5, reading=reading)
    assert reading.mistaken, "it was on its way meanwhile"
    assert told == [{"rule": "first_capital", "of": "ABCD"}, {"rule": "first_capital", "of": "ABCD"}, None]


TEXT = st.text(st.characters(codec=None, categories=None))
"""Of any characters, and halves of them."""


@given(st.recursive(st.none() | st.booleans() | st.integers() | TEXT, lambda one: st.lists(one, max_size=3)))
def test_what_is_written_is_read(value: object) -> None:
    line = to_line(7, "result", value)
    assert line.count(b"\n") == 1
    assert from_line(line) == (7, "result", value)


def test_an_error_of_a_kind_that_is_not_known_ends_a_server() -> None:
    told: dict[str, Any] = {"kind": "Later", "message": "?", "remedy": None, "details": []}
    assert isinstance(error_from_json(told, "node-1"), ServerError)
