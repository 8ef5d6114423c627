"""A plain prompt: the server continues a text, and its replies are those of ``/v1/completions``."""

import json

import pytest
from aiohttp import web

from bundle.client import EarlyDecisions, NoReplyError
from bundle.tasks.answers import FirstCapital
from bundle.tasks.prompts import Message
from tests.evaluation.asking import MESSAGES, client_of
from tests.openai_api import Call, continuation, loopback_api, send_stream, usage

TEXT: list[Message] = [{"role": "text", "content": "1+1=?\n答案: "}]


def chunks_of(pieces: list[str]) -> list[object]:
    """A streamed text completion."""
    chunks = [{"choices": [{"index": 0, "text": piece, "finish_reason": None}]} for piece in pieces]
    return [*chunks, {"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}, usage(7, len(pieces), 3)]


async def test_a_text_is_sent_as_it_stands_beside_conversations() -> None:
    async def handler(call: Call) -> web.Response:
        return continuation("B\n以下是")

    async with loopback_api(handler) as api, client_of(api.url) as client:
        reply = await client.ask(TEXT, 64)
        await client.ask(MESSAGES, 64)

    assert api.paths == ["/v1/completions", "/v1/chat/completions"]
    sampling = {"temperature": 0.0, "max_tokens": 64, "stream": False}
    assert api.bodies[0] == {"model": "m", "prompt": "1+1=?\n答案: ", **sampling}
    assert (reply.text, reply.finish_reason, reply.prompt_tokens) == ("B\n以下是", "stop", 7)


async def test_a_text_that_goes_on_is_stopped_at_its_answer() -> None:
    # A base model invents the next question, and says the same letter again.
    pieces = [" ", "B", "\n", "B", *("题" for _ in range(60))]
    async with loopback_api(lambda call: send_stream(call, chunks_of(pieces))) as api, client_of(api.url) as client:
        reading = EarlyDecisions(FirstCapital(), tls=False)
        replies = [await client.ask(TEXT, 64, reading=reading) for _ in range(12)]

    assert [reply.decided_early for reply in replies] == [False] * 8 + [True] * 4
    assert {reply.text for reply in replies[:8]} == {"".join(pieces)}
    assert {reply.text for reply in replies[8:]} == {" B\n"}


@pytest.mark.parametrize("choice", [{"finish_reason": "stop"}, {"text": None, "finish_reason": None}])
async def test_a_choice_without_a_text_is_no_reply(choice: dict[str, object]) -> None:
    async def handler(call: Call) -> web.Response:
        return web.Response(text=json.dumps({"choices": [choice]}), content_type="application/json")

    async with loopback_api(handler) as api, client_of(api.url, retries=0) as client:
        with pytest.raises(NoReplyError):
            await client.ask(TEXT, 64)
