"""A scripted OpenAI-compatible server on loopback: a test says what it answers, and sees what it was asked.

`loopback_api` runs on the test's event loop; `remote_api` runs the same server in a thread, for programs that are
processes; `raw_api` sends any bytes.
"""

import asyncio
import contextlib
import json
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(frozen=True)
class Call:
    """One request: its body, and how many came before it and with it."""

    request: web.Request
    body: dict[str, Any]
    number: int


Handler = Callable[[Call], Awaitable[web.StreamResponse]]


@dataclass
class ScriptedApi:
    """What a running server has seen.

    Attributes:
        url: Up to and including ``/v1``.
        paths: Paths of requests in the order they came.
        bodies: Request bodies likewise.
        keys: Authorization headers likewise.
        headers: All headers likewise.
        queries: What followed the question mark of their URLs likewise.
        times: When they came, in seconds of the monotonic clock.
    """

    url: str = ""
    paths: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


def completion(
    text: str | None, finish_reason: str | None = "stop", *, message: dict[str, Any] | None = None, **extra: Any
) -> web.Response:
    """A chat completion; ``message`` adds to its message."""
    whole = {"role": "assistant", "content": text, **(message or {})}
    body = {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": whole, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
        **extra,
    }
    return web.json_response(body)


def continuation(text: str | None, finish_reason: str | None = "stop", **extra: Any) -> web.Response:
    """A text completion."""
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason, **extra}
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    return web.json_response({"object": "text_completion", "choices": [choice], "usage": usage})


def error(status: int, message: str, headers: dict[str, str] | None = None, **extra: Any) -> web.Response:
    """An error as OpenAI's API words it; ``extra`` is its code and type."""
    return web.Response(
        status=status,
        text=json.dumps({"error": {"message": message, **extra}}),
        content_type="application/json",
        headers=headers,
    )


async def letter(call: Call) -> web.StreamResponse:
    """A letter that depends on the question alone, as with a greedy model."""
    if "prompt" in call.body:
        return continuation("ABCD"[len(call.body["prompt"]) % 4])
    return completion("ABCD"[len(call.body["messages"][-1]["content"]) % 4])


def models_named(*names: str) -> Handler:
    """A list of these models."""

    async def listed(call: Call) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": [{"id": name} for name in names]})

    return listed


def chunk(content: str | None = None, finish_reason: str | None = None, **delta: Any) -> dict[str, Any]:
    """One event of a streamed chat completion."""
    whole = delta if content is None else {"content": content, **delta}
    return {"object": "chat.completion.chunk", "choices": [{"delta": whole, "finish_reason": finish_reason}]}


def usage(prompt: int, completion: int, cached: int) -> dict[str, Any]:
    """The event that ends a stream with ``include_usage``."""
    details = {"cached_tokens": cached}
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "prompt_tokens_details": details}
    return {"object": "chat.completion.chunk", "choices": [], "usage": counts}


def chunks_of(pieces: Sequence[str], finish_reason: str = "stop") -> list[dict[str, Any]]:
    """A whole streamed reply of these pieces."""
    return [*(chunk(piece) for piece in pieces), chunk(finish_reason=finish_reason), usage(7, len(pieces) + 1, 3)]


async def send_stream(call: Call, events: Sequence[object], *, done: bool = True) -> web.StreamResponse:
    """Answer a call with a stream of these events; the client may leave. Without ``done`` the stream just ends."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(call.request)
    with contextlib.suppress(ConnectionResetError):
        for event in events:
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
        if done:
            await response.write(b"data: [DONE]\n\n")
    return response


@asynccontextmanager
async def loopback_api(
    handler: Handler,
    models: Handler | None = None,
    *,
    note_models: bool = True,
    metrics: Callable[[web.Request], Awaitable[web.Response]] | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[ScriptedApi]:
    """Serve ``handler``, and ``models`` as the list of models, until the block is left."""
    api = ScriptedApi()

    async def chat(request: web.Request) -> web.StreamResponse:
        return await handler(note(request, await request.json()))

    async def listed(request: web.Request) -> web.StreamResponse:
        assert models is not None
        return await models(note(request, {}) if note_models else Call(request, {}, 0))

    def note(request: web.Request, body: dict[str, Any]) -> Call:
        api.times.append(time.monotonic())
        api.paths.append(request.path)
        api.bodies.append(body)
        api.keys.append(request.headers.get("Authorization"))
        api.headers.append(dict(request.headers))
        api.queries.append(request.query_string)
        return Call(request, body, len(api.bodies))

    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_post("/v1/completions", chat)
    app.router.add_post("/generate", chat)
    if models is not None:
        app.router.add_get("/v1/models", listed)
    if metrics is not None:
        app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024, ssl_context=tls)
    await site.start()
    api.url = f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield api
    finally:
        await runner.cleanup()


@contextmanager
def remote_api(handler: Handler = letter, models: Sequence[str] = ("the-model",)) -> Iterator[ScriptedApi]:
    """`loopback_api` in a thread of its own, with a list of models; requests for that are not noted."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    serving = loopback_api(handler, models_named(*models), note_models=False)
    api = asyncio.run_coroutine_threadsafe(serving.__aenter__(), loop).result()
    try:
        yield api
    finally:
        asyncio.run_coroutine_threadsafe(serving.__aexit__(None, None, None), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@asynccontextmanager
async def raw_api(*answers: bytes) -> AsyncIterator[ScriptedApi]:
    """Answer the first requests with these bytes, whatever they are, and close the connection after each.

    Requests after the last answer get the last one again.
    """
    api = ScriptedApi()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        api.bodies.append(json.loads(await reader.readexactly(length)))
        writer.write(answers[min(len(api.bodies), len(answers)) - 1])
        try:
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    api.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with server:
        yield api


def http(body: bytes, *, length: int | None = None, status: str = "200 OK", headers: Sequence[str] = ()) -> bytes:
    """An HTTP response whose header promises ``length`` bytes of JSON."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", *headers]
    lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode() + body
