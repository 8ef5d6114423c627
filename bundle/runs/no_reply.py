"""Why questions have no reply, grouped by reason, with what to do about each."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from bundle.runs.predictions import Prediction
from bundle.system.text import one_line, printable


class Cause(StrEnum):
    """Why a question has no reply, as far as the remedy depends on it."""

    FILTERED = "content_filter"
    TOO_LONG = "too_long"
    TIMEOUT = "timeout"
    BUSY = "rate_limit"
    TEMPLATE = "no_chat_template"
    MODEL = "unknown_model"
    SETTING = "refused_setting"
    REQUEST = "refused_request"
    CRASHED = "crashed_the_server"
    RULE = "answer_rule"
    SERVER = "server"
    OTHER = "other"


_CAUSES: Final[Mapping[Cause, tuple[re.Pattern[str], str]]] = {
    Cause.FILTERED: (
        re.compile("content filter"),
        "They would be refused again; --allow-unanswered N lets gates and the exit code pass.",
    ),
    Cause.CRASHED: (re.compile("crashed on it"), "See server.log for why the server crashed."),
    Cause.RULE: (re.compile("regular expression"), "Rewrite the pattern so that it can match in only one way."),
    Cause.TOO_LONG: (
        re.compile(
            r"exceed the model's context|context (length|window)|maximum.{0,40}length|too long|max_model_len"
            r"|exceed.{0,40}tokens",
            re.IGNORECASE,
        ),
        "Lower --max-out-len, or serve the model with a longer context.",
    ),
    Cause.TIMEOUT: (
        re.compile(r"time[d-]?\s?out|no reply within|took longer", re.IGNORECASE),
        "Raise --request-timeout or lower --concurrency, then continue with `bundle resume`.",
    ),
    Cause.BUSY: (
        re.compile(r"HTTP 429|rate.?limit|too many requests|quota", re.IGNORECASE),
        "Lower --qps or --concurrency, then continue with `bundle resume`.",
    ),
    Cause.SERVER: (
        re.compile(
            r"HTTP 5\d\d|temporary server fault|connect|reset|broke off|gave up|unreachable|refused the conn",
            re.IGNORECASE,
        ),
        "Server faults may be temporary: continue with `bundle resume`.",
    ),
    Cause.TEMPLATE: (
        re.compile(
            r"HTTP 4.*\b(chat.?template|prompt.?template|jinja|conversation roles|system role)\b(?!_)", re.IGNORECASE
        ),
        "Serve the model with a chat template, or ask it as a base model with --prompt-shape plain.",
    ),
    Cause.MODEL: (
        re.compile(
            r"HTTP 4.*(\bmodel\b.{0,100}?\bnot (exist|found|available|supported)\b|\b(no such|unknown|invalid) model\b"
            r"|模型.{0,50}?不(存在|支持))",
            re.IGNORECASE,
        ),
        "Check the model's name: it must be one that the server lists.",
    ),
    Cause.SETTING: (
        re.compile(
            r"HTTP 4(00|22)\b.*(\b(max_\w*tokens|temperature|top_[pk]|min_p|seed|stream\w*|logprobs|reasoning_effort"
            r"|\w+_penalty|enable_thinking|chat_template_kwargs|extra_body|parameters?|arguments?)\b|extra.{0,9}(inputs|fields)"
            r"|参数)",
            re.IGNORECASE,
        ),
        "The server refuses a parameter: change it with --max-out-len, --temperature, --stream or in a model file.",
    ),
    Cause.REQUEST: (
        re.compile(r"HTTP 4\d\d", re.IGNORECASE),
        "The server refuses the question without saying why, and would refuse it again.",
    ),
    Cause.OTHER: (re.compile(""), "Continue with `bundle resume` to ask them again."),
}
"""How a reason is recognized, the most particular first, and what to do about it."""

REMEDIES: Final[Mapping[Cause, str]] = {cause: remedy for cause, (_, remedy) in _CAUSES.items()}

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

    @property
    def remedy(self) -> str:
        return REMEDIES[self.cause]

    def to_json(self) -> dict[str, Any]:
        return {
            "reason": self.reason,
            "count": self.count,
            "cause": self.cause.value,
            "remedy": self.remedy,
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
    return next(cause for cause, (pattern, _) in _CAUSES.items() if pattern.search(reason))
