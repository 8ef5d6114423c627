"""Server-sent events, however they are written and cut into pieces."""

import json
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.client._events import BLANK, DONE, EventDecoder, is_event_stream
from bundle.client._faults import AttemptError
from bundle.client._json import charset_of, from_json
from bundle.client._streamed import StreamedReply

CHUNK = {"choices": [{"delta": {"content": "答"}}]}
DATA = json.dumps(CHUNK, ensure_ascii=False)


def decoded(*pieces: bytes) -> list[object]:
    decoder = EventDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)] + decoder.end()


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (f"data: {DATA}\n\n", [CHUNK]),
        (f"data:{DATA}\r\n\r\n", [CHUNK]),
        (f"data: {DATA}\r\r", [CHUNK]),
        (f"data: {DATA}", [CHUNK]),
        ('data: {"choices":\ndata: []}\n\n', [{"choices": []}]),
        (f"id: 1\nevent: message\ndata: {DATA}\n\n", [CHUNK]),
        (f": comment\n\nretry: 5\n\nevent: ping\n\ndata: {DATA}\n\n", [CHUNK]),
        ("event: ping\ndata: pong\n\n", []),
        ('event: ping\ndata: {"type": "ping"}\n\n', []),
        (f"event: delta\ndata: {DATA}\n\n", [CHUNK]),
        ('event: error\ndata: {"message": "no"}\n\n', [{"error": {"message": "no"}}]),
        ("data:\n\ndata\n\n", []),
        ("data: [DONE]\n\n", [DONE]),
        ("data: [DONE]", [DONE]),
        ("data: [done]\n\n", [DONE]),
        ("data: DONE\n\n", [DONE]),
        ('data: "[DONE]"\n\n', [DONE]),
        (f"data: null\n\ndata: {{}}\n\ndata: keep-alive\n\ndata: ping\n\ndata: {DATA}\n\n", [CHUNK]),
        (f"data: {DATA}\ndata: {DATA}\ndata: [DONE]\n", [CHUNK, CHUNK, DONE]),
        (f"data: keep-alive\ndata: {DATA}\n", [CHUNK]),
        (f"{DATA}\n{DATA}\r\n\n{DATA}", [CHUNK, CHUNK, CHUNK]),
        ("data: {\n\n", ["{"]),
        ("data: out of memory\n\n", ["out of memory"]),
        ("event: error\ndata: out of memory\n\n", [{"error": "out of memory"}]),
        ("", []),
    ],
)
def test_the_events_of_a_stream(stream: str, events: list[object]) -> None:
    assert decoded(stream.encode()) == events


def test_data_in_the_charset_of_the_header() -> None:
    stream = f"data: {DATA}\n\ndata: {DATA}\ndata: [DONE]\n"
    decoder = EventDecoder("gbk")
    assert [*decoder.feed(stream.encode("gbk")), *decoder.end()] == [CHUNK, CHUNK, DONE]
    assert EventDecoder("gbk").feed(f"data: {DATA}\n\n".encode()) == [CHUNK]


@pytest.mark.parametrize(
    ("content_type", "charset"),
    [
        ("text/event-stream; charset=GBK", "GBK"),
        ('application/json;charset="gb18030"; x=y', "gb18030"),
        ("application/json", "utf-8"),
        ("text/plain; charset=none", "utf-8"),
        ("text/plain; charset=hex", "utf-8"),
        ("text/plain; charset=\x00", "utf-8"),
    ],
)
def test_the_charset_of_a_header(content_type: str, charset: str) -> None:
    assert charset_of(content_type) == charset


def test_a_number_of_any_length_loses_no_json() -> None:
    digits = b"9" * 5000
    assert from_json(b'{"id": 12, "usage": -%b, "text": "%b"}' % (digits, digits)) == {
        "id": 12,
        "usage": -math.inf,
        "text": digits.decode(),
    }
    assert decoded(b'data: {"choices": [], "n": %b}\n\n' % digits) == [{"choices": [], "n": math.inf}]
    for data in (b"{", b"\xb4\xf0", b'{"a": %b' % digits):
        with pytest.raises(ValueError):
            from_json(data)


def test_a_text_may_have_line_ends_as_they_are() -> None:
    assert from_json('{"text": "答案\n是\tB"}'.encode()) == {"text": "答案\n是\tB"}


@pytest.mark.parametrize("begin", [b"data: {\n", b'data: {"a": [\n'])
def test_an_event_of_many_lines_takes_no_time_in_their_square(begin: bytes) -> None:
    started = time.process_time()
    assert len(decoded(begin + 20_000 * b'data: {"a": 1},\n')) == 1
    assert time.process_time() - started < 5


@given(st.data())
def test_what_comes_before_the_end_is_read_however_a_stream_is_cut(data: st.DataObject) -> None:
    stream = b'data: {"choices": [{"delta": {"content": "B"}, "finish_reason": "stop"}]}\n\ndata: <html>\n\n'
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    decoder, reply = EventDecoder(), StreamedReply()
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        for event in decoder.feed(stream[begin:end]):
            reply.take(event)
    assert (reply.text, reply.ended) == ("B", True)


def test_data_that_is_not_json_is_no_reply() -> None:
    (event,) = decoded(b"data: out of memory\n\n")
    with pytest.raises(AttemptError, match="out of memory"):
        StreamedReply().take(event)


@given(st.data(), st.sampled_from(["\n", "\r\n", "\r"]))
def test_every_way_to_cut_a_stream_gives_the_same_events(data: st.DataObject, newline: str) -> None:
    stream = f": c\ndata: {DATA}\n\nevent: ping\ndata: 1\n\ndata: {DATA}\n\ndata: [DONE]\n\n".replace(
        "\n", newline
    ).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))

    pieces = [stream[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    assert decoded(*pieces) == [CHUNK, CHUNK, DONE]


@pytest.mark.parametrize(
    ("begin", "declared", "is_stream"),
    [
        (b"data: {", False, True),
        (b": ping", False, True),
        (b'{"choices"', True, None),
        (b'{"choices"' + 2**16 * b" ", True, False),
        (b'{\n "choices"', True, False),
        (b'{"choices": [{"message": {}}]}\n', True, False),
        (b'{"choices": [{"delta": {}}]}\n', False, True),
        (b"<html>", True, False),
        (b"dat", True, None),
        (b"", True, None),
        (b"name: x", True, True),
        (b"no such model", False, False),
    ],
)
def test_the_body_says_whether_it_is_a_stream(begin: bytes, declared: bool, is_stream: bool | None) -> None:
    assert is_event_stream(begin.lstrip(BLANK), declared=declared) is is_stream
