"""Bodies that come with a good status and are no reply, over real connections."""

import asyncio
import contextlib
import fcntl
import itertools
import json
import struct
import termios
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import pytest
from aiohttp import web

from bundle.client import ChatClient, NoReplyError, RefusedError, Reply
from bundle.client._settings import Streaming
from tests.evaluation.asking import ask, client_of
from tests.openai_api import Call, chunk, chunks_of, completion, error, http, loopback_api, raw_api, send_stream
from tests.patience import PATIENCE_S

GOOD = json.dumps({"choices": [{"message": {"content": "B"}, "finish_reason": "stop"}]}).encode()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(http(GOOD[:40]), id="half JSON"),
        pytest.param(http(GOOD[:40], length=len(GOOD)), id="cut off in the body"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Le", id="cut off in the header"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n{", id="cut off in a chunk"),
        pytest.param(http(b""), id="nothing"),
        pytest.param(b"", id="not even a header"),
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", id="not HTTP"),
        pytest.param(http(b"[" * 100_000), id="nested too deep"),
        pytest.param(http(GOOD.replace(b"B", b"\xff")), id="not UTF-8"),
        pytest.param(http(GOOD, headers=["Content-Encoding: gzip"]), id="said to be gzip"),
        pytest.param(http(GOOD, headers=["X-Long: " + "x" * 100_000]), id="a header without end"),
    ],
)
async def test_a_broken_answer_is_asked_again(answer: bytes) -> None:
    async with raw_api(answer, http(GOOD)) as api, client_of(api.url, retries=1) as client:
        reply = await ask(client)

    assert (reply.text, reply.attempts) == ("B", 2)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
async def test_a_compression_that_cannot_be_read_is_told_as_that(encoding: str) -> None:
    answer = http(b"\xff" + GOOD, headers=[f"Content-Encoding: {encoding}"])
    async with raw_api(answer) as api, client_of(api.url, retries=0) as client:
        with pytest.raises(NoReplyError, match=r"the reply is compressed, which was not asked for, .*: turn that off"):
            await ask(client)


@pytest.mark.parametrize("garbage", [b"garbage\r\n\r\n", b"\x00\xff", http(b"{}")])
@pytest.mark.parametrize("streams", [False, True])
async def test_what_follows_a_chunked_body_costs_no_question_its_reply(streams: bool, garbage: bytes) -> None:
    """Bytes that belong to no response, or to one that nobody asked for, are never taken for part of a reply."""
    events = b"".join(f"data: {json.dumps(event)}\n\n".encode() for event in chunks_of(["B"]))
    body = events + b"data: [DONE]\n\n" if streams else GOOD
    head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n".encode()
    answer = head + body + b"\r\n0\r\n\r\n"
    async with raw_api(answer + garbage, answer) as api, client_of(api.url, retries=1) as client:
        replies = [await ask(client) for _ in range(2)]

    assert [reply.text for reply in replies] == ["B", "B"]


async def test_a_body_in_the_encoding_that_its_header_names_is_read() -> None:
    body = GOOD.replace(b"B", "答案是B".encode("gbk"))

    async def handler(call: Call) -> web.Response:
        return web.Response(body=body, headers={"Content-Type": "application/json; charset=gbk"})

    async with loopback_api(handler) as api, client_of(api.url) as client:
        assert (await ask(client)).text == "答案是B"


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'{"choices": []}', b'{"choices": [{"message": {}}]}', b"null", b'{"choices": [{"message": null}]}'],
)
async def test_a_body_that_is_no_completion_is_no_reply(body: bytes) -> None:
    async with raw_api(http(body)) as api, client_of(api.url, retries=0) as client:
        with pytest.raises(NoReplyError, match="not a chat completion"):
            await ask(client)


async def test_a_body_of_100_megabytes_is_not_read_and_not_asked_for_again() -> None:
    written = 0
    cut_off = asyncio.Event()

    async def handler(call: Call) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(call.request)
        try:
            for _ in range(100):
                await response.write(b" " * 2**20)
                written += 2**20
        except ConnectionError:
            cut_off.set()
        return response

    async with loopback_api(handler) as api, client_of(api.url) as client, asyncio.timeout(PATIENCE_S):
        with pytest.raises(NoReplyError, match="longer than 16 MB"):
            await ask(client)
        await cut_off.wait()

    assert len(api.bodies) == 1
    assert written < 50 * 2**20


async def test_of_an_error_of_100_megabytes_only_the_beginning_is_read() -> None:
    async def handler(call: Call) -> web.StreamResponse:
        response = web.StreamResponse(status=400)
        await response.prepare(call.request)
        for _ in range(100):
            await response.write(b"too long " * 2**17)
        return response

    async with loopback_api(handler) as api, client_of(api.url) as client, asyncio.timeout(PATIENCE_S):
        with pytest.raises(NoReplyError, match="HTTP 400: too long too long") as caught:
            await ask(client)

    assert len(caught.value.reason) < 400


async def test_json_is_read_whatever_the_header_calls_it() -> None:
    async def handler(call: Call) -> web.Response:
        return web.Response(body=GOOD, content_type="text/plain")

    async with loopback_api(handler) as api, client_of(api.url) as client:
        assert (await ask(client)).text == "B"


async def test_a_lone_surrogate_in_a_reply_is_kept() -> None:
    async with raw_api(http(GOOD.replace(b"B", b"\\ud83d"))) as api, client_of(api.url) as client:
        assert (await ask(client)).text == "\ud83d"


@pytest.mark.parametrize("content_type", ["text/html", "application/json"])
async def test_a_login_page_instead_of_an_api_ends_the_run_in_one_line(content_type: str) -> None:
    page = "<!DOCTYPE html>\n<html><head><title>Log\r\n in &amp; surf\x1b[31m</title></head>" + "<p>x" * 1000

    async def handler(call: Call) -> web.Response:
        return web.Response(text=page, content_type=content_type)

    async with loopback_api(handler) as api, client_of(api.url, retries=0) as client:
        with pytest.raises(RefusedError) as caught:
            await ask(client)

    assert 'an HTML page "Log in & surf\\x1b[31m"' in caught.value.message
    assert caught.value.message.isprintable()
    assert "usually ends in /v1" in str(caught.value)


@pytest.mark.parametrize("status", [200, 403, 404, 405])
async def test_a_web_page_between_replies_is_a_passing_fault(status: int) -> None:
    async def handler(call: Call) -> web.Response:
        page = web.Response(status=status, text="<html>", content_type="text/html")
        return page if call.number == 2 else completion("A")

    async with loopback_api(handler) as api, client_of(api.url) as client:
        await ask(client)
        assert (await ask(client)).attempts == 2


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": {"message": "overloaded", "code": 503}}, "HTTP 503: overloaded"),
        ({"error": {"message": "no capacity"}}, "the server says: no capacity"),
        ({"error": "no capacity"}, "the server says: no capacity"),
        ({"msg": "try later"}, "the server says: try later"),
    ],
)
async def test_an_error_that_comes_as_a_success_is_told_in_its_own_words(body: dict[str, Any], expected: str) -> None:
    async with raw_api(http(json.dumps(body).encode())) as api, client_of(api.url, retries=0) as client:
        with pytest.raises(NoReplyError, match=expected):
            await ask(client)


async def test_fields_and_headers_of_the_users_are_sent_with_every_request_and_never_left_out() -> None:
    sent = []

    async def handler(call: Call) -> web.Response:
        sent.append((call.request.headers["X-Title"], call.request.headers["User-Agent"]))
        return error(400, "Unsupported parameter: top_k", param="top_k") if "top_k" in call.body else completion("B")

    fields = {"top_p": 0.5, "chat_template_kwargs": {"enable_thinking": False}}
    headers = {"X-Title": "bundle", "user-agent": "me"}
    async with loopback_api(handler) as api:
        client = client_of(f"{api.url}?api-version=2024-10-21", headers=headers, extra_body=fields)
        client.send_always({"top_k": 1, "top_p": 1})
        async with client:
            await ask(client)
        async with client_of(api.url, headers=headers, extra_body={"top_k": 5}, retries=0) as client:
            with pytest.raises(NoReplyError, match="Unsupported parameter: top_k"):
                await ask(client)

    refused, adapted, _ = api.bodies
    assert (refused["top_k"], refused["top_p"]) == (1, 0.5)
    assert adapted.items() >= fields.items()
    assert "top_k" not in adapted
    assert set(sent) == {("bundle", "me")}
    assert api.queries[:2] == ["api-version=2024-10-21"] * 2


@pytest.mark.parametrize(
    ("status", "header"),
    [
        ("200 OK", "X-Message: 成功"),
        ("200 OK", "Set-Cookie: 城市=北京"),
        ("200 OK", f"Content-Security-Policy: {'x' * 20_000}"),
        pytest.param("200 OK", "\r\n".join(f"X-{n}: {n}" for n in range(300)), id="300 lines"),
        ("200 好的", "X-Message: ok"),
    ],
)
async def test_whatever_headers_hold_costs_no_reply(status: str, header: str) -> None:
    answer = http(GOOD, status=status, headers=[header, "Connection: close"])
    async with raw_api(answer) as api, client_of(api.url, retries=0) as client:
        assert [(await ask(client)).text for _ in range(2)] == ["B", "B"]  # the first is the package's own


async def test_whatever_headers_hold_a_refusal_is_told() -> None:
    refusal = http(b'{"error": {"message": "no such key"}}', status="401 Unauthorized", headers=["X-Message: 失败"])
    async with raw_api(refusal) as api, client_of(api.url) as client:
        with pytest.raises(RefusedError, match="HTTP 401: no such key"):
            await ask(client)


async def test_headers_without_number_are_read_or_told() -> None:  # aiohttp bounds their number from 3.14 on
    answer = http(GOOD, headers=[f"X-{number}: {number}" for number in range(5000)])
    async with raw_api(answer) as api, client_of(api.url, retries=0) as client:
        try:
            outcome = (await ask(client)).text
        except NoReplyError as failure:
            outcome = failure.reason

    assert outcome in ("B", "the server's response is not valid HTTP: Too many headers received")


async def test_a_response_that_is_not_valid_http_is_told_as_that() -> None:
    twice = http(GOOD, headers=[f"Content-Length: {len(GOOD)}"])
    async with (
        raw_api(http(GOOD, headers=["Connection: close"]), twice) as api,
        client_of(api.url, retries=0) as client,
    ):
        await ask(client)
        with pytest.raises(NoReplyError, match=r"the server.s response is not valid HTTP: .*Content-Length"):
            await ask(client)


@contextlib.asynccontextmanager
async def echoing(
    sends: Callable[[asyncio.StreamWriter, bytes], object], ids: Iterator[str] | None = None
) -> AsyncIterator[tuple[str, list[asyncio.StreamWriter]]]:
    """A server whose replies repeat the question: its URL, and the connections that it has accepted."""
    connections: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                question = json.loads(await reader.readexactly(length))
                sends(writer, response_to(question["messages"][-1]["content"], None if ids is None else next(ids)))

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", connections


def response_to(question: str, name: str | None = None) -> bytes:
    body = json.loads(GOOD.replace(b"B", question.encode()))
    return http(json.dumps(body if name is None else {"id": name, **body}).encode())


async def ask_in_turn(client: ChatClient, questions: Iterable[str]) -> list[Reply]:
    return [await client.ask([{"role": "user", "content": question}], 64) for question in questions]


async def test_a_response_that_comes_twice_is_not_taken_for_the_next_one() -> None:
    async with (
        echoing(asyncio.StreamWriter.write) as (url, connections),
        client_of(url, stream="never") as client,
    ):
        for question in "0123":
            assert [one.text for one in await ask_in_turn(client, question)] == [question]
            connections[-1].write(response_to(question))
            await until_arrived(connections[-1])
    assert len(connections) == 4


async def test_a_response_that_comes_again_after_the_next_request_is_told_by_its_id() -> None:
    latest: WeakKeyDictionary[asyncio.StreamWriter, bytes] = WeakKeyDictionary()

    def send(writer: asyncio.StreamWriter, response: bytes) -> None:
        writer.write(latest.get(writer, b"") + response)
        latest[writer] = response

    said: list[str] = []
    async with (
        echoing(send, map(str, itertools.count())) as (url, connections),
        client_of(url, stream="never", retries=0, say=said.append) as client,
    ):
        replies = await ask_in_turn(client, "01230123")
    assert [(one.text, one.attempts) for one in replies] == list(zip("01230123", [1, 2, 2, 2, 2, 2, 2, 2], strict=True))
    assert len(connections) == 8
    assert said == ["the server sends replies twice; asking again over other connections"]


@pytest.mark.parametrize("name", ["", "chatcmpl-0"])
async def test_ids_that_are_all_the_same_cost_one_request_at_most(name: str) -> None:
    said: list[str] = []
    async with (
        echoing(asyncio.StreamWriter.write, itertools.repeat(name)) as (url, connections),
        client_of(url, stream="never", retries=0, say=said.append) as client,
    ):
        replies = await ask_in_turn(client, "AAAABBAA")
    assert [one.text for one in replies] == [*"AAAABBAA"]
    assert sum(one.attempts for one in replies) == 8 + bool(name)
    assert len(connections) == 1 + bool(name)
    assert said == []


async def until_arrived(connection: asyncio.StreamWriter) -> None:
    """Wait until the other end, which is in the same event loop, has what was written."""
    socket = connection.get_extra_info("socket")
    while struct.unpack("i", fcntl.ioctl(socket, termios.TIOCOUTQ, bytes(4)))[0]:  # noqa: ASYNC110 - there is no event
        await asyncio.sleep(0)
    for _ in range(2):  # one turn of the loop sees it, the next reads it
        await asyncio.sleep(0)


@pytest.mark.parametrize("stream", ["always", "never"])
async def test_the_reply_to_another_question_from_a_cache_is_no_reply(stream: Streaming) -> None:
    def said(number: int) -> dict[str, Any]:
        return {"id": f"c{number}", "created": 1_790_000_000, "model": "m"}

    async def handler(call: Call) -> web.StreamResponse:
        question = int(call.body["messages"][0]["content"])
        origin, letter = (said(3), "D") if question >= 20 else (said(question), "ABCD"[question % 4])
        if stream == "always":
            return await send_stream(call, [origin | chunk(letter), origin | chunk(None, "stop")])
        return web.json_response(origin | {"choices": [{"message": {"content": letter}, "finish_reason": "stop"}]})

    async with loopback_api(handler) as api, client_of(api.url, retries=1, stream=stream) as client:
        for number in (*range(20), 19):
            await client.ask([{"role": "user", "content": str(number)}], 64)
        for number in (20, 21):
            with pytest.raises(NoReplyError, match="a cache answers in the model's place") as caught:
                await client.ask([{"role": "user", "content": str(number)}], 64)
            assert caught.value.attempts == 2


async def test_ids_that_come_with_different_replies_say_nothing() -> None:
    async def handler(call: Call) -> web.Response:
        number = call.number % 20 + 1
        choices = [{"message": {"content": "B"}, "finish_reason": "stop"}]
        return web.json_response({"id": f"chatcmpl-{number}", "created": call.number, "choices": choices})

    async with loopback_api(handler) as api, client_of(api.url, retries=0) as client:
        for number in range(80):
            await client.ask([{"role": "user", "content": str(number)}], 64)


@pytest.mark.parametrize(("second", "text"), [("B", "B"), ("", "")])
async def test_an_empty_reply_of_no_tokens_is_asked_for_once_more(second: str, text: str) -> None:
    async def handler(call: Call) -> web.Response:
        if call.number > 1 and second:
            return completion(second)
        return completion("", usage={"prompt_tokens": 9, "completion_tokens": 0})

    async with loopback_api(handler) as api, client_of(api.url) as client:
        reply = await ask(client)

    assert (reply.text, reply.attempts) == (text, 2)
