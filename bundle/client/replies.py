"""What counts as a reply."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bundle.client.faults import AttemptError, Fate, fault_of_body
from bundle.client.thinking import split_thinking
from bundle.errors import BundleError, ExitCode
from bundle.system.text import one_line

_WHOLE = frozenset({"stop", "length"})
_CERTAIN = frozenset({"content_filter", "tool_calls", "function_call"})


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply, or one that was cut because its answer was certain.

    Attributes:
        text: What the model said, without its thinking; "" where it said nothing.
        finish_reason: "stop" or "length"; None where it was cut.
        prompt_tokens: As counted by the server, None where it did not say, as for a reply that was cut.
        completion_tokens: Likewise; thinking is included.
        cached_tokens: How many of the prompt's tokens the server had in its prefix cache, likewise.
        latency_s: Seconds the successful attempt took, not counting the wait for its turn.
        attempts: How often it was asked, this time included.
        thinking: What a reasoning model thought before; None where it did not.
        decided_early: Whether it was cut.
        took_text_back: Whether text turned out to be thinking after it had come, see `ThinkingSplitter`.
    """

    text: str
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    latency_s: float
    attempts: int
    thinking: str | None = None
    decided_early: bool = False
    took_text_back: bool = False


class NoReplyError(Exception):
    """A question stays without a reply, after as many attempts as were worth it.

    Attributes:
        reason: Why, in one line.
        attempts: How often it was asked.
        latency_s: How long the last attempt took.
        passing: Whether it was a fault that passes, and so says more of the server than of the question.
    """

    def __init__(self, reason: str, attempts: int, latency_s: float, *, passing: bool) -> None:
        super().__init__(reason)
        self.passing = passing
        self.reason = reason
        self.attempts = attempts
        self.latency_s = latency_s


class RefusedError(BundleError):
    """The server refuses in a way that every other question would meet as well."""

    exit_code = ExitCode.SERVER


def reply_of(body: Any, *, latency_s: float, attempts: int, answer_from_thinking: bool) -> Reply:
    """Take the reply out of a response body.

    - ``finish_reason`` "stop" and "length" make a reply. Any other, null included, means that the server gave up
      ("abort", "error"), withheld the text ("content_filter") or offers something else ("tool_calls"): no reply.
      The last two would come again, so the question is not asked again.
    - Content that is null or missing is an empty reply: a model that spends all its tokens on thinking has none.
    - No choices, or anything that is no chat completion: no reply, asked again.
    - Thinking is what ``reasoning_content`` or ``reasoning`` holds, and what stands in ``<think>`` (see
      `bundle.client.thinking`). It is the text only where there is no other and ``answer_from_thinking`` is set.

    Raises:
        AttemptError: There is no reply.
    """
    try:
        choice = body["choices"][0]
        message, finish_reason = choice["message"], choice["finish_reason"]
        content = message.get("content")
        said_apart = message.get("reasoning_content") or message.get("reasoning")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise fault_of_body(body) from None
    if not isinstance(content, str | None):
        raise fault_of_body(body)
    if not isinstance(finish_reason, str) or finish_reason not in _WHOLE:
        ended = "null" if finish_reason is None else one_line(str(finish_reason), 50)
        fate = Fate.UNANSWERED if ended in _CERTAIN else Fate.AGAIN
        raise AttemptError(f"the server ended the reply with {ended!r}", fate)
    splitter = split_thinking(content or "")
    text, thinking = splitter.text, splitter.thinking
    if isinstance(said_apart, str):
        thinking = said_apart + thinking
    if answer_from_thinking and not text.strip():
        text = thinking
    usage = body.get("usage") if isinstance(body.get("usage"), Mapping) else None
    return Reply(
        text=text,
        finish_reason=finish_reason,
        prompt_tokens=_count(usage, "prompt_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
        cached_tokens=_count(usage.get("prompt_tokens_details"), "cached_tokens") if usage else None,
        latency_s=latency_s,
        attempts=attempts,
        thinking=thinking if thinking.strip() else None,
        took_text_back=splitter.took_text_back,
    )


def require_model(body: object, name: str | None) -> None:
    """Refuse a reply, or a part of one, that names another model; None refuses nothing.

    Raises:
        AttemptError: It does.
    """
    model = body.get("model") if name is not None and isinstance(body, Mapping) else None
    # transformers serve names the revision as well, as in "local/tiny@main".
    if isinstance(model, str) and name not in (model, model.rpartition("@")[0]):
        raise AttemptError(
            f"the reply is from another model, {one_line(model, 80)!r}",
            Fate.REFUSED,
            remedy="Another server may have taken the port: look at what listens there, and try again.",
        )


def _count(usage: object, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
