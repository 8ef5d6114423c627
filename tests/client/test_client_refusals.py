"""What every question would meet ends the run at once; what only one meets does not."""

import asyncio
import json
import socket
from typing import Any

import pytest
from aiohttp import web

from bundle.client import NoReplyError, RefusedError
from tests.evaluation.asking import ask, client_of
from tests.openai_api import Call, chunk, completion, error, letter, loopback_api
from tests.patience import PATIENCE_S


@pytest.mark.parametrize("status", [401, 402, 403, 404, 405, 407, 410])
async def test_what_every_question_would_meet_ends_the_run(status: int) -> None:
    async def handler(call: Call) -> web.Response:
        return error(status, "not you")

    async with loopback_api(handler) as api, client_of(api.url) as client:
        with pytest.raises(RefusedError, match=f"refuses every request: HTTP {status}: not you") as caught:
            await ask(client)

    assert len(api.bodies) == 1
    assert caught.value.remedy
    assert caught.value.exit_code == 3


async def test_a_server_that_wants_a_key_is_told_from_one_that_rejects_it() -> None:
    async def handler(call: Call) -> web.Response:
        return error(401, "no API key was sent")

    async with loopback_api(handler) as api, client_of(api.url, keys=()) as client:
        with pytest.raises(RefusedError) as caught:
            await ask(client)

    assert (
        caught.value.remedy == "No key was sent: name the environment variable that holds it with --api-key-env NAME."
    )
    async with loopback_api(handler) as api, client_of(api.url) as client:
        with pytest.raises(RefusedError) as caught:
            await ask(client)

    assert caught.value.remedy is not None
    assert caught.value.remedy.startswith("A key was sent: check it, or name another")
    assert "--api-key-env" in caught.value.remedy


async def test_an_address_without_an_api_is_named_with_what_to_check() -> None:
    async def handler(call: Call) -> web.Response:
        raise AssertionError

    async with loopback_api(handler) as api, client_of(f"{api.url}/chat") as client:
        with pytest.raises(RefusedError, match=r"/v1/chat refuses every request: HTTP 404") as caught:
            await ask(client)

    assert "the base URL: it ends in /v1, or is given up to /chat/completions." in str(caught.value)


@pytest.mark.parametrize("typed", ["/x//v1", "/x/V1", "/x/v1/v1"])
async def test_an_address_that_is_mistyped_in_a_common_way_is_answered_with_the_likely_one(typed: str) -> None:
    async with loopback_api(letter) as api:
        root = api.url.removesuffix("/v1")
        async with client_of(f"{root}{typed}") as client:
            with pytest.raises(RefusedError, match="HTTP 404") as caught:
                await ask(client)

    assert caught.value.remedy == f"Check the base URL: perhaps --base-url {root}/x/v1 is meant."


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {"message": "The model `m` does not exist.", "code": "model_not_found"}),
        (400, {"message": "The model `m` does not exist."}),
        (400, {"message": "Model Not Exist", "type": "invalid_request_error"}),
        (400, {"message": "模型不存在，请检查模型代码", "code": "1211"}),
        (400, {"message": "m?", "code": "ModelNotFound"}),
    ],
)
async def test_a_model_that_is_not_there_ends_the_run(status: int, body: dict[str, Any]) -> None:
    async def handler(call: Call) -> web.Response:
        return error(status, **body)

    async with loopback_api(handler) as api, client_of(api.url) as client:
        with pytest.raises(RefusedError) as caught:
            await ask(client)

    assert len(api.bodies) == 1
    assert "model name" in str(caught.value)


@pytest.mark.parametrize("status", [403, 410])
async def test_a_refusal_after_a_reply_concerns_one_question(status: int) -> None:
    async def handler(call: Call) -> web.Response:
        return error(status, "moderated") if call.number == 2 else completion("A")

    async with loopback_api(handler) as api, client_of(api.url) as client:
        await ask(client)
        with pytest.raises(NoReplyError, match=f"HTTP {status}: moderated"):
            await ask(client)
        assert (await ask(client)).text == "A"

    assert len(api.bodies) == 3


async def test_a_key_that_has_worked_is_dropped_once_its_refusal_is_repeated() -> None:
    async def handler(call: Call) -> web.Response:
        return completion("A") if call.number in (1, 3, 5) else error(401, "who are you?")

    async with loopback_api(handler) as api, client_of(api.url) as client:
        assert [(await ask(client)).attempts for _ in range(3)] == [1, 2, 2]
        with pytest.raises(RefusedError, match="who are you"):
            await ask(client)

    assert len(api.bodies) == 8


async def test_a_redirect_between_replies_may_pass() -> None:
    async def handler(call: Call) -> web.Response:
        if call.number == 2:
            return web.Response(status=302, headers={"Location": "/maintenance.html"})
        return completion("A")

    async with loopback_api(handler) as api, client_of(api.url) as client:
        assert [(await ask(client)).attempts for _ in range(2)] == [1, 2]


async def test_a_gateway_that_keeps_this_machine_out_is_named_as_one() -> None:
    async def handler(call: Call) -> web.Response:
        return web.Response(status=403, text="<html><title>Just a moment...</title>", content_type="text/html")

    async with loopback_api(handler) as api, client_of(api.url) as client:
        with pytest.raises(RefusedError, match=r"HTTP 403: an HTML page \"Just a moment...\"") as caught:
            await ask(client)

    assert caught.value.remedy is not None
    assert caught.value.remedy.startswith("A gateway answered in the API's place")


async def test_refusals_and_nothing_else_end_the_run_after_all() -> None:
    async def handler(call: Call) -> web.Response:
        return completion("A") if call.number <= 3 else error(403, "the model was unloaded")

    async with loopback_api(handler) as api, client_of(api.url) as client:
        for _ in range(3):
            await ask(client)
        for _ in range(9):
            with pytest.raises(NoReplyError):
                await ask(client)
        with pytest.raises(RefusedError, match="unloaded"):
            await ask(client)

    assert len(api.bodies) == 13


async def test_after_the_run_has_ended_nothing_more_is_sent() -> None:
    async def handler(call: Call) -> web.Response:
        return error(401, "not you")

    async with loopback_api(handler) as api, client_of(api.url) as client:
        for _ in range(3):
            with pytest.raises(RefusedError, match="not you"):
                await ask(client)

    assert len(api.bodies) == 1


async def test_a_server_that_never_takes_the_connection_ends_the_run() -> None:
    # Nobody accepts; once the backlog is full, further connections hang as they do behind a firewall.
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(listening.getsockname())
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
            async with client_of(url, retries=0, timeout_s=1.0) as client, asyncio.timeout(PATIENCE_S):
                with pytest.raises(RefusedError, match="does not accept connections"):
                    await ask(client)
        finally:
            for filler in fillers:
                filler.close()


async def test_a_server_of_our_own_that_answers_from_another_model_ends_the_run() -> None:
    async def handler(call: Call) -> web.Response:
        return completion("A", model="another")

    async with loopback_api(handler) as api, client_of(api.url, retries=0, ours=True) as client:
        with pytest.raises(RefusedError, match="another model, 'another'"):
            await ask(client)


@pytest.mark.parametrize(
    ("named", "kept"),
    [
        ("m-2026-11-23", "m-2026-11-23"),
        ("fallback", "fallback"),
        ("m", None),
        ("Org/M@main", None),
        (None, None),
        (7, None),
    ],
)
@pytest.mark.parametrize("streams", [False, True])
async def test_a_remote_api_may_name_the_version_that_answered(
    named: object, kept: str | None, *, streams: bool
) -> None:
    async def handler(call: Call) -> web.Response:
        if not streams:
            return completion("A", model=named)
        event = json.dumps(chunk("A", "stop") | {"model": named})
        return web.Response(text=f"data: {event}\n\n", content_type="text/event-stream")

    async with loopback_api(handler) as api, client_of(api.url) as client:
        reply = await ask(client)
        assert (reply.text, reply.model) == ("A", kept)


async def test_further_fields_are_sent_with_every_request_and_left_out_if_the_server_refuses_them() -> None:
    async def handler(call: Call) -> web.Response:
        return error(400, "Unrecognized request argument supplied: top_k") if "top_k" in call.body else completion("B")

    async with loopback_api(handler) as api, client_of(api.url) as client:
        client.send_always({"top_k": 1, "stop": ["<|im_end|>"]})
        await ask(client)
        await ask(client)

    assert [body.get("top_k") for body in api.bodies] == [1, None, None]
    assert all(body["stop"] == ["<|im_end|>"] for body in api.bodies)
    assert client.changes == ("top_k left out",)
