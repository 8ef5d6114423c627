"""The simulated server as a process, asked by the ``openai`` package."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from benchmarks.processes import RunningServer, simulated_server
from benchmarks.replies import letter_for
from tests.patience import PATIENCE_S

QUESTION = "以下是中国关于法律考试的单项选择题。"


@pytest.fixture(scope="module")
def at_once() -> Iterator[RunningServer]:
    """Says "答案是B。", without delay."""
    with simulated_server("tests/benchmarks/at_once.toml") as server:
        yield server


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[RunningServer]:
    """Two slots, a thousand tokens a reply, 50 ms a token."""
    path = tmp_path / "slow.toml"
    path.write_text(
        'description = ""\n[batching]\nslots = 2\nprefill_ms = 5\nms_per_token = 50\n'
        '[prefix_caching]\ntokens_per_block = 8\n[replying]\nstyle = "explaining"\ntokens = 1000\n'
    )
    with simulated_server(path) as server:
        yield server


@pytest.fixture
async def ask(at_once: RunningServer) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=at_once.base_url, api_key="none", max_retries=0) as client:
        yield client


def messages(question: str = QUESTION) -> list[Any]:
    return [{"role": "user", "content": question}]


async def wait_until(server: RunningServer, **wanted: int) -> dict[str, Any]:
    """Wait until the server's counters are these."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        counters = await asyncio.to_thread(server.counters)
        if {name: counters[name] for name in wanted} == wanted:
            return counters
        assert time.monotonic() < deadline, f"{wanted} not seen but {counters}"


async def test_the_same_question_gets_the_same_letter(ask: AsyncOpenAI) -> None:
    replies = [await ask.chat.completions.create(model="m", messages=messages(f"{n % 5}")) for n in range(10)]
    texts = [reply.choices[0].message.content for reply in replies]
    assert texts == [f"答案是{letter_for(str(n % 5))}。" for n in range(10)]
    assert len(set(texts)) > 1


async def test_a_whole_reply_has_its_usage_and_finish_reason(ask: AsyncOpenAI) -> None:
    reply = await ask.chat.completions.create(model="any", messages=messages("问" * 150))
    assert reply.model == "any"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (105, 5)


async def test_tokens_that_are_there_at_once_come_in_one_piece_which_the_usage_follows(ask: AsyncOpenAI) -> None:
    stream = await ask.chat.completions.create(
        model="m", messages=messages(), stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]

    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert [delta.content for delta in deltas] == [f"答案是{letter_for(QUESTION)}。", None]
    assert deltas[0].role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None, "stop"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}


async def test_a_stream_without_include_usage_ends_with_the_finish_reason(ask: AsyncOpenAI) -> None:
    stream = await ask.chat.completions.create(model="m", messages=messages(), stream=True)
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_reply_is_cut_at_max_tokens(ask: AsyncOpenAI, stream: bool) -> None:
    reply: Any = await ask.chat.completions.create(model="m", messages=messages(), max_tokens=2, stream=stream)
    if stream:
        chunks = [chunk async for chunk in reply]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        finish_reason = chunks[-1].choices[0].finish_reason
    else:
        text, finish_reason = reply.choices[0].message.content, reply.choices[0].finish_reason
    assert (text, finish_reason) == ("答案是", "length")


async def test_a_request_that_is_none_is_refused(ask: AsyncOpenAI) -> None:
    for body in ({"model": "m"}, {"model": "m", "messages": []}, ["no", "object"]):
        with pytest.raises(openai.BadRequestError):
            await ask.post("/chat/completions", body=body, cast_to=object)
    with pytest.raises(openai.NotFoundError):
        await ask.get("/nowhere", cast_to=object)


async def test_it_lists_its_model_and_says_that_it_is_well(ask: AsyncOpenAI, at_once: RunningServer) -> None:
    assert [model.id async for model in ask.models.list()] == ["simulated"]
    assert at_once.get("/health") == b""


async def test_requests_sent_together_on_one_connection_are_answered_one_after_the_other(
    at_once: RunningServer,
) -> None:
    host, port = at_once.base_url.removeprefix("http://").removesuffix("/v1").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for question in ("甲", "乙"):
        body = json.dumps({"model": "m", "messages": messages(question)}).encode()
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-LENGTH: %d\r\n\r\n%b" % (len(body), body))
    writer.write(b"GET /health HTTP/1.1\r\n\r\n")
    for question in ("甲", "乙"):
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(int(head.rpartition(b"Content-Length: ")[2]))
        assert json.loads(body)["choices"][0]["message"]["content"] == f"答案是{letter_for(question)}。"
    assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()


async def test_a_question_counts_as_answered_once_its_letter_was_sent(slow: RunningServer) -> None:
    async with AsyncOpenAI(base_url=slow.base_url, api_key="none", max_retries=0) as client:
        for question in ("甲", "乙", "乙"):  # once more, as after a fault
            stream = await client.chat.completions.create(model="m", messages=messages(question), stream=True)
            async for chunk in stream:
                if (chunk.choices[0].delta.content or "").startswith(letter_for(question)):
                    break
            await stream.response.aclose()
        asked = asyncio.create_task(client.chat.completions.create(model="m", messages=messages("丙")))
        counters = await wait_until(slow, requests=4, running=1)
        asked.cancel()
    assert (counters["answered"], counters["finished"]) == (2, 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_frees_its_slot_for_the_next_one(slow: RunningServer, stream: bool) -> None:
    async with AsyncOpenAI(base_url=slow.base_url, api_key="none", max_retries=0) as client:
        asked: list[asyncio.Task[Any]] = [
            asyncio.create_task(client.chat.completions.create(model="m", messages=messages(), stream=stream))
            for _ in range(3)
        ]
        await wait_until(slow, running=2, waiting=1)
        for one in asked[:2]:
            if stream:
                await (await one).response.aclose()
            else:
                one.cancel()
        counters = await wait_until(slow, running=1, waiting=0)
        assert counters["cancelled"] == 2
        assert counters["tokens_generated"] + counters["tokens_cancelled"] < 3 * 1001
        assert counters["tokens_cancelled"] > 1001
        asked[2].cancel()
    await wait_until(slow, running=0, cancelled=3)


async def test_a_prompt_whose_beginning_was_asked_before_is_found_in_the_cache(slow: RunningServer) -> None:
    async with AsyncOpenAI(base_url=slow.base_url, api_key="none", max_retries=0) as client:
        for question in ("共同的开头" * 20 + "甲", "共同的开头" * 20 + "乙"):
            reply = await client.chat.completions.create(model="m", messages=messages(question), max_tokens=1)
    assert reply.usage is not None
    assert reply.usage.prompt_tokens_details is not None
    assert 0 < (reply.usage.prompt_tokens_details.cached_tokens or 0) < reply.usage.prompt_tokens
    counters = slow.counters()
    assert counters["prefix_hits"] > counters["prefix_misses"] / 2 > 0
    assert counters["prefix_distinct"] == counters["prefix_misses"]
    assert counters["computed_at_best"] == counters["prompt_tokens"] - counters["cached_tokens"]


async def test_the_counters_and_metrics_say_what_it_has_done(slow: RunningServer) -> None:
    async with AsyncOpenAI(base_url=slow.base_url, api_key="none", max_retries=0) as client:
        for _ in range(3):
            await client.chat.completions.create(model="m", messages=messages(), max_tokens=4)
    counters = slow.counters()
    assert (counters["requests"], counters["finished"], counters["tokens_generated"]) == (3, 3, 12)
    assert counters["first_request_at"] < counters["last_reply_at"]
    assert counters["request_phase_s"] >= counters["slot_seconds"] > 0
    assert counters["cpu_s"] > 0
    metrics = slow.get("/metrics").decode()
    assert 'lmdeploy:generation_tokens_total{model_name="simulated",engine="0"} 12\n' in metrics
