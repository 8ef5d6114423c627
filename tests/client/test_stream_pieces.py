"""The pieces of a streamed reply, put together: some servers repeat in each what came before."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.client._events import DONE
from bundle.client._faults import AttemptError
from bundle.client._replies import reply_of
from bundle.client._streamed import StreamedReply
from bundle.tasks.answers import AllOptions, AnswerRule, FirstCapital, FirstOption, Labelled
from tests.client.test_early_decisions import RULE, ask_all
from tests.openai_api import chunk, chunks_of, send_stream


@pytest.mark.parametrize(
    "pieces",
    [
        ["答案是", "答案是B", "答案是B，因为", "答案是B，因为 x。"],
        ["答案", "答案是", "答案是A", "答案是AC", "答案是AC"],  # DashScope, without incremental_output
        ["A", "AC", "AC"],
        ["A", "A", "AC"],
    ],
)
async def test_pieces_that_repeat_all_that_came_before_are_not_put_together(pieces: list[str]) -> None:
    replies = await ask_all(lambda call: send_stream(call, chunks_of(pieces)), 1)
    assert replies[0].text == pieces[-1]


def text_of(pieces: list[str], rule: AnswerRule = RULE) -> str:
    """What a stream of these pieces says; at its end, what was read while it arrived is the same."""
    reply = StreamedReply(rule, options="")
    for event in chunks_of(pieces):
        reply.take(event)
        decided = reply.text if reply.pieces_to_decide is not None else None
    whole = reply_of(reply.body(), latency_s=0, attempts=1, answer_from_thinking=False).text
    if decided is not None:
        assert rule.extract(decided) == rule.extract(whole)
    return whole


@given(st.text(alphabet="AB答案是：，因为x \n", min_size=2), st.data())
def test_a_stream_whose_pieces_hold_the_whole_text_says_what_a_whole_body_does(text: str, data: st.DataObject) -> None:
    ends = sorted(data.draw(st.lists(st.integers(1, len(text)), max_size=20)))
    assert text_of([text[:end] for end in (1, *ends, len(text))]) == text


def is_ambiguous(pieces: list[str]) -> bool:
    """Every piece begins with the one before, and they grow: "A", "AA" is the text "AAA", or "AA" said twice."""
    pieces = [one for one in pieces if one]
    repeats = all(one.startswith(before) for before, one in itertools.pairwise(pieces))
    return repeats and len(set(pieces)) > 1


@given(
    st.lists(st.text(alphabet="AB答 ", max_size=3), min_size=1, max_size=8).filter(lambda one: not is_ambiguous(one))
)
def test_pieces_that_do_not_repeat_what_came_before_are_put_together(pieces: list[str]) -> None:
    assert text_of(pieces) == "".join(pieces)


@pytest.mark.parametrize("rule", [FirstCapital(), FirstOption("ABCD"), AllOptions("ABCD"), Labelled("答案")])
@given(
    pieces=st.lists(
        st.sampled_from(["A", "AB", "ABC", "C", "AC", "B", "答案", "答案：", "答案：A", "答案：AC", "；", "\n"]),
        max_size=8,
    )
)
def test_no_answer_is_taken_for_final_that_the_whole_of_the_stream_does_not_have(
    rule: AnswerRule, pieces: list[str]
) -> None:
    reply = StreamedReply(rule)
    answers = []
    for event in chunks_of(pieces):
        reply.take(event)
        if reply.pieces_to_decide is not None:
            answers.append(rule.extract(reply.text))
    whole = reply_of(reply.body(), latency_s=0, attempts=1, answer_from_thinking=False).text
    assert set(answers) <= {rule.extract(whole)}


async def test_thinking_whose_pieces_hold_the_whole_of_it_is_kept_once() -> None:
    thought = [chunk(reasoning_content=piece) for piece in ("A", "A or", "A or C", "A or C")]
    (reply,) = await ask_all(lambda call: send_stream(call, [*thought, *chunks_of(["B", "B"])]), 1)
    assert reply.thinking == "A or C"


async def test_text_with_calls_of_tools_is_no_reply_in_a_stream_either() -> None:
    calls = chunk(tool_calls=[{"index": 0, "function": {"name": "f"}}])
    for events, text in (([chunk("B"), calls], None), ([chunk("B"), chunk(tool_calls=[])], "B")):
        reply = StreamedReply()
        for event in (*events, chunk(finish_reason="tool_calls")):
            reply.take(event)
        if text is None:
            with pytest.raises(AttemptError, match="tool_calls"):
                reply_of(reply.body(), latency_s=0, attempts=1, answer_from_thinking=False)
        else:
            assert reply_of(reply.body(), latency_s=0, attempts=1, answer_from_thinking=False).text == text


def test_nothing_is_read_after_the_end_of_a_stream() -> None:
    reply = StreamedReply()
    for event in (chunk("A", finish_reason="stop"), DONE, chunk("ZZ"), "<html>"):
        reply.take(event)
    assert reply.text == "A"
