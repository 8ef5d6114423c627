"""Replies as a server streams them."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from tests.client.loopback_api import Call


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


class Stream:
    """Sends a streamed reply event by event, and knows how far the client let it come.

    Attributes:
        sent: Events sent to clients that were still there.
        left: How many clients went before the end.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.left = 0

    async def send(self, call: Call, events: Sequence[object], *, done: bool = True) -> web.StreamResponse:
        """Answer a call; without ``done`` the stream just ends."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(call.request)
        try:
            for event in events:
                await response.write(f"data: {json.dumps(event)}\n\n".encode())
                self.sent += 1
                for _ in range(20):  # lets a client that has enough be heard of
                    await asyncio.sleep(0)
            if done:
                await response.write(b"data: [DONE]\n\n")
        except ConnectionResetError:
            self.left += 1
        return response
