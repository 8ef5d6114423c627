"""A question that is too long for the model's context is told from one that is refused for another reason."""

from typing import Any

import pytest
from aiohttp import web

from bundle.client import NoReplyError
from tests.evaluation.asking import ask, client_of
from tests.openai_api import Call, completion, error, loopback_api

TOO_LONG = {
    "OpenAI": (
        400,
        "This model's maximum context length is 4097 tokens. However, you requested 5000 tokens (4984 in the messages, "
        "16 in the completion). Please reduce the length of the messages or completion.",
    ),
    "OpenAI, newer": (400, "Input tokens exceed the configured limit of 272000 tokens. Please reduce the length."),
    "vLLM": (
        400,
        "'max_tokens' or 'max_completion_tokens' is too large: 2048. This model's maximum context length is 4096 "
        "tokens and your request has 3000 input tokens (2048 > 4096 - 3000).",
    ),
    "vLLM, newer": (400, "You passed 4001 input tokens. However, the model's context length is only 4096 tokens."),
    "vLLM's engine": (400, "The decoder prompt (length 5000) is longer than the maximum model length of 4096."),
    "lmdeploy": (400, "Input length (5000) must be smaller than the model context length (4096)."),
    "lmdeploy, in short": (400, "The request exceeds the model context length."),
    "SGLang": (400, "Requested token count exceeds the model's maximum context length of 4096 tokens."),
    "SGLang, input": (400, "Input length (5000 tokens) exceeds the maximum allowed length (4090 tokens)."),
    "TGI": (
        422,
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` tokens and "
        "200 `max_new_tokens`",
    ),
    "TGI, input": (422, "Input validation error: `inputs` must have less than 4095 tokens. Given: 5000"),
    "DashScope": (400, "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 6000]"),
    "Moonshot": (400, "Invalid request: Your request exceeded model token limit: 8192"),
    "Zhipu": (400, "Prompt 超长"),
    "llama.cpp": (400, "the request exceeds the available context size. try increasing the context size"),
    "Gemini": (400, "The input token count (40000) exceeds the maximum number of tokens allowed (32768)."),
    "Anthropic": (400, "prompt is too long: 208310 tokens > 200000 maximum"),
    "OpenAI, tokens a minute": (429, "Request too large for gpt-4 on tokens per min (TPM): Limit 10, Requested 12."),
    "Groq": (413, "Request too large for model `llama` on tokens per minute (TPM): Limit 6000, Requested 8059"),
    "GitHub": (413, "Request body too large for gpt-4o model. Max size: 8000 tokens."),
    "nginx": (413, "<html><head><title>413 Request Entity Too Large</title></head></html>"),
    "SiliconFlow": (413, "length of prompt_tokens (5000) must be less than max_seq_len (4096)."),
}
OTHERWISE = (
    "max_tokens is too large: 5000. This model supports at most 4096 completion tokens",
    "Range of max_tokens should be [1, 2000]",
    "the tokenizer has no chat template",
    "temperature must be in (0, 1]",
    "stream_options: extra fields not permitted",
)


async def refusal(status: int, message: str, **more: Any) -> tuple[NoReplyError, int]:
    """What a question meets, and how many requests it took."""

    async def handler(call: Call) -> web.Response:
        # The first reply shows that the server itself is fine.
        return completion("A") if call.number == 1 else error(status, message, **more)

    async with loopback_api(handler) as api, client_of(api.url) as client:
        await ask(client)
        with pytest.raises(NoReplyError) as caught:
            await ask(client)
    return caught.value, len(api.bodies) - 1


@pytest.mark.parametrize("server", TOO_LONG)
async def test_the_wordings_of_servers_are_known(server: str) -> None:
    failure, requests = await refusal(*TOO_LONG[server])
    assert failure.too_long
    assert failure.reason.startswith("prompt and reply exceed the model's context: HTTP 4")
    assert requests == 1, "neither another parameter nor a stream makes it shorter"


async def test_a_code_is_enough() -> None:
    failure, _ = await refusal(400, "bad request", code="context_length_exceeded")
    assert failure.too_long


@pytest.mark.parametrize("message", OTHERWISE)
async def test_other_refusals_are_told_from_it(message: str) -> None:
    failure, _ = await refusal(400, message)
    assert not failure.too_long


async def test_an_empty_reply_of_no_tokens_that_ended_at_its_length_is_no_reply() -> None:
    """lmdeploy before 0.13, where the prompt fills the context."""

    async def handler(call: Call) -> web.Response:
        return completion("", "length", usage={"prompt_tokens": 5000, "completion_tokens": 0})

    async with loopback_api(handler) as api, client_of(api.url, retries=0) as client:
        with pytest.raises(NoReplyError, match="exceed the model's context: an empty reply") as caught:
            await ask(client)
    assert caught.value.too_long


async def test_an_empty_reply_of_some_tokens_is_a_reply() -> None:
    async def handler(call: Call) -> web.Response:
        return completion("", "length", usage={"prompt_tokens": 5000, "completion_tokens": 1})

    async with loopback_api(handler) as api, client_of(api.url) as client:
        assert (await ask(client)).text == ""
