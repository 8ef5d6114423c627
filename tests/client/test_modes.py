"""A server that only streams, or never does, is found out whatever it answers to the other kind of request."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from bundle.client import NoReplyError, RefusedError
from bundle.client._early_decisions import EarlyDecisions
from bundle.tasks.answers import FirstOption
from tests.client.quirks import letter, say, streamed, whole
from tests.client.test_quirks import OPTIONS, QUESTIONS, evaluate, require_right
from tests.evaluation.asking import MESSAGES, client_of
from tests.openai_api import Call, Handler, ScriptedApi, error, loopback_api

Answer = Callable[[Call], Awaitable[web.StreamResponse]]


def failing(status: int, message: str) -> Answer:
    async def answer(call: Call) -> web.StreamResponse:
        return error(status, message)

    return answer


def saying(content: str | None) -> Answer:
    async def answer(call: Call) -> web.StreamResponse:
        message = {"content": content}
        return await streamed(call, [message]) if call.body["stream"] else await whole(call, message)

    return answer


async def lost(call: Call) -> web.StreamResponse:
    assert call.request.transport is not None
    call.request.transport.abort()
    return web.Response()


def only_in(mode: str, otherwise: Answer) -> Handler:
    """A server with one mode, and what it makes of requests for the other."""

    async def handler(call: Call) -> web.StreamResponse:
        if call.body["stream"] == (mode == "streams"):
            return await say(call, letter(call.body))
        return await otherwise(call)

    return handler


WHOLE_FAIL = {
    "a gateway's time limit": failing(504, "upstream timed out"),
    "500 with a hint": failing(500, "enable stream"),
    "500 without one": failing(500, "oops"),
    "403": failing(403, "complete replies are not in your plan"),
    "lost connections": lost,
    "empty text": saying(""),
    "null": saying(None),
}
STREAMS_FAIL = {
    "501": failing(501, "not implemented"),
    "500 with a hint": failing(500, "streaming is not supported by this backend"),
    "500 without one": failing(500, "internal error"),
    "404": failing(404, "no such route"),
    "405": failing(405, "not allowed"),
    "403": failing(403, "not in your plan"),
    "empty text": saying(""),
}


@pytest.mark.parametrize("fault", WHOLE_FAIL)
async def test_where_only_streams_come_all_replies_are_streamed(fault: str, tmp_path: Path) -> None:
    results, api, said = await evaluate(tmp_path, only_in("streams", WHOLE_FAIL[fault]))

    require_right(results)
    assert len([line for line in said if "streaming all replies; --stream always" in line]) == 1
    assert [body["stream"] for body in api.bodies].count(False) <= 2 * OPTIONS.concurrency
    assert api.bodies[-1]["stream"]


@pytest.mark.parametrize("fault", STREAMS_FAIL)
async def test_where_only_complete_replies_come_none_is_streamed(fault: str, tmp_path: Path) -> None:
    results, api, said = await evaluate(tmp_path, only_in("whole", STREAMS_FAIL[fault]))

    require_right(results)
    assert len([line for line in said if "requesting complete replies; --stream never" in line]) == 1
    assert not api.bodies[-1]["stream"]


async def test_where_both_are_refused_the_first_refusal_is_told_and_the_other_was_asked_for_once(
    tmp_path: Path,
) -> None:
    modes: list[bool] = []

    async def handler(call: Call) -> web.StreamResponse:
        modes.append(call.body["stream"])
        return error(404, "no streams") if call.body["stream"] else error(400, "nor anything else")

    with pytest.raises(RefusedError, match="HTTP 404: no streams"):
        await evaluate(tmp_path, handler)

    assert modes.count(False) == 1


async def test_the_other_mode_is_not_tried_where_the_user_has_settled_it(tmp_path: Path) -> None:
    modes: set[bool] = set()

    async def handler(call: Call) -> web.StreamResponse:
        modes.add(call.body["stream"])
        return error(404, "no streams") if call.body["stream"] else await say(call, letter(call.body))

    with pytest.raises(RefusedError, match="HTTP 404: no streams"):
        await evaluate(tmp_path, handler, stream="always")

    assert modes == {True}


async def ask_in_turn(handler: Handler, count: int) -> tuple[ScriptedApi, list[str]]:
    """Ask so many questions, one after the other, each once; return why they got no reply."""
    reading = EarlyDecisions(FirstOption("ABCD"), tls=False)
    reasons: list[str] = []
    async with loopback_api(handler) as api, client_of(api.url, retries=0) as client:
        for _ in range(count):
            try:
                await client.ask(MESSAGES, 64, reading=reading)
            except NoReplyError as failure:
                reasons.append(failure.reason)
    return api, reasons


async def test_a_broken_server_is_hardly_asked_more_often() -> None:
    """In the other mode, too, after 1, 2, 4, 8, 16 and 32 faults."""

    async def handler(call: Call) -> web.StreamResponse:
        return error(500, "CUDA went away" if call.body["stream"] else "as before")

    api, reasons = await ask_in_turn(handler, 40)

    assert reasons == ["HTTP 500: CUDA went away"] * 40
    assert [body["stream"] for body in api.bodies].count(False) == 6


async def test_a_rate_limit_says_nothing_about_the_mode() -> None:
    async def handler(call: Call) -> web.StreamResponse:
        return error(429, "slow", {"Retry-After": "0"}) if call.number < 4 else await say(call, "A")

    api, _ = await ask_in_turn(handler, 6)

    assert all(body["stream"] for body in api.bodies)


async def test_an_outage_while_complete_replies_begin_changes_no_score(tmp_path: Path) -> None:
    async def handler(call: Call) -> web.StreamResponse:
        if 12 <= call.number < 30:
            return error(503, "restarting", {"Retry-After": "0"})
        return await say(call, letter(call.body))

    results, _, _ = await evaluate(tmp_path, handler)

    require_right(results)


async def test_a_reply_that_is_empty_in_both_modes_is_an_empty_reply(tmp_path: Path) -> None:
    async def handler(call: Call) -> web.StreamResponse:
        is_silent = call.body["messages"][-1]["content"].endswith(("3", "7"))
        return await say(call, "" if is_silent else letter(call.body))

    results, api, said = await evaluate(tmp_path, handler)

    assert results.coverage.answered == len(QUESTIONS)
    assert not said
    assert len(api.bodies) < 2 * len(QUESTIONS)
