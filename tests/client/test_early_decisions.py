"""Replies are streamed, and no longer than the answer needs."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from bundle.client._early_decisions import EarlyDecisions
from bundle.client._replies import NoReplyError, Reply
from bundle.client._streamed import StreamedReply
from bundle.evaluation import AskingOptions, Evaluation
from bundle.runs.predictions import Prediction, read_predictions
from bundle.runs.run import Run
from bundle.tasks.answers import AnswerRule, FirstCapital, FirstOption, Labelled, Pattern
from bundle.tasks.catalog import Question, find_task
from tests.evaluation.asking import MESSAGES, client_of
from tests.openai_api import Call, Handler, chunk, chunks_of, completion, error, loopback_api, send_stream, usage
from tests.patience import PATIENCE_S, eventually

RULE = FirstCapital()
EXPLAINED = ["答案是", "B。", *("因为 x 。" for _ in range(40))]
BRIEF = ["B"]


async def ask_all(
    handler: Handler, count: int, rule: AnswerRule = RULE, *, options: str = "", **client_options: Any
) -> list[Reply]:
    """Ask one after the other."""
    async with loopback_api(handler) as api, client_of(api.url, **client_options) as client:
        reading = EarlyDecisions(rule, tls=False, options=options)
        return [await client.ask(MESSAGES, 64, reading=reading) for _ in range(count)]


async def test_a_model_that_explains_itself_is_cut_at_its_answer_once_that_is_known() -> None:
    left = 0

    async def handler(call: Call) -> web.StreamResponse:
        nonlocal left
        if call.number <= 8:
            return await send_stream(call, chunks_of(EXPLAINED))
        response = await send_stream(call, chunks_of(EXPLAINED)[:2], done=False)
        await eventually(lambda: call.request.transport is None)
        left += 1
        return response

    replies = await ask_all(handler, 20)

    assert [reply.decided_early for reply in replies] == [False] * 8 + [True] * 12
    assert {reply.text for reply in replies[8:]} == {"答案是B。"}
    assert {reply.text for reply in replies[:8]} == {"".join(EXPLAINED)}
    assert left >= 11  # of the last one, the server may not have heard yet


def test_tokens_count_and_not_pieces_where_a_busy_server_sends_many_in_one() -> None:
    """As lmdeploy 0.18 does under load: three pieces for 128 tokens."""
    reading = EarlyDecisions(RULE, tls=False)
    for _ in range(8):
        reply = reading.begin()
        assert reply is not None
        for event in (*chunks_of(["BD", "ACDD", "AABD"])[:-1], usage(7, 128, 3)):
            reply.take(event)
            assert not reading.is_enough(reply)
        reading.streamed(reply, cut=False)
    reply = reading.begin()
    assert reply is not None
    reply.take(chunks_of(["BD"])[0])
    assert reading.is_enough(reply)


def test_long_replies_in_one_piece_are_streamed_again_once_the_first_prompts_are_through() -> None:
    """As lmdeploy 0.18 on a GPU while it reads the first 256 prompts: 128 tokens in one piece, and later in many."""
    reading = EarlyDecisions(RULE, tls=False)
    looks = []
    for number in range(8 + 32 + 8 + 64 + 1):
        if not reading.wants_stream():
            reading.whole(128, "B. …", took_text_back=False)
            continue
        looks.append(number)
        reply = reading.begin()
        for event in (*chunks_of(["B. …"])[:-1], usage(7, 128, 3)):
            reply.take(event)
        reading.streamed(reply, cut=False)
    assert looks == [*range(8), *range(40, 48), 112]


async def test_a_reply_that_was_cut_says_so_and_has_no_counts_of_tokens() -> None:
    cut = (await ask_all(lambda call: send_stream(call, chunks_of(EXPLAINED)), 9))[-1]

    assert (cut.decided_early, cut.finish_reason, cut.prompt_tokens, cut.completion_tokens) == (True, None, None, None)


async def test_a_streamed_reply_that_was_not_cut_is_what_it_would_have_been_unstreamed() -> None:
    whole = (await ask_all(lambda call: send_stream(call, chunks_of(EXPLAINED)), 1))[0]

    assert (whole.text, whole.finish_reason, whole.decided_early) == ("".join(EXPLAINED), "stop", False)
    assert (whole.prompt_tokens, whole.completion_tokens, whole.cached_tokens) == (7, 43, 3)


async def test_a_model_that_says_only_the_letter_is_not_streamed_for_long() -> None:
    asked_to_stream = []

    async def handler(call: Call) -> web.StreamResponse:
        asked_to_stream.append(bool(call.body.get("stream")))
        return await send_stream(call, chunks_of(BRIEF)) if asked_to_stream[-1] else completion("B")

    replies = await ask_all(handler, 12)

    assert asked_to_stream == [True] * 8 + [False] * 4
    assert {reply.text for reply in replies} == {"B"}


async def test_a_model_that_begins_to_explain_itself_is_streamed_again() -> None:
    asked_to_stream = []

    async def handler(call: Call) -> web.StreamResponse:
        asked_to_stream.append(bool(call.body.get("stream")))
        pieces = BRIEF if call.number <= 8 else EXPLAINED
        if asked_to_stream[-1]:
            return await send_stream(call, chunks_of(pieces))
        return completion("".join(pieces), usage={"prompt_tokens": 7, "completion_tokens": len(pieces) + 1})

    replies = await ask_all(handler, 8 + 32 + 8 + 1)

    assert asked_to_stream == [True] * 8 + [False] * 32 + [True] * 9
    assert replies[-1].decided_early


async def test_a_model_whose_answers_come_last_is_not_streamed_for_long() -> None:
    asked_to_stream = []

    async def handler(call: Call) -> web.StreamResponse:
        asked_to_stream.append(bool(call.body.get("stream")))
        pieces = [*("因为 x 。" for _ in range(40)), "B"]
        return await send_stream(call, chunks_of(pieces)) if asked_to_stream[-1] else completion("B")

    await ask_all(handler, 10)

    assert asked_to_stream == [True] * 8 + [False] * 2


async def test_text_that_turns_out_to_be_thinking_is_never_taken_for_an_answer() -> None:
    async def handler(call: Call) -> web.StreamResponse:
        pieces = ["Hm, A or B", *("?" * 40), "</think>", "\n\nB"]
        return await send_stream(call, chunks_of(pieces)) if call.body.get("stream") else completion("".join(pieces))

    replies = await ask_all(handler, 30)

    assert {reply.text for reply in replies} == {"B"}
    assert not any(reply.decided_early for reply in replies)


async def test_what_was_cut_before_text_turned_out_to_be_thinking_is_asked_again_whole(tmp_path: Path) -> None:
    async def handler(call: Call) -> web.StreamResponse:
        thinks = call.number == 30 or not call.body.get("stream")
        pieces = ["A or B?", *("?" * 40), "</think>", "C"] if thinks else EXPLAINED
        return await send_stream(call, chunks_of(pieces)) if call.body.get("stream") else completion("".join(pieces))

    # The thirtieth is one that is not cut: its text has no letter before it turns out to be thinking.
    async def late(call: Call) -> web.StreamResponse:
        if call.number == 30:
            return await send_stream(call, chunks_of(["hm", "</think>", "C"]))
        return await handler(call)

    questions = [Question("ceval_gen", "val", "law", number, MESSAGES, "C", 0) for number in range(40)]
    options = AskingOptions(4, adaptive=False, full_replies=False, prefix_order=False)
    with Run.create(tmp_path, "r") as run:
        evaluation = Evaluation(
            [find_task("ceval_gen")], questions, run, lambda _: None, max_out_len={"ceval_gen": 64}, asking=options
        )
        async with loopback_api(late) as api, client_of(api.url) as client, asyncio.timeout(PATIENCE_S):
            await evaluation.ask(client)
        rows = {row.id: row for row in read_predictions(run.directory)}

    assert evaluation.results({}).coverage.answered == 40
    assert not any(one.decided_early for one in evaluation.predictions)
    assert not any(row.decided_early for row in rows.values())


async def test_what_was_cut_before_text_turned_out_to_be_thinking_counts_no_more_if_the_run_is_interrupted_then(
    tmp_path: Path,
) -> None:
    thought = asyncio.Event()

    async def handler(call: Call) -> web.StreamResponse:
        if call.number < 30:
            return await send_stream(call, chunks_of(EXPLAINED))
        if call.number == 30:
            return await send_stream(call, chunks_of(["hm", "</think>", "C"]))
        await asyncio.Event().wait()
        raise AssertionError

    def note(outcome: Prediction) -> None:
        if outcome.thinking is not None:
            thought.set()

    questions = [Question("ceval_gen", "val", "law", number, MESSAGES, "C", 0) for number in range(40)]
    options = AskingOptions(1, adaptive=False, full_replies=False, prefix_order=False)
    with Run.create(tmp_path, "r") as run:
        evaluation = Evaluation(
            [find_task("ceval_gen")], questions, run, note, max_out_len={"ceval_gen": 64}, asking=options
        )
        async with loopback_api(handler) as api, client_of(api.url) as client, asyncio.timeout(PATIENCE_S):
            asking = asyncio.create_task(evaluation.ask(client))
            await thought.wait()
            asking.cancel()
            await asyncio.wait({asking})
        run.flush()
        rows = {row.id: row for row in read_predictions(run.directory)}

    assert not any(one.decided_early for one in evaluation.predictions)
    assert not any(row.decided_early for row in rows.values())
    assert sum(row.error is not None for row in rows.values()) >= 20
    answered = sum(row.error is None for row in rows.values())
    assert evaluation.results({}).coverage.answered == answered < 12


async def test_what_is_thought_apart_from_the_text_decides_nothing() -> None:
    thought = [chunk(reasoning_content=piece) for piece in ("Maybe ", "A")]

    replies = await ask_all(lambda call: send_stream(call, [*thought, *chunks_of(EXPLAINED)]), 9)

    assert (replies[-1].text, replies[-1].thinking, replies[-1].decided_early) == ("答案是B。", "Maybe A", True)


async def test_a_stream_that_breaks_off_is_no_reply_and_asked_again() -> None:
    async def handler(call: Call) -> web.StreamResponse:
        events = chunks_of(EXPLAINED)
        return await send_stream(call, events[:5] if call.number == 1 else events, done=call.number > 1)

    (reply,) = await ask_all(handler, 1)

    assert (reply.attempts, reply.text) == (2, "".join(EXPLAINED))


async def test_a_stream_that_ends_without_any_sign_of_its_end_is_no_reply() -> None:
    with pytest.raises(NoReplyError, match="broke off"):
        await ask_all(lambda call: send_stream(call, [chunk("B")], done=False), 1, retries=0)


@pytest.mark.parametrize("kind", ["without an end", "no event stream"])
async def test_a_server_whose_streams_can_never_be_read_is_asked_for_whole_replies(kind: str) -> None:
    asked_to_stream: list[bool] = []

    async def handler(call: Call) -> web.StreamResponse:
        asked_to_stream.append(call.body["stream"])
        if not asked_to_stream[-1]:
            return completion("B")
        if kind == "no event stream":  # as Ollama's own API
            return web.Response(
                text='{"message": {"content": "B"}}\n{"done": true}\n', content_type="application/x-ndjson"
            )
        return await send_stream(call, [chunk("B")], done=False)

    replies = await ask_all(handler, 3, retries=1)

    assert [reply.text for reply in replies] == ["B"] * 3
    assert asked_to_stream == [True, True, False, False, False]


async def test_an_error_among_the_events_is_no_reply() -> None:
    events = [chunk("B"), {"error": {"message": "out of memory", "code": 500}}]

    with pytest.raises(NoReplyError, match="out of memory"):
        await ask_all(lambda call: send_stream(call, events), 1, retries=0)


async def test_a_server_that_refuses_to_stream_is_asked_for_whole_replies() -> None:
    bodies = []

    async def handler(call: Call) -> web.StreamResponse:
        bodies.append(call.body)
        return error(422, "stream: extra fields not permitted") if "stream" in call.body else completion("B")

    replies = await ask_all(handler, 3)

    assert [body.get("stream") for body in bodies] == [True, False, None, None, None]
    assert [(reply.text, reply.attempts) for reply in replies] == [("B", 1)] * 3


async def test_a_server_that_answers_whole_where_it_was_asked_to_stream_is_understood() -> None:
    async def handler(call: Call) -> web.StreamResponse:
        return completion("B")

    replies = await ask_all(handler, 2)

    assert [(reply.text, reply.completion_tokens) for reply in replies] == [("B", 2)] * 2


RULES = [FirstCapital(), FirstOption("ABCD"), Labelled("答案", colon=":", ignore_case=True), Pattern("([A-D])。")]
PIECES = st.lists(
    st.sampled_from(
        ["A", "B", "C", "答案是", "答案", ":", "选", "：", " ", "\n", "x", "因为", "。", "b", "Z", "(", ")"]
    )
    | st.text(alphabet="ABCD答案是: \n", max_size=4),
    max_size=30,
)


@pytest.mark.parametrize("rule", RULES, ids=["first_capital", "first_option", "labelled", "patient"])
@given(pieces=PIECES)
def test_the_answer_of_a_reply_that_is_cut_is_the_answer_of_the_whole_of_it(
    rule: AnswerRule, pieces: list[str]
) -> None:
    reply = StreamedReply(rule)
    for piece in pieces:
        reply.take(chunk(piece))
        if reply.pieces_to_decide is not None:
            break

    if reply.pieces_to_decide is not None:
        assert rule.extract(reply.text) == rule.extract("".join(pieces)) != ""


async def test_many_at_once_are_cut_as_soon_as_enough_is_known() -> None:
    ended: list[Reply] = []
    known = asyncio.Event()

    async def handler(call: Call) -> web.StreamResponse:
        if call.number > 8:
            await known.wait()
        return await send_stream(call, chunks_of(EXPLAINED))

    async with loopback_api(handler) as api, client_of(api.url) as client:
        reading = EarlyDecisions(RULE, tls=False)

        async def ask() -> Reply:
            reply = await client.ask(MESSAGES, 64, reading=reading)
            ended.append(reply)
            if len(ended) == 8:
                known.set()
            return reply

        replies = await asyncio.gather(*(ask() for _ in range(40)))

    assert {RULE.extract(reply.text) for reply in replies} == {"B"}
    assert sum(reply.decided_early for reply in replies) == 32


PLANNED = ["<plan>", "A is tempting, ", *("so is B. " for _ in range(40)), "</plan>", "\n\nC"]


async def test_what_begins_with_an_unknown_mark_is_read_to_its_end_and_said_once() -> None:
    said: list[str] = []
    async with (
        loopback_api(lambda call: send_stream(call, chunks_of(PLANNED))) as api,
        client_of(api.url, say=said.append) as client,
    ):
        reading = EarlyDecisions(RULE, tls=False)
        asked = (client.ask(MESSAGES, 64, reading=reading) for _ in range(30))
        replies = await asyncio.gather(*asked)
        later = [await client.ask(MESSAGES, 64, reading=reading) for _ in range(3)]

    assert {reply.text for reply in (*replies, *later)} == {"".join(PLANNED)}
    (line,) = said
    assert line.startswith("replies begin with <plan>, which may start thinking")
    assert "[thinking] in a model file" in line
    assert not reading.wants_stream()


REFLECTED = ["D is tempting", *(", or not" for _ in range(40)), "\n</reflection>", "\n\nB"]


@pytest.mark.parametrize("mark", ["</reflection>", "<|end_of_thought|>", "<answer>"])
async def test_an_unknown_mark_that_ends_what_was_never_opened_keeps_every_reply_whole(mark: str) -> None:
    said: list[str] = []
    pieces = [piece.replace("</reflection>", mark) for piece in REFLECTED]
    async with (
        loopback_api(lambda call: send_stream(call, chunks_of(pieces))) as api,
        client_of(api.url, say=said.append) as client,
    ):
        reading = EarlyDecisions(RULE, tls=False, options="ABCD")
        replies = [await client.ask(MESSAGES, 64, reading=reading) for _ in range(12)]

    assert {reply.text for reply in replies} == {"".join(pieces)}
    if mark == "<answer>":
        assert said == []  # it may be what the prompt asks for
    else:
        (line,) = said
        assert line.startswith(f"replies contain {mark}, which may end thinking: generating complete replies")


async def test_what_was_stopped_while_the_first_replies_had_not_come_to_an_unknown_mark_is_asked_again() -> None:
    """Long thinking, slow and all at once: others are stopped before the first ones end."""
    reading = EarlyDecisions(RULE, tls=False, options="ABCD")
    probes = [reading.begin() for _ in range(8)]
    for event in chunks_of(REFLECTED)[:30]:
        for probe in probes:
            probe.take(event)
            assert not reading.is_enough(probe)
    stopped = reading.begin()
    for event in chunks_of(REFLECTED)[:2]:
        stopped.take(event)
    assert reading.is_enough(stopped)
    reading.streamed(stopped, cut=True)
    assert not reading.mistaken

    for event in chunks_of(REFLECTED)[30:]:
        probes[0].take(event)
    reading.streamed(probes[0], cut=False)
    assert reading.mistaken
    assert reading.thinks_aloud
    assert not reading.wants_stream()


async def test_marks_that_are_declared_are_thinking_and_nothing_is_said() -> None:
    said: list[str] = []
    async with (
        loopback_api(lambda call: send_stream(call, chunks_of([*PLANNED, *EXPLAINED]))) as api,
        client_of(api.url, say=said.append, thinking=("<plan>", "</plan>")) as client,
    ):
        reading = EarlyDecisions(RULE, tls=False)
        replies = [await client.ask(MESSAGES, 64, reading=reading) for _ in range(10)]

    assert [reply.decided_early for reply in replies] == [False] * 8 + [True] * 2
    assert {RULE.extract(reply.text) for reply in replies} == {"C"}
    assert said == []


async def test_a_reply_whose_answer_is_no_option_is_read_to_its_end_and_others_are_still_stopped() -> None:
    """The T of "The answer is B" is OpenCompass's answer, and the whole reply is what another rule can read."""
    spoken = ["The answer ", "is B", *(", because x" for _ in range(40))]

    async def handler(call: Call) -> web.StreamResponse:
        return await send_stream(call, chunks_of(spoken if call.number % 3 == 0 else EXPLAINED))

    replies = await ask_all(handler, 24, options="ABCD")

    assert [reply.decided_early for reply in replies[8:]] == [number % 3 != 0 for number in range(9, 25)]
    assert {reply.text for reply in replies[2::3]} == {"".join(spoken)}
    assert {RULE.extract(reply.text) for reply in replies[2::3]} == {"T"}


@pytest.mark.parametrize("begin", [["The answer ", "is B"], ["A", "nswer", ": B"], ["Because of ", "B"]])
async def test_where_every_answer_is_no_option_or_begins_a_word_nothing_is_streamed(begin: list[str]) -> None:
    spoken = [*begin, *(", because x" for _ in range(40))]
    asked_to_stream: list[bool] = []

    async def handler(call: Call) -> web.StreamResponse:
        asked_to_stream.append(call.body["stream"])
        return await send_stream(call, chunks_of(spoken)) if asked_to_stream[-1] else completion("".join(spoken))

    replies = await ask_all(handler, 12, options="ABCD")
    assert {reply.text for reply in replies} == {"".join(spoken)}
    assert asked_to_stream == [True] * 8 + [False] * 4


async def test_a_single_reply_with_an_unknown_mark_does_not_keep_others_from_being_stopped() -> None:
    async def handler(call: Call) -> web.StreamResponse:
        return await send_stream(call, chunks_of(PLANNED if call.number % 5 == 0 else EXPLAINED))

    replies = await ask_all(handler, 20)
    assert all(reply.text == "".join(PLANNED) for reply in replies[4::5])
    assert [reply.decided_early for reply in replies[10:14]] == [True] * 4


@pytest.mark.parametrize("mark", ["<answer>", "<final_answer>", "<html>", "[B]"])
async def test_a_mark_that_opens_no_thinking_stops_nothing(mark: str) -> None:
    replies = await ask_all(lambda call: send_stream(call, chunks_of([mark, *EXPLAINED])), 10)
    assert replies[-1].decided_early


async def test_where_complete_replies_are_wanted_the_first_ones_are_streamed_to_their_end() -> None:
    asked_to_stream: list[bool] = []

    async def handler(call: Call) -> web.StreamResponse:
        asked_to_stream.append(call.body["stream"])
        events = chunks_of(EXPLAINED)
        return await send_stream(call, events) if asked_to_stream[-1] else completion("".join(EXPLAINED))

    begun: list[int] = []
    async with loopback_api(handler) as api, client_of(api.url) as client:
        reading = EarlyDecisions(RULE, tls=False, stops=False)
        replies = [
            await client.ask(MESSAGES, 64, reading=reading, begun=lambda n=number: begun.append(n))  # type: ignore[misc]
            for number in range(50)
        ]

    assert asked_to_stream == [True] * 8 + [False] * 42
    assert begun == [*range(8)]
    assert {(reply.text, reply.decided_early) for reply in replies} == {("".join(EXPLAINED), False)}
