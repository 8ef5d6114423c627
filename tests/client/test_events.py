"""Server-sent events, however they are written and cut into pieces."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.client._events import BLANK, DONE, EventDecoder, is_event_stream

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
        ("", []),
    ],
)
def test_the_events_of_a_stream(stream: str, events: list[object]) -> None:
    assert decoded(stream.encode()) == events


def test_data_that_is_not_json_is_an_error() -> None:
    with pytest.raises(ValueError):
        decoded(b"data: {\n\n")


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
        (b'{"choices"', True, False),
        (b"<html>", True, False),
        (b"dat", True, None),
        (b"", True, None),
        (b"name: x", True, True),
        (b"no such model", False, False),
    ],
)
def test_the_body_says_whether_it_is_a_stream(begin: bytes, declared: bool, is_stream: bool | None) -> None:
    assert is_event_stream(begin.lstrip(BLANK), declared=declared) is is_stream
