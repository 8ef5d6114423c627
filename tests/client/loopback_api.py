"""An OpenAI-compatible server on loopback whose replies a test decides."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
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
class LoopbackApi:
    """What a running server has seen.

    Attributes:
        url: Up to and including ``/v1``.
        bodies: Request bodies in the order they came.
        keys: Authorization headers likewise.
        headers: All headers likewise.
        times: When they came, in seconds of the monotonic clock.
    """

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
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


def error(status: int, message: str, headers: dict[str, str] | None = None, **extra: Any) -> web.Response:
    """An error as OpenAI's API words it; ``extra`` is its code and type."""
    return web.Response(
        status=status,
        text=json.dumps({"error": {"message": message, **extra}}),
        content_type="application/json",
        headers=headers,
    )


@asynccontextmanager
async def loopback_api(
    handler: Handler,
    models: Handler | None = None,
    metrics: Callable[[web.Request], Awaitable[web.Response]] | None = None,
) -> AsyncIterator[LoopbackApi]:
    """Serve ``handler``, and ``models`` as the list of models, until the block is left."""
    api = LoopbackApi()

    async def chat(request: web.Request) -> web.StreamResponse:
        return await handler(note(request, await request.json()))

    async def listed(request: web.Request) -> web.StreamResponse:
        assert models is not None
        return await models(note(request, {}))

    def note(request: web.Request, body: dict[str, Any]) -> Call:
        api.times.append(time.monotonic())
        api.bodies.append(body)
        api.keys.append(request.headers.get("Authorization"))
        api.headers.append(dict(request.headers))
        return Call(request, body, len(api.bodies))

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    if models is not None:
        app.router.add_get("/v1/models", listed)
    if metrics is not None:
        app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    api.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield api
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw_api(*answers: bytes) -> AsyncIterator[LoopbackApi]:
    """Answer the first requests with these bytes, whatever they are, and close the connection after each.

    Requests after the last answer get the last one again.
    """
    api = LoopbackApi()

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
