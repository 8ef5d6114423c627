"""Reasons for missing replies, grouped."""

import pytest

from bundle.runs.no_reply import Cause, reasons
from bundle.runs.predictions import Prediction
from tests.runs.test_health import row


def failed(number: int, reason: str) -> Prediction:
    return row(number, None, correct=None, finish_reason=None, error=reason)


def test_the_same_reason_is_counted_once_whatever_its_numbers() -> None:
    rows = [failed(n, f"HTTP 400: {900 + n} tokens asked, request id 3f0a{n:06x}") for n in range(5)]
    rows += [failed(9, "HTTP 500: 1 worker lost"), row(10)]
    first, second = reasons(rows)
    assert (first.count, first.reason, first.question) == (5, rows[0].error, "law #0")
    assert (second.count, second.cause) == (1, Cause.SERVER)


def test_the_status_of_a_reason_tells_it_from_another() -> None:
    assert [one.count for one in reasons([failed(0, "HTTP 400: no"), failed(1, "HTTP 500: no")])] == [1, 1]


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("the content filter refused the question: HTTP 400: inappropriate content", Cause.FILTERED),
        ("the content filter withheld the reply: finish_reason 'content_filter'", Cause.FILTERED),
        ("HTTP 400: This model's maximum context length is 900 tokens", Cause.TOO_LONG),
        ("HTTP 400: max_tokens is not supported; use max_completion_tokens", Cause.SETTING),
        ("HTTP 400: temperature must be in (0, 1]", Cause.SETTING),
        ("HTTP 422: extra inputs are not permitted: body.top_k", Cause.SETTING),
        ("HTTP 400: 参数 enable_thinking 不合法", Cause.SETTING),
        ("HTTP 400: the tokenizer has no chat template", Cause.TEMPLATE),
        ("HTTP 400: Conversation roles must alternate user/assistant", Cause.TEMPLATE),
        ("HTTP 400: chat_template_kwargs is not supported", Cause.SETTING),
        ("HTTP 400: The model `m2` does not exist", Cause.MODEL),
        ("HTTP 404: 模型 m2 不存在", Cause.MODEL),
        ("HTTP 400: bad request", Cause.REQUEST),
        ("HTTP 413: Payload Too Large", Cause.REQUEST),
        ("HTTP 429: too many requests", Cause.BUSY),
        ("HTTP 503: overloaded", Cause.SERVER),
        ("temporary server fault: HTTP 400: upstream_error", Cause.SERVER),
        ("the request timed out", Cause.TIMEOUT),
        ("the server crashed on it 2 times", Cause.CRASHED),
        ("HTTP 418: I am a teapot", Cause.REQUEST),
        ("not a chat completion: empty body", Cause.OTHER),
    ],
)
def test_a_reason_has_a_cause_and_that_a_remedy(reason: str, cause: Cause) -> None:
    (one,) = reasons([failed(0, reason)])
    assert one.cause is cause
    assert one.to_json()["remedy"] == cause.remedy


def test_a_reason_is_one_printable_line() -> None:
    (one,) = reasons([failed(0, "HTTP 400: \x1b[31m\nx" + "y" * 5000)])
    assert len(one.reason) <= 300
    assert "\x1b" not in one.reason
    assert "\n" not in one.reason
