"""Requests and replies of the chat completions API, as the simulated server reads and writes them.

A reply is put together from prepared pieces: a JSON encoder at every token would cost more than all the rest of it.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_CREATED = 1_700_000_000


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a client asks.

    Attributes:
        model: As the client names it.
        prompt: All messages, as one text.
        question: The last message.
        stream: Whether the reply comes token by token.
        include_usage: Whether a streamed reply ends with its usage.
        max_tokens: None for no limit.
    """

    model: str
    prompt: str
    question: str
    stream: bool
    include_usage: bool
    max_tokens: int | None


def parse_chat(body: bytes) -> ChatRequest:
    """Read a request's body.

    Raises:
        ValueError: It is no such request.
    """
    content = json.loads(body)
    try:
        messages = [(message["role"], _text(message["content"])) for message in content["messages"]]
        model = content["model"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a chat completion request: {error!r}") from error
    if not messages:
        raise ValueError("no messages")
    limit = content.get("max_completion_tokens") or content.get("max_tokens")
    return ChatRequest(
        model=model,
        prompt="".join(f"<{role}>\n{text}\n" for role, text in messages),
        question=messages[-1][1],
        stream=bool(content.get("stream")),
        include_usage=bool((content.get("stream_options") or {}).get("include_usage")),
        max_tokens=limit,
    )


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content)


def completion(
    number: int, model: str, text: str, finish_reason: str, prompt: int, cached: int, generated: int
) -> bytes:
    """A whole reply."""
    return (
        f'{{"id":"{number}","object":"chat.completion","created":{_CREATED},"model":{_string(model)},'
        f'"choices":[{{"index":0,"message":{{"role":"assistant","content":{_string(text)}}},"logprobs":null,'
        f'"finish_reason":"{finish_reason}"}}],"usage":{_usage(prompt, cached, generated)}}}'
    ).encode()


def first_chunk(number: int, model: str, text: str) -> bytes:
    """The piece of a streamed reply that begins it."""
    return _chunk(number, model, f'{{"role":"assistant","content":{_string(text)}}}')


def next_chunk(number: int, model: str, text: str) -> bytes:
    """A later piece."""
    return _chunk(number, model, f'{{"content":{_string(text)}}}')


def last_chunks(
    number: int, model: str, finish_reason: str, prompt: int, cached: int, generated: int, *, usage: bool
) -> bytes:
    """The pieces that end a streamed reply."""
    chunks = _chunk(number, model, "{}", f'"{finish_reason}"')
    if usage:
        chunks += _event(
            f'{{"id":"{number}","object":"chat.completion.chunk","created":{_CREATED},"model":{_string(model)},'
            f'"choices":[],"usage":{_usage(prompt, cached, generated)}}}'
        )
    return chunks + _event("[DONE]")


def error(message: str) -> bytes:
    """The body of an error."""
    return json.dumps({"error": {"message": message, "type": "invalid_request_error", "code": None}}).encode()


def models(name: str) -> bytes:
    """The list of models."""
    model = {"id": name, "object": "model", "created": _CREATED, "owned_by": "simulation"}
    return json.dumps({"object": "list", "data": [model]}).encode()


def _chunk(number: int, model: str, delta: str, finish_reason: str = "null") -> bytes:
    return _event(
        f'{{"id":"{number}","object":"chat.completion.chunk","created":{_CREATED},"model":{_string(model)},'
        f'"choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish_reason}}}]}}'
    )


def _event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


def _usage(prompt: int, cached: int, generated: int) -> str:
    return (
        f'{{"prompt_tokens":{prompt},"completion_tokens":{generated},"total_tokens":{prompt + generated},'
        f'"prompt_tokens_details":{{"cached_tokens":{cached}}}}}'
    )


@lru_cache(maxsize=4096)
def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
