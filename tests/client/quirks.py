"""Servers with one quirk each, all met in public reports. `QUIRKS` have the score of a server without any."""

import asyncio
import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from aiohttp import web

from tests.openai_api import Call, Handler, error

MARKS = {
    "think": ("<think>", "</think>"),
    "seed": ("<seed:think>", "</seed:think>"),
    "mistral": ("[THINK]", "[/THINK]"),
    "thinking": ("<thinking>", "</thinking>"),
    "reasoning": ("<reasoning>", "</reasoning>"),
    "capitals": ("<THINK>", "</THINK>"),
    "harmony": ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    "bare harmony": ("analysis", "assistantfinal"),
    "a fence": ("```thinking\n", "\n```"),
    "a quote": ("> **Reasoning**\n> ", ""),
    "a quote below its heading": ("*Thinking...*\n\n> ", ""),
    "details": ("<details><summary>Thought for 3 seconds</summary>", "</details>"),
}
MISSING = object()
BOM = b"\xef\xbb\xbf"


def letter(body: dict[str, Any]) -> str:
    """The reply to a question, whatever the order of requests."""
    return "ABCD"[hashlib.sha256(body["messages"][-1]["content"].encode()).digest()[0] % 4]


async def whole(call: Call, message: dict[str, Any], finish: object = "stop") -> web.StreamResponse:
    """Answer with a whole body."""
    choice = {"index": 0, "message": {"role": "assistant", **message}}
    if finish is not MISSING:
        choice["finish_reason"] = finish
    return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 5}})


async def streamed(
    call: Call,
    deltas: Sequence[dict[str, Any]],
    *,
    finish: object = "stop",
    member: str = "delta",
    content_type: str = "text/event-stream",
    begin: bytes = b"data: ",
    before: bytes = b"",
    between: bytes = b"",
    newline: bytes = b"\n",
    gap: int = 2,
    charset: str = "utf-8",
    done: bool = True,
    done_is: bytes = b"[DONE]",
    after: bytes = b"",
    stays_open: bool = False,
    others: Sequence[str] = (),
    tokens: object = 5,
) -> web.StreamResponse:
    """Answer with events: one a delta, then its end, the counts and [DONE]."""
    response = web.StreamResponse(headers={"Content-Type": content_type})
    await response.prepare(call.request)

    async def send(choices: list[dict[str, Any]], **more: Any) -> None:
        data = json.dumps({"choices": choices, **more}, ensure_ascii=False).encode(charset)
        await response.write(begin + data + gap * newline + between)

    try:
        await response.write(before)
        for delta in deltas:
            await send([{"index": 0, member: delta, "finish_reason": None}])
        for text in others:
            await send([{"index": 1, "delta": {"content": text}, "finish_reason": None}])
        if finish is not MISSING:
            await send([{"index": 0, member: {}, "finish_reason": finish}])
            await send([], usage={"prompt_tokens": tokens, "completion_tokens": tokens})
        if stays_open:
            await asyncio.Event().wait()
        if done:
            await response.write(begin + done_is + gap * newline + after)
    except ConnectionError:
        pass  # the client has what it wanted
    return response


async def say(call: Call, text: str, finish: object = "stop", **how: Any) -> web.StreamResponse:
    """Answer as it was asked, whole or in pieces of a few characters."""
    if not call.body.get("stream"):
        return await whole(call, {"content": text}, finish)
    step = max(1, len(text) // 30)
    pieces = [text[start : start + step] for start in range(0, len(text), step)]
    return await streamed(
        call, [{"role": "assistant", "content": ""}, *({"content": one} for one in pieces)], finish=finish, **how
    )


def thinking_in(marks: tuple[str, str]) -> Handler:
    async def handler(call: Call) -> web.StreamResponse:
        return await say(call, f"{marks[0]}A is tempting; compare with B, C and D.{marks[1]}\n\n{letter(call.body)}")

    return handler


def ending_with(finish: object) -> Handler:
    async def handler(call: Call) -> web.StreamResponse:
        return await say(call, letter(call.body), finish)

    return handler


def streaming(**how: Any) -> Handler:
    async def handler(call: Call) -> web.StreamResponse:
        return await say(call, letter(call.body), **how)

    return handler


def with_content(content: Callable[[str], object]) -> Handler:
    async def handler(call: Call) -> web.StreamResponse:
        message = {"content": content(letter(call.body))}
        return await streamed(call, [message]) if call.body.get("stream") else await whole(call, message)

    return handler


def with_error(said: object) -> Handler:
    """Every body has an ``error``, which says that there is none."""

    async def handler(call: Call) -> web.StreamResponse:
        choice = {"message": {"content": letter(call.body)}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "error": said})

    return handler


async def encoded_twice(call: Call) -> web.StreamResponse:
    choice = {"message": {"content": letter(call.body)}, "finish_reason": "stop"}
    return web.json_response(json.dumps({"choices": [choice]}))


def unless_refused(refusal: Callable[[dict[str, Any]], web.Response | None]) -> Handler:
    async def handler(call: Call) -> web.StreamResponse:
        refused = refusal(call.body)  # a response without entries of its own is falsy in aiohttp 3.11
        return refused if refused is not None else await say(call, letter(call.body))

    return handler


async def only_streams_thinking(call: Call) -> web.StreamResponse:
    if not call.body.get("stream"):
        return error(400, "thinking needs stream=true", type="invalid_request_error")
    return await streamed(
        call, [*({"reasoning_content": one} for one in "先看题。" * 3), {"content": letter(call.body)}]
    )


_TEXTS = itertools.cycle("ABCD")


def of_another_api() -> web.Response:
    """A reply of Anthropic's API: another text every time."""
    return web.json_response({"type": "message", "content": [{"type": "text", "text": next(_TEXTS)}]})


async def streams_by_default(call: Call) -> web.StreamResponse:
    if call.body.get("stream") is False:
        return await whole(call, {"content": letter(call.body)})
    return await streamed(call, [{"content": letter(call.body)}])


async def streams_always(call: Call) -> web.StreamResponse:
    return await streamed(call, [{"content": letter(call.body)}])


async def streams_always_as_json(call: Call) -> web.StreamResponse:
    return await streamed(call, [{"content": letter(call.body)}], content_type="application/json")


async def whole_bodies_begin_with_comments(call: Call) -> web.StreamResponse:
    if call.body.get("stream"):
        return await say(call, letter(call.body))
    return web.Response(text=': wait\n\n{"choices": []}', content_type="text/event-stream")


async def never_streams(call: Call) -> web.StreamResponse:
    return await whole(call, {"content": letter(call.body)})


async def calls_a_whole_body_a_stream(call: Call) -> web.StreamResponse:
    choice = {"message": {"content": letter(call.body)}, "finish_reason": "stop"}
    return web.Response(body=json.dumps({"choices": [choice]}).encode(), content_type="text/event-stream")


def no_max_tokens(body: dict[str, Any]) -> web.Response | None:
    """A refusal of each parameter that OpenAI's reasoning models refuse, one after the other."""
    if "max_tokens" in body:
        return error(
            400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", param="max_tokens"
        )
    if body.get("temperature", 1) != 1:
        return error(
            400, "Unsupported value: 'temperature' does not support 0; only 1 is supported.", param="temperature"
        )
    return None


def no_temperature_0(body: dict[str, Any]) -> web.Response | None:
    """A refusal of greedy decoding."""
    return error(400, "temperature must be in (0, 1]", code="1214") if body.get("temperature") == 0 else None


def no_stream_options(body: dict[str, Any]) -> web.Response | None:
    """A refusal of an option of streams alone."""
    return error(422, "stream_options: extra fields not permitted") if "stream_options" in body else None


def crash_on_stream_options(body: dict[str, Any]) -> web.Response | None:
    """What a server says that passes every field on to a function."""
    said = "create() got an unexpected keyword argument 'stream_options'"
    return error(500, said) if "stream_options" in body else None


def no_temperature_0_in_chinese(body: dict[str, Any]) -> web.Response | None:
    """A refusal of greedy decoding that does not name the parameter as it was sent."""
    return error(400, "温度参数不合法：应大于0") if body.get("temperature") == 0 else None


def cut_error_body() -> Handler:
    async def handler(call: Call) -> web.StreamResponse:
        if call.number not in (3, 20):
            return await say(call, letter(call.body))
        headers = {"Content-Type": "application/json", "Content-Length": "500"}
        response = web.StreamResponse(status=502, headers=headers)
        await response.prepare(call.request)
        await response.write(b'{"error": {"mess')
        assert call.request.transport is not None
        call.request.transport.close()
        return response

    return handler


def one_in_four_refused() -> Handler:
    async def handler(call: Call) -> web.StreamResponse:
        if call.number % 4 == 0:
            return error(429, "too many requests", code="rate_limit_exceeded")
        return await say(call, letter(call.body))

    return handler


def one_in_four_refused_by(status: int, body: dict[str, Any]) -> Handler:
    """A rate limit that is not said by status 429."""

    async def handler(call: Call) -> web.StreamResponse:
        return web.json_response(body, status=status) if call.number % 4 == 0 else await say(call, letter(call.body))

    return handler


def so_many_per_window(count: int, window_s: float) -> Handler:
    """A rate limit that says how long to wait."""
    recent: list[float] = []

    async def handler(call: Call) -> web.StreamResponse:
        now = asyncio.get_running_loop().time()
        recent[:] = [then for then in recent if now - then < window_s]
        if len(recent) >= count:
            return error(
                429, f"limit {count} requests, try again in {1000 * window_s / 3:.0f}ms", code="rate_limit_exceeded"
            )
        recent.append(now)
        return await say(call, letter(call.body))

    return handler


def outage(first: int, seconds: float) -> Handler:
    """Connections that are reset for some time, from this request on, counting from 1."""
    until = 0.0

    async def handler(call: Call) -> web.StreamResponse:
        nonlocal until
        now = asyncio.get_running_loop().time()
        if call.number == first:
            until = now + seconds
        if now < until:
            assert call.request.transport is not None
            call.request.transport.abort()
        return await say(call, letter(call.body))

    return handler


QUIRKS: dict[str, Callable[[], Handler]] = {
    **{f"thinking in the marks of {name}": partial(thinking_in, marks) for name, marks in MARKS.items()},
    **{
        f"finish_reason {'missing' if finish is MISSING else repr(finish)}": partial(ending_with, finish)
        for finish in ("eos", "", None, MISSING, "STOP", "end_turn", "max_tokens")
    },
    "content in parts": lambda: with_content(lambda text: [{"type": "text", "text": text}]),
    "thinking in parts": lambda: with_content(
        lambda text: [
            {"type": "thinking", "thinking": [{"type": "text", "text": "A or B?"}]},
            {"type": "text", "text": text},
        ]
    ),
    "an error that is none": lambda: with_error("none"),
    "an error that says success": lambda: with_error({"code": "200", "message": "success"}),
    "a body encoded twice": lambda: encoded_twice,
    "two choices": lambda: streaming(others=["错", "D"]),
    "streams only": lambda: only_streams_thinking,
    "streams by default": lambda: streams_by_default,
    "streams always": lambda: streams_always,
    "streams always, as JSON": lambda: streams_always_as_json,
    "whole bodies begin with comments": lambda: whole_bodies_begin_with_comments,
    "never streams": lambda: never_streams,
    "whole body called a stream": lambda: calls_a_whole_body_a_stream,
    "stream called JSON": lambda: streaming(content_type="application/json"),
    "stream without finish_reason": lambda: streaming(finish=MISSING),
    "stream without [DONE]": lambda: streaming(done=False),
    "stream stays open": lambda: streaming(stays_open=True),
    "event without data": lambda: streaming(before=b"event: ping\n\n", between=b"event: ping\n\n"),
    "pings with data": lambda: streaming(
        before=b'event: ping\ndata: {"type": "ping"}\n\n', between=b"event: ping\ndata: 1\n\n"
    ),
    "retry": lambda: streaming(before=b"retry: 3000\n\n"),
    "comments": lambda: streaming(before=b": hello\n\n", between=b"id: 7\n: again\n\n"),
    "null and words to stay open": lambda: streaming(before=b"data: keep-alive\n\n", between=b"data: null\n\n"),
    "DONE": lambda: streaming(done_is=b"DONE"),
    "DONE in quotes": lambda: streaming(done_is=b'"[DONE]"'),
    "one line end between events": lambda: streaming(gap=1),
    "JSON in lines": lambda: streaming(begin=b"", gap=1, done=False, content_type="application/x-ndjson"),
    "GBK": lambda: streaming(charset="gbk", content_type="text/event-stream; charset=GBK", others=["错"]),
    "a page after the end": lambda: streaming(after=b"data: <html>\n\n"),
    "byte order mark": lambda: streaming(before=BOM),
    "CRLF": lambda: streaming(newline=b"\r\n"),
    "CR": lambda: streaming(newline=b"\r"),
    "message instead of delta": lambda: streaming(member="message"),
    "usage of 4,000 digits": lambda: streaming(tokens=10**4000),
    "usage that is no number": lambda: streaming(tokens=float("nan")),
    "usage without an end": lambda: streaming(tokens=float("-inf")),
    "max_completion_tokens": lambda: unless_refused(no_max_tokens),
    "no temperature of 0": lambda: unless_refused(no_temperature_0),
    "no stream_options": lambda: unless_refused(no_stream_options),
    "no stream_options, as 500": lambda: unless_refused(crash_on_stream_options),
    "no temperature of 0, in Chinese": lambda: unless_refused(no_temperature_0_in_chinese),
    "error with a cut body": cut_error_body,
    "one request in four refused": one_in_four_refused,
    "rate limit as 400": lambda: one_in_four_refused_by(400, {"error": {"message": "请求过于频繁，请稍后再试"}}),
    "rate limit as 403": lambda: one_in_four_refused_by(403, {"error": {"code": "rate_limit_exceeded"}}),
    "rate limit as 200": lambda: one_in_four_refused_by(200, {"code": 1302, "msg": "并发数过高"}),
    "trouble as 400": lambda: one_in_four_refused_by(400, {"error": {"message": "系统繁忙，请稍后重试"}}),
    "trouble as 400, by its type": lambda: one_in_four_refused_by(400, {"error": {"type": "upstream_error"}}),
    "429 in a body with 200": lambda: one_in_four_refused_by(200, {"code": 429, "msg": "slow"}),
    "rate limit as 401": lambda: one_in_four_refused_by(401, {"error": {"message": "too many requests, slow down"}}),
    "rate limit": lambda: so_many_per_window(9, 0.6),
    "outage": lambda: outage(12, 1.0),
    "outage at the start": lambda: outage(1, 1.0),
}


def always(response: Callable[[], web.Response]) -> Handler:
    async def handler(call: Call) -> web.StreamResponse:
        return response()

    return handler


HOPELESS: dict[str, tuple[Callable[[], web.Response], str]] = {
    "no chat template": (lambda: error(400, "the tokenizer has no chat template", code=400), "no chat template"),
    "error with status 200": (
        lambda: web.json_response({"code": "A0400", "msg": "no capacity", "data": None}),
        "the server says: no capacity",
    ),
    "a compressed body": (
        lambda: web.Response(body=b"\x1b\x10\x00\xf8", headers={"Content-Encoding": "br"}),
        "the reply is compressed, which was not asked for.* turn that off at the server",
    ),
    "another API": (of_another_api, "not a chat completion: {"),
    "text": (lambda: web.Response(text=next(_TEXTS)), 'not a chat completion: the text "'),
    "a proxy's page": (
        lambda: web.Response(status=503, text="<html><title>503</title>proxy error</html>", content_type="text/html"),
        'HTTP 503: an HTML page "503"',
    ),
}
"""Servers that never reply, and what they say."""
