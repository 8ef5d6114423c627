"""Asking one question: what is sent, what is asked again, what is given up."""

import asyncio
import time
from email.utils import formatdate
from typing import Any

import openai
import pytest
from aiohttp import web

from bundle.client import NoReplyError, RefusedError
from tests.evaluation.asking import MESSAGES, ask, client_of
from tests.openai_api import Call, completion, error, loopback_api
from tests.patience import PATIENCE_S

AT_ONCE = {"Retry-After": "0"}


async def test_a_request_holds_model_messages_and_sampling_and_nothing_else() -> None:
    async def handler(call: Call) -> web.Response:
        return completion("B")

    async with loopback_api(handler) as api, client_of(api.url) as client:
        reply = await ask(client)

    assert api.bodies == [{"model": "m", "messages": MESSAGES, "temperature": 0.0, "max_tokens": 64, "stream": False}]
    assert api.keys == ["Bearer sk-test"]
    assert (reply.text, reply.finish_reason, reply.attempts, reply.thinking) == ("B", "stop", 1, None)
    assert (reply.prompt_tokens, reply.completion_tokens) == (7, 2)


async def test_of_many_at_once_the_package_makes_one_and_its_like_wait_for_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made_by_package: list[str] = []
    post = openai.AsyncOpenAI.post

    async def noted(self: openai.AsyncOpenAI, path: str, **how: Any) -> Any:
        made_by_package.append(path)
        return await post(self, path, **how)

    all_here = asyncio.Barrier(20)

    async def handler(call: Call) -> web.Response:
        await all_here.wait()
        return completion("B")

    monkeypatch.setattr(openai.AsyncOpenAI, "post", noted)
    async with loopback_api(handler) as api, client_of(api.url) as client, asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(ask(client) for _ in range(20)))

    assert made_by_package == [f"{api.url}/chat/completions"]
    assert len({str(sorted(headers.items())) for headers in api.headers}) == 1


async def test_nothing_of_the_environment_is_sent_along(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(call: Call) -> web.Response:
        return completion("B")

    monkeypatch.setenv("OPENAI_API_KEY", "sk-elsewhere")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-elsewhere")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-elsewhere")
    async with loopback_api(handler) as api, client_of(api.url, keys=[]) as client:
        await ask(client)

    assert api.keys == [None]
    assert "elsewhere" not in str(api.headers)


async def test_the_environments_proxy_is_used_but_for_a_server_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(call: Call) -> web.Response:
        return completion("B")

    async with loopback_api(handler) as proxy, loopback_api(handler) as direct:
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        async with client_of("http://model.example/v1") as client:
            await ask(client)
        async with client_of(direct.url) as client:
            await ask(client)

    assert [headers["Host"] for headers in proxy.headers] == ["model.example"]
    assert len(direct.headers) == 1


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
async def test_a_passing_fault_is_asked_again(status: int) -> None:
    async def handler(call: Call) -> web.Response:
        return error(status, "busy", AT_ONCE) if call.number < 3 else completion("C")

    async with loopback_api(handler) as api, client_of(api.url) as client:
        reply = await ask(client)

    assert (reply.text, reply.attempts) == ("C", 3)


async def test_retries_are_bounded_and_the_reason_is_told() -> None:
    async def handler(call: Call) -> web.Response:
        return error(500, "CUDA went away", AT_ONCE)

    async with loopback_api(handler) as api, client_of(api.url, retries=2) as client:
        with pytest.raises(NoReplyError, match="HTTP 500: CUDA went away") as caught:
            await ask(client)

    assert caught.value.attempts == len(api.bodies) == 3


@pytest.mark.parametrize("form", ["seconds", "date", "milliseconds"])
async def test_retry_after_is_honoured(form: str) -> None:
    async def handler(call: Call) -> web.Response:
        if call.number > 1:
            return completion("A")
        date = formatdate(time.time() + 2, usegmt=True)  # in whole seconds: between 1 and 2 from now
        headers = {
            "seconds": {"Retry-After": "1"},
            "date": {"Retry-After": date},
            "milliseconds": {"Retry-After-Ms": "1000", "Retry-After": "60"},
        }
        return error(429, "slow down", headers[form])

    async with loopback_api(handler) as api, client_of(api.url) as client:
        await ask(client)

    assert 0.9 <= api.times[1] - api.times[0] < 50


async def test_a_server_that_asks_to_wait_for_hours_is_not_waited_for() -> None:
    async def handler(call: Call) -> web.Response:
        return error(503, "maintenance", {"Retry-After": "7200"})

    async with loopback_api(handler) as api, client_of(api.url) as client, asyncio.timeout(PATIENCE_S):
        with pytest.raises(NoReplyError, match=r"maintenance \(asks to wait 2 h\)"):
            await ask(client)

    assert len(api.bodies) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_request_that_the_server_cannot_take_is_not_asked_again(status: int) -> None:
    async def handler(call: Call) -> web.Response:
        return error(status, "prompt too long: the model's maximum context length is 4096 tokens")

    async with loopback_api(handler) as api, client_of(api.url) as client:
        with pytest.raises(NoReplyError, match="prompt too long"):
            await ask(client)

    assert len(api.bodies) == 1


async def test_an_attempt_has_a_limit() -> None:
    async def handler(call: Call) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with loopback_api(handler) as api, client_of(api.url, retries=1, timeout_s=1.0) as client:
        with pytest.raises(NoReplyError, match=r"no reply within 1 s") as caught:
            await ask(client)

    assert caught.value.attempts == len(api.bodies) == 2


async def test_a_reply_that_trickles_past_the_limit_is_given_up() -> None:
    async def handler(call: Call) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(call.request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.05)

    async with loopback_api(handler) as api, client_of(api.url, retries=0, timeout_s=0.5) as client:
        with pytest.raises(NoReplyError, match=r"no reply within 0.5 s"):
            await ask(client)


async def test_a_dropped_connection_is_asked_again() -> None:
    async def handler(call: Call) -> web.Response:
        if call.number == 1 and call.request.transport is not None:
            call.request.transport.abort()
        return completion("D")

    async with loopback_api(handler) as api, client_of(api.url) as client:
        reply = await ask(client)

    assert (reply.text, reply.attempts) == ("D", 2)


async def test_a_connection_that_is_always_dropped_leaves_the_question_unanswered() -> None:
    async def handler(call: Call) -> web.Response:
        assert call.request.transport is not None
        call.request.transport.abort()
        return completion("D")

    async with loopback_api(handler) as api, client_of(api.url, retries=1) as client:
        with pytest.raises(NoReplyError, match="connection failed"):
            await ask(client)


async def test_no_server_at_all_ends_the_run() -> None:
    async with client_of(await _closed(), retries=1) as client:
        with pytest.raises(RefusedError, match=r"http://127.*cannot be used: connection failed") as caught:
            await ask(client)

    assert "Check the base URL" in str(caught.value)


async def test_a_server_that_is_gone_after_a_reply_leaves_questions_unanswered() -> None:
    async def handler(call: Call) -> web.Response:
        return completion("A")

    async with loopback_api(handler) as api:
        client = client_of(api.url, retries=0)
        await ask(client)
    async with client:
        with pytest.raises(NoReplyError, match="connection failed"):
            await ask(client)


async def test_a_question_that_is_no_unicode_is_unanswered() -> None:
    async with client_of(await _closed()) as client:
        with pytest.raises(NoReplyError, match="cannot be encoded as UTF-8"):
            await client.ask([{"role": "user", "content": "\ud800"}], 8)


async def _closed() -> str:
    """Where no server is any more."""

    async def handler(call: Call) -> web.Response:
        raise AssertionError

    async with loopback_api(handler) as api:
        return api.url
