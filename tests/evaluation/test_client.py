"""Asking one question: what is a reply, what is asked again, what is given up."""

import asyncio
import time
from email.utils import formatdate

import pytest
from aiohttp import web

from bundle.evaluation.client import ChatClient, NoReplyError, RefusedError
from bundle.tasks.prompts import Message
from tests.evaluation.loopback_api import Call, completion, error, loopback_api

MESSAGES: list[Message] = [{"role": "user", "content": "1+1=?\n答案: "}]


def client_of(url: str, *, retries: int = 2, timeout_s: float = 20.0) -> ChatClient:
    return ChatClient(
        url, "sk-test", "m", temperature=0.0, max_out_len=64, timeout_s=timeout_s, retries=retries, proxies=False
    )


async def test_a_request_holds_model_messages_and_sampling_and_nothing_else() -> None:
    async def handler(call: Call) -> web.Response:
        return completion("B")

    async with loopback_api(handler) as api, client_of(api.url) as client:
        reply = await client.ask(MESSAGES)

    assert api.bodies == [{"model": "m", "messages": MESSAGES, "temperature": 0.0, "max_tokens": 64}]
    assert api.keys == ["Bearer sk-test"]
    assert (reply.text, reply.finish_reason, reply.attempts) == ("B", "stop", 1)
    assert (reply.prompt_tokens, reply.completion_tokens) == (7, 2)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
async def test_a_passing_fault_is_asked_again(status: int) -> None:
    async def handler(call: Call) -> web.Response:
        return error(status, "busy", {"Retry-After": "0"}) if call.number < 3 else completion("C")

    async with loopback_api(handler) as api, client_of(api.url) as client:
        reply = await client.ask(MESSAGES)

    assert (reply.text, reply.attempts) == ("C", 3)


async def test_retries_are_bounded_and_the_reason_is_told() -> None:
    async def handler(call: Call) -> web.Response:
        return error(500, "CUDA went away", {"Retry-After": "0"})

    async with loopback_api(handler) as api, client_of(api.url, retries=2) as client:
        with pytest.raises(NoReplyError, match="HTTP 500: CUDA went away") as caught:
            await client.ask(MESSAGES)

    assert caught.value.attempts == len(api.bodies) == 3


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_retry_after_is_honoured(form: str) -> None:
    came: list[float] = []

    async def handler(call: Call) -> web.Response:
        came.append(time.time())
        value = "2" if form == "seconds" else formatdate(time.time() + 3, usegmt=True)
        return error(429, "slow down", {"Retry-After": value}) if call.number == 1 else completion("A")

    async with loopback_api(handler) as api, client_of(api.url) as client:
        await client.ask(MESSAGES)

    assert came[1] - came[0] >= 1.9


async def test_a_bad_request_is_not_asked_again() -> None:
    async def handler(call: Call) -> web.Response:
        return error(400, "prompt too long")

    async with loopback_api(handler) as api, client_of(api.url) as client:
        with pytest.raises(NoReplyError, match="prompt too long"):
            await client.ask(MESSAGES)

    assert len(api.bodies) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_what_every_question_would_meet_ends_the_run(status: int) -> None:
    async def handler(call: Call) -> web.Response:
        return error(status, "not you")

    async with loopback_api(handler) as api, client_of(api.url) as client:
        with pytest.raises(RefusedError, match=f"HTTP {status}: not you"):
            await client.ask(MESSAGES)

    assert len(api.bodies) == 1


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'{"choices": []}', b'{"choices": [{"message": {}}]}', b"null", b'{"choices": [{"message": null}]}'],
)
async def test_a_body_that_is_no_completion_is_no_reply(body: bytes) -> None:
    async def handler(call: Call) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    async with loopback_api(handler) as api, client_of(api.url, retries=0) as client:
        with pytest.raises(NoReplyError, match="not what the API promises"):
            await client.ask(MESSAGES)


@pytest.mark.parametrize("finish_reason", ["abort", "error", "content_filter", "tool_calls", None])
async def test_a_reply_the_server_gave_up_is_no_reply(finish_reason: str | None) -> None:
    async def handler(call: Call) -> web.Response:
        return completion("A", finish_reason)

    async with loopback_api(handler) as api, client_of(api.url, retries=0) as client:
        with pytest.raises(NoReplyError, match="ended the reply with"):
            await client.ask(MESSAGES)


async def test_null_content_is_an_empty_reply() -> None:
    async def handler(call: Call) -> web.Response:
        return completion(None)

    async with loopback_api(handler) as api, client_of(api.url) as client:
        assert (await client.ask(MESSAGES)).text == ""


async def test_a_request_has_a_limit() -> None:
    async def handler(call: Call) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with loopback_api(handler) as api, client_of(api.url, retries=0, timeout_s=0.3) as client:
        with pytest.raises(NoReplyError, match=r"no reply within 0.3 s"):
            await client.ask(MESSAGES)


async def test_a_reply_that_trickles_past_the_limit_is_given_up() -> None:
    async def handler(call: Call) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(call.request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.05)

    async with loopback_api(handler) as api, client_of(api.url, retries=0, timeout_s=0.5) as client:
        with pytest.raises(NoReplyError, match=r"no reply within 0.5 s"):
            await client.ask(MESSAGES)


async def test_a_dropped_connection_is_asked_again() -> None:
    async def handler(call: Call) -> web.Response:
        if call.number == 1 and call.request.transport is not None:
            call.request.transport.abort()
        return completion("D")

    async with loopback_api(handler) as api, client_of(api.url) as client:
        reply = await client.ask(MESSAGES)

    assert (reply.text, reply.attempts) == ("D", 2)


async def _never(call: Call) -> web.Response:
    raise AssertionError


async def test_no_server_at_all_is_told() -> None:
    async with loopback_api(_never) as api:
        closed = api.url
    async with client_of(closed, retries=0) as client:
        with pytest.raises(NoReplyError, match="connection failed"):
            await client.ask(MESSAGES)
