"""An OpenAI-compatible server on loopback whose replies a test decides."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
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
    """

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)


def completion(text: str | None, finish_reason: str | None = "stop", **extra: Any) -> web.Response:
    """A chat completion."""
    body = {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
        **extra,
    }
    return web.json_response(body)


def error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    """An error as OpenAI's API words it."""
    return web.Response(
        status=status,
        text=json.dumps({"error": {"message": message}}),
        content_type="application/json",
        headers=headers,
    )


@asynccontextmanager
async def loopback_api(handler: Handler) -> AsyncIterator[LoopbackApi]:
    """Serve ``handler`` until the block is left."""
    api = LoopbackApi()

    async def chat(request: web.Request) -> web.StreamResponse:
        api.bodies.append(await request.json())
        api.keys.append(request.headers.get("Authorization"))
        return await handler(Call(request, api.bodies[-1], len(api.bodies)))

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    api.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield api
    finally:
        await runner.cleanup()
