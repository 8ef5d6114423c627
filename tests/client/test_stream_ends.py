"""When a streamed reply is complete: what servers say of its end is not always one."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from bundle.client import Endpoint
from bundle.client._asked import Receiver
from bundle.client._events import DONE
from bundle.client._faults import AttemptError
from bundle.client._streamed import StreamedReply
from bundle.client._transport import Transport
from tests.client.test_early_decisions import ask_all
from tests.evaluation.asking import ask, client_of
from tests.openai_api import Call, chunk, chunks_of, completion, loopback_api, send_stream


@pytest.mark.parametrize("word", ["", "null", "stop"])  # SGLang and Ollama; DashScope's own API; LiteLLM
def test_an_end_that_every_event_names_is_none(word: str) -> None:
    reply = StreamedReply()
    for event in (chunk("", word), chunk("答案", word), chunk("是", word), chunk("", word), chunk("B", word)):
        reply.take(event)
        assert not reply.has_clearly_ended
    assert not reply.ended
    reply.take(chunk(finish_reason="stop"))
    assert (reply.ended, reply.text) == (True, "答案是B")


def test_thinking_that_names_an_end_does_not_end_the_reply() -> None:  # Open WebUI
    reply = StreamedReply()
    reply.take(chunk(finish_reason="stop", reasoning_content="B?"))
    assert (reply.ended, reply.has_clearly_ended) == (True, False)
    reply.take(chunk("A"))
    assert not reply.ended


def test_a_vague_end_counts_where_nothing_follows_it() -> None:
    reply = StreamedReply()
    for event in (chunk("A"), chunk(finish_reason="")):
        reply.take(event)
    assert reply.body()
    reply = StreamedReply()
    for event in (chunk("A", ""), chunk("B", "")):
        reply.take(event)
    with pytest.raises(AttemptError, match="broke off"):
        reply.body()
    reply.take(DONE)
    assert reply.body()


async def test_a_text_that_stops_in_the_middle_is_asked_for_again_long_before_the_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bundle.client._transport._LEAST_STALL_S", 0.1)
    monkeypatch.setattr("bundle.client._transport._OF_THE_TIMEOUT", 0.0)
    forgotten = asyncio.Event()

    async def handler(call: Call) -> web.StreamResponse:
        if call.number > 1:
            return await send_stream(call, chunks_of("答案是B"))
        response = await send_stream(call, [chunk(""), chunk("答案"), chunk("是")], done=False)
        await forgotten.wait()
        return response

    async with loopback_api(handler) as api, client_of(api.url, stream="always") as client:
        reply = await ask(client)
        forgotten.set()
    assert (reply.text, reply.attempts) == ("答案是B", 2)


@pytest.mark.parametrize(
    ("before", "after"),
    [([chunk("")], "B"), ([chunk(""), chunk(reasoning_content="?")], "B"), ([chunk("<think>Hm")], "</think>B")],
)
async def test_a_model_that_has_begun_no_text_may_be_silent(
    before: list[dict[str, Any]], after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bundle.client._transport._LEAST_STALL_S", 0.05)
    monkeypatch.setattr("bundle.client._transport._OF_THE_TIMEOUT", 0.0)

    async def handler(call: Call) -> web.StreamResponse:
        response = await send_stream(call, before, done=False)
        await asyncio.sleep(0.3)  # longer than a text may pause
        await response.write(f"data: {json.dumps(chunk(after, 'stop'))}\n\n".encode())
        return response

    async with loopback_api(handler) as api, client_of(api.url, stream="always") as client:
        reply = await ask(client)
    assert (reply.text, reply.attempts) == ("B", 1)


async def test_after_an_end_that_was_none_there_is_all_the_time_again() -> None:
    receiver, transport = Receiver(None, lambda: None, None), Transport(Endpoint("http://127.0.0.1:9"), timeout_s=600)
    async with asyncio.timeout(600) as limit:
        await asyncio.sleep(0)
        latest = limit.when()
        assert latest is not None
        for event, is_shorter in ((chunk("A", "stop"), True), (chunk("B"), False), (chunk(finish_reason="stop"), True)):
            receiver.take(event)
            transport._expect_more(receiver, limit, latest, 0.0, may_stall=True)
            assert ((limit.when() or 0) < latest) is is_shorter


LOST = {"code": 502, "message": "Provider disconnected"}


@pytest.mark.parametrize("finish_reason", [None, "stop"])
@pytest.mark.parametrize("place", ["body", "choice"])
@pytest.mark.parametrize("streams", [True, False])
async def test_a_text_next_to_an_error_is_cut_off(finish_reason: str | None, place: str, streams: bool) -> None:
    async def handler(call: Call) -> web.StreamResponse:
        if call.number > 1:
            return await send_stream(call, chunks_of(["B"])) if streams else completion("B")
        body: dict[str, Any] = {"choices": [{"message": {"content": "A"}, "finish_reason": finish_reason}]}
        (body if place == "body" else body["choices"][0])["error"] = LOST
        return await send_stream(call, [chunk("A"), body]) if streams else web.json_response(body)

    async with loopback_api(handler) as api, client_of(api.url) as client:
        assert (await ask(client)).text == "B"
    assert len(api.bodies) == 2


@pytest.mark.parametrize("fine", [None, "", {}, False, {"code": 0, "message": "ok"}, {"code": None, "message": ""}])
async def test_a_field_for_errors_that_holds_none_is_no_error(fine: object) -> None:
    async def handler(call: Call) -> web.Response:
        return completion("B", error=fine)

    async with loopback_api(handler) as api, client_of(api.url) as client:
        assert (await ask(client)).text == "B"


async def test_done_without_a_finish_reason_is_a_broken_off_reply_where_others_have_one() -> None:
    async def handler(call: Call) -> web.StreamResponse:
        return await send_stream(call, [chunk("A or")] if call.number == 2 else chunks_of(["A or", " rather B"]))

    replies = await ask_all(handler, 2)
    assert [reply.text for reply in replies] == ["A or rather B"] * 2


async def test_a_server_that_names_no_end_when_asked_again_is_believed() -> None:
    async def handler(call: Call) -> web.StreamResponse:
        return await send_stream(call, chunks_of(["A"]) if call.number == 1 else [chunk("B")])

    replies = await ask_all(handler, 2)
    assert [(reply.text, reply.unusual_end) for reply in replies] == [("A", None), ("B", "null")]


@pytest.mark.parametrize("index", [1, "0", None])
async def test_the_only_choice_is_read_whatever_its_index(index: object) -> None:
    async def handler(call: Call) -> web.StreamResponse:
        events = chunks_of(["答", "案", "B"])
        for choice in (choice for event in events for choice in event["choices"]):
            choice["index"] = index
        return await send_stream(call, events)

    (reply,) = await ask_all(handler, 1)
    assert reply.text == "答案B"


async def test_a_text_with_parts_of_another_reply_is_no_reply_and_asked_for_again() -> None:
    async def handler(call: Call) -> web.StreamResponse:
        events = [event | {"id": "ours"} for event in chunks_of(["答", "案", "B"])]
        return await send_stream(
            call, events if call.number > 1 else [events[0], events[1] | {"id": "other"}, *events[1:]]
        )

    (reply,) = await ask_all(handler, 1)
    assert (reply.text, reply.attempts) == ("答案B", 2)


@pytest.mark.parametrize("ids", ["abcdefgh", "axxxxxxa"])  # each its own; a gateway's own first and last events
async def test_a_text_whose_events_name_other_ids_is_a_reply(ids: str) -> None:
    async def handler(call: Call) -> web.StreamResponse:
        begin = {"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}]}
        events = [begin, *chunks_of(["答", "案", "B"])]
        names = [*ids[: len(events) - 1], ids[-1]]
        return await send_stream(call, [event | {"id": name} for event, name in zip(events, names, strict=True)])

    (reply,) = await ask_all(handler, 1)
    assert (reply.text, reply.attempts) == ("答案B", 1)


async def test_a_choice_that_does_not_end_beside_others_is_no_reply() -> None:  # an index that counts events
    async def handler(call: Call) -> web.StreamResponse:
        if not call.body["stream"]:
            return completion("答案B")
        events = chunks_of(["答", "案", "B"])
        for number, event in enumerate(events):
            for choice in event["choices"]:
                choice["index"] = number
        return await send_stream(call, events)

    (reply,) = await ask_all(handler, 1)
    assert reply.text == "答案B"


async def test_a_model_that_the_first_event_leaves_open_is_known() -> None:  # Azure
    async def handler(call: Call) -> web.StreamResponse:
        events = [{"choices": [], "model": ""}, *({**event, "model": "other"} for event in chunks_of(["B"]))]
        return await send_stream(call, events)

    (reply,) = await ask_all(handler, 1)
    assert reply.model == "other"
