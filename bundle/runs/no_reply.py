"""Why questions have no reply, grouped by reason, with what to do about each."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

from bundle.runs.predictions import Prediction
from bundle.system.text import one_line, printable


class Cause(StrEnum):
    """Why a question has no reply, as far as the remedy depends on it; the most particular first.

    Attributes:
        pattern: How a reason is recognized.
        remedy: What to do about it.
    """

    pattern: re.Pattern[str]
    remedy: str

    def __new__(cls, value: str, pattern: str, remedy: str) -> Self:
        one = str.__new__(cls, value)
        one._value_, one.pattern, one.remedy = value, re.compile(pattern, re.IGNORECASE), remedy
        return one

    FILTERED = (
        "content_filter",
        "content filter",
        "They would be refused again; --allow-unanswered N lets gates and the exit code pass.",
    )
    CRASHED = ("crashed_the_server", "crashed on it", "See server.log for why the server crashed.")
    RULE = ("answer_rule", "regular expression", "Rewrite the pattern so that it can match in only one way.")
    TOO_LONG = (
        "too_long",
        r"exceed the model's context|context (length|window)|maximum.{0,40}length|too long|max_model_len"
        r"|exceed.{0,40}tokens",
        "Lower --max-out-len, or serve the model with a longer context.",
    )
    TIMEOUT = (
        "timeout",
        r"time[d-]?\s?out|no reply within|took longer",
        "Raise --request-timeout or lower --concurrency, then continue with `bundle resume`.",
    )
    BUSY = (
        "rate_limit",
        r"HTTP 429|rate.?limit|too many requests|quota",
        "Lower --qps or --concurrency, then continue with `bundle resume`.",
    )
    SERVER = (
        "server",
        r"HTTP 5\d\d|temporary server fault|connect|reset|broke off|gave up|unreachable|refused the conn",
        "Server faults may be temporary: continue with `bundle resume`.",
    )
    TEMPLATE = (
        "no_chat_template",
        r"HTTP 4.*\b(chat.?template|prompt.?template|jinja|conversation roles|system role)\b(?!_)",
        "Serve the model with a chat template, or ask it as a base model with --prompt-shape plain.",
    )
    MODEL = (
        "unknown_model",
        r"HTTP 4.*(\bmodel\b.{0,100}?\bnot (exist|found|available|supported)\b|\b(no such|unknown|invalid) model\b"
        r"|模型.{0,50}?不(存在|支持))",
        "Check the model's name: it must be one that the server lists.",
    )
    SETTING = (
        "refused_setting",
        r"HTTP 4(00|22)\b.*(\b(max_\w*tokens|temperature|top_[pk]|min_p|seed|stream\w*|logprobs|reasoning_effort"
        r"|\w+_penalty|enable_thinking|chat_template_kwargs|extra_body|parameters?|arguments?)\b|extra.{0,9}(inputs|fields)"
        r"|参数)",
        "The server refuses a parameter: change it with --max-out-len, --temperature, --stream or in a model file.",
    )
    REQUEST = (
        "refused_request",
        r"HTTP 4\d\d",
        "The server refuses the question without saying why, and would refuse it again.",
    )
    OTHER = ("other", "", "Continue with `bundle resume` to ask them again.")


_VARYING: Final = re.compile(r"(?<!HTTP )(?:[0-9a-f-]{8,}|\d+)", re.IGNORECASE)
# The body is not a chat completion: the reply of another API differs from question to question.
_SHAPELESS: Final = "not a chat completion: "
_VALUE: Final = re.compile(r'(: |text |\[)"(?:[^"\\]|\\.)*"?')


def kind_of(reason: str) -> str:
    """A reason without its numbers and identifiers: the same for questions that met the same."""
    if reason.startswith(_SHAPELESS):
        reason = _VALUE.sub(r"\1#", reason)
    return _VARYING.sub("#", reason)


@dataclass(frozen=True, slots=True)
class NoReply:
    """Questions that have no reply for the same reason.

    Attributes:
        reason: As the first of them met it; printable.
        cause: What that is.
        question: One of them, as in "law #3".
    """

    reason: str
    count: int
    cause: Cause
    question: str

    def to_json(self) -> dict[str, Any]:
        return {
            "reason": self.reason,
            "count": self.count,
            "cause": self.cause.value,
            "remedy": self.cause.remedy,
            "example": self.question,
        }


def reasons(predictions: Iterable[Prediction]) -> tuple[NoReply, ...]:
    """The questions that were asked and have no reply, by reason, the most frequent first."""
    found: dict[str, list[Prediction]] = {}
    for one in predictions:
        if one.error is not None:
            found.setdefault(kind_of(one.error), []).append(one)
    groups = [(min(ones, key=lambda one: one.key), len(ones)) for ones in found.values()]
    return tuple(
        NoReply(one_line(one.error or ""), count, cause_of(one.error or ""), printable(f"{one.subject} #{one.id}"))
        for one, count in sorted(groups, key=lambda group: (-group[1], group[0].key))
    )


def cause_of(reason: str) -> Cause:
    return next(cause for cause in Cause if cause.pattern.search(reason))
