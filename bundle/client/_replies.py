"""What counts as a reply."""

import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

from bundle.client._faults import TOO_LONG, AttemptError, Fate, error_in_success, fault_of_body, unexpected
from bundle.client._thinking import KNOWN_MARKS, ThinkingMarks, split_thinking
from bundle.errors import BundleError, ExitCode
from bundle.system.text import one_line

_LENGTH = re.compile(
    r"length|max\w*tokens|token\w*limit|limit\w*tokens|context_window|truncat|incomplete|unfinished|长度|超长|截断|上限|未完成",
    re.IGNORECASE,
)
# English words are matched whole: "content_block_stop", "failover_stop" and "skill_end" are usual ends.
_FILTER = (
    r"(?<![a-z])(?:(?:content)?filter[a-z]*|sensitiv[a-z]*|safety|block(?:ed|ing|list(?:ed)?)|prohibit[a-z]*|recitation"
    r"|moderat[a-z]*|inspection|refus[a-z]*|risk[sy]?|guardrails?|violat[a-z]*"
    r"|policy[\W_]block)(?![a-z])|^block$|敏感|违规|违禁|审核|拦截|屏蔽|风控|过滤"
)
_FILTERED = re.compile(_FILTER, re.IGNORECASE)
# "no_risk", "low_risk", "risk-free", "未命中敏感词", "审核通过"; but not "moderation_not_passed" and "审核未通过".
_NOT_FILTERED = re.compile(
    rf"(?<![a-z])(?:no|not|non|un|without|low)[\W_]+(?:{_FILTER})|(?:{_FILTER})[\W_]*(?:free|ok|pass|通过)"
    rf"|(?:未命中|未触发|未发现|无|没有)\w{{0,2}}(?:{_FILTER})",
    re.IGNORECASE,
)
# DeepSeek has "insufficient_system_resource", Zhipu "network_error"; "no_error" is none.
_GIVEN_UP = re.compile(
    r"(?<![a-z])(?<!no[\W_])(?<!without[\W_])(?:[a-z]*error[a-z]*|abort[a-z]*|cancel[a-z]*|insufficient|interrupt[a-z]*"
    r"|fail(?:s|ed|ing|ures?)?|timed?[\W_]?out|disconnect[a-z]*|closed|broken|lost|crash[a-z]*|kill(?:s|ed)?|evict[a-z]*"
    r"|preempt[a-z]*|overload[a-z]*|unavailable)(?![a-z])|错误|异常|失败|中断|中止|取消|超时|断开|断连|过载|不可用",
    re.IGNORECASE,
)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_TOOLS = frozenset({"tool_calls", "function_call", "tool_use"})
_MOST_TOKENS = 10**9


@dataclass(slots=True)  # not frozen: a frozen one takes three times as long to make
class Reply:
    """A reply: complete, or stopped early once its answer was final.

    Attributes:
        text: What the model said, without its thinking; may be empty.
        finish_reason: "stop" or "length"; None if it was stopped early.
        prompt_tokens: As counted by the server; None if it did not say, as for a reply that was stopped early.
        completion_tokens: Likewise; includes thinking.
        cached_tokens: How many of the prompt's tokens came from the server's prefix cache, likewise.
        latency_s: Duration of the successful attempt in seconds, without the wait for its turn.
        attempts: How many times the question was sent, including this one.
        thinking: What a reasoning model thought before; None if it did not.
        decided_early: Whether it was stopped early.
        chunks: If so, how many streamed chunks of it had come.
        took_text_back: Whether text turned out to be thinking after it had arrived, see `ThinkingSplitter`.
        unusual_end: The server's ``finish_reason`` if it is not one of the API's and was read as "stop" or "length".
        logprobs: The probabilities of its tokens, if they were asked for, as the server gave them.
        model: The model it names; from `ChatClient.ask` only if that is not the one asked for.
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
    chunks: int | None = None
    took_text_back: bool = False
    unusual_end: str | None = None
    logprobs: Any = None
    model: Any = None


@dataclass(eq=False)
class NoReplyError(Exception):
    """A question got no reply after as many attempts as were worthwhile.

    Attributes:
        reason: Why, in one line.
        attempts: How many times it was sent.
        latency_s: Duration of the last attempt in seconds.
        transient: Whether the fault was a transient one, which says more about the server than about the question.
        too_long: Whether prompt and reply exceed the model's context.
    """

    reason: str
    attempts: int
    latency_s: float
    _: KW_ONLY
    transient: bool
    too_long: bool = False

    def __str__(self) -> str:
        return self.reason


class RefusedError(BundleError):
    """The server refuses in a way that every other question would meet as well.

    With ``no_model`` it may be that it does not serve the model.
    """

    exit_code = ExitCode.SERVER

    def __init__(self, message: str, *, remedy: str | None = None, no_model: bool = False) -> None:
        super().__init__(message, remedy=remedy)
        self.no_model = no_model


def reply_of(
    body: Any,
    *,
    latency_s: float,
    attempts: int,
    answer_from_thinking: bool,
    marks: ThinkingMarks = KNOWN_MARKS,
) -> Reply:
    """Read the reply from a response body.

    - A reply needs ``choices``, which may be wrapped (`unwrapped`); several are alternatives, of which the first one
      counts. It holds a ``message``, or the ``text`` that continues a prompt.
    - How it ended: see `_end_of`.
    - Null or missing content is an empty reply: a model that spends all its tokens on thinking has none. Parts are
      joined. Content of any other type is a fault, never an empty reply. Nor is it a reply where the server says that
      it ended at its length after no token.
    - Thinking is ``reasoning_content`` or ``reasoning``, parts of that type, and what the text marks as such (see
      `bundle.client._thinking`). It becomes the text only if there is no other and ``answer_from_thinking`` is set.

    Raises AttemptError if there is no reply.
    """
    try:
        body = unwrapped(body)
        choice = _first(body["choices"])
        require_no_error(body, choice)
        message = choice.get("message")
        if message is None:
            message = choice.get("delta")
        if message is None:
            message = {"content": choice["text"]}
        content, thinking_apart = content_of(message)
    except (KeyError, IndexError, TypeError, AttributeError):
        raise fault_of_body(body) from None
    splitter = split_thinking(content, marks)
    text, thinking = splitter.text, thinking_apart + splitter.thinking
    if choice.get("finish_reason") is None and not text.strip():
        raise fault_of_body(body)  # nothing says that there is a reply
    no_calls = message.get("tool_calls") == []
    finish_reason, unusual_end = _end_of(choice.get("finish_reason"), has_text=bool(text.strip()), no_calls=no_calls)
    usage = body.get("usage") if isinstance(body.get("usage"), Mapping) else None
    completion_tokens = count(usage, "completion_tokens")
    if finish_reason == "length" and completion_tokens == 0 and not (text + thinking).strip():
        # lmdeploy and others: the prompt fills the context, so that not one token of a reply fits.
        raise AttemptError(f"{TOO_LONG}: an empty reply that ended at its length", Fate.UNANSWERED, too_long=True)
    if answer_from_thinking and not text.strip():
        text = thinking
    return Reply(
        text=text,
        finish_reason=finish_reason,
        prompt_tokens=count(usage, "prompt_tokens"),
        completion_tokens=completion_tokens,
        cached_tokens=count(usage.get("prompt_tokens_details"), "cached_tokens") if usage else None,
        latency_s=latency_s,
        attempts=attempts,
        thinking=thinking if thinking.strip() else None,
        took_text_back=splitter.took_text_back,
        unusual_end=unusual_end,
        logprobs=choice.get("logprobs"),
        model=body.get("model"),
    )


def unwrapped(body: Any) -> Any:
    """What is wrapped in a gateway's own object, as in ``{"code": 200, "msg": "ok", "data": {"choices": …}}``."""
    if "choices" in body:
        return body
    inner = (body.get(name) for name in ("data", "result", "output", "response"))
    found = next((one for one in inner if isinstance(one, Mapping) and "choices" in one), {})
    return {**body, **found}


def as_completion(body: object) -> object:
    """A response of ``/generate`` as one of ``/completions`` with ``echo``; any other as it is.

    It holds a pair for every token of the text but the first, which nothing comes before: log-probability and id.
    """
    meta = body.get("meta_info") if isinstance(body, Mapping) else None
    pairs = meta.get("input_token_logprobs") if isinstance(meta, Mapping) else None
    if not isinstance(meta, Mapping) or not isinstance(pairs, list):
        return body
    values = [pair[0] if isinstance(pair, list) and pair else None for pair in pairs]
    usage = {name: meta.get(name) for name in ("prompt_tokens", "completion_tokens")}
    choice = {"index": 0, "text": "", "finish_reason": "stop", "logprobs": {"token_logprobs": [None, *values]}}
    return {"choices": [choice], "usage": usage}


def _end_of(finish_reason: object, *, has_text: bool, no_calls: bool) -> tuple[str, str | None]:
    """How a reply ended, "stop" or "length", and the server's own word if that is not one of the API's.

    Servers have many words for the end of a turn ("eos", "end_turn", "STOP", "", null), so text with an unknown one is
    a reply. Without text, nothing says that there is one. Raises AttemptError if the server gave up, withheld the text
    or offers something else; the last two would happen again.
    """
    if finish_reason == "stop" or finish_reason == "length":
        return str(finish_reason), None
    word = "null" if finish_reason is None else one_line(str(finish_reason), 50)
    if word in _TOOLS and not (has_text and no_calls):
        raise AttemptError(f"not a reply: finish_reason {word!r}", Fate.UNANSWERED)
    words = _CAMEL.sub("_", word)
    if _FILTERED.search(words) and not _NOT_FILTERED.search(words):
        raise AttemptError(f"the content filter withheld the reply: finish_reason {word!r}", Fate.UNANSWERED)
    if _LENGTH.search(word):
        return "length", word
    if _GIVEN_UP.search(words) or not has_text:
        raise AttemptError(f"the server gave up: finish_reason {word!r}", Fate.AGAIN)
    return "stop", word


def require_no_error(body: Any, choice: Any) -> None:
    """Check that no error stands next to a text, which is then cut off (OpenRouter).

    Raises AttemptError if one does.
    """
    for one in (body, choice):
        if error_in_success(one) is not None:
            raise fault_of_body(one)


def require_model(body: object, name: str | None) -> None:
    """Check that a response, or one event of it, comes from the model ``name``; None accepts any.

    Raises AttemptError if it names another model.
    """
    model = body.get("model") if name is not None and isinstance(body, Mapping) else None
    # transformers serve also names the revision, as in "local/tiny@main".
    if isinstance(model, str) and name not in (model, model.rpartition("@")[0]):
        raise AttemptError(
            f"the reply is from another model, {one_line(model, 80)!r}",
            Fate.REFUSED,
            remedy="Another server may have taken the port: check what listens there, and try again.",
        )


def other_model(named: object, asked: str) -> str | None:
    """The name that a reply gives of its model, if that is not the one asked for; case, owner and revision aside."""
    if not isinstance(named, str) or not named.strip() or _bare(named) == _bare(asked):
        return None
    return one_line(named, 80)


def _bare(model: str) -> str:
    return model.rstrip("/").rpartition("/")[2].partition("@")[0].strip().casefold()


def _first(choices: Any) -> Any:
    if len(choices) > 1:
        return next((one for one in choices if not one.get("index")), choices[0])
    return choices[0]


def content_of(message: Any) -> tuple[str, str]:
    """The text and the separate thinking of a message or delta.

    Raises AttemptError if the content is neither text nor parts; AttributeError if it is not a message.
    """
    content = message.get("content")
    if content is None and isinstance(message.get("refusal"), str):
        content = message["refusal"]  # what a model says that refuses (OpenAI)
    thinking = message.get("reasoning_content") or message.get("reasoning")
    thinking = thinking if isinstance(thinking, str) else ""
    if isinstance(content, str):
        return content, thinking
    if content is None:
        return "", thinking
    if not isinstance(content, list | Mapping):
        raise unexpected(f"content of type {type(content).__name__}")
    texts: list[str] = []
    thoughts = [thinking]
    for part in [content] if isinstance(content, Mapping) else content:
        is_thinking, text = _part(part)
        (thoughts if is_thinking else texts).append(text)
    return "".join(texts), "".join(thoughts)


def _part(part: Any, *, is_inner: bool = False) -> tuple[bool, str]:
    """One part of a content list: whether it is thinking, and its text.

    OpenAI's are ``{"type": "text", "text": …}``; Mistral's ``{"type": "thinking", "thinking": [parts]}``. Thinking may
    come without text, encrypted (Anthropic's ``redacted_thinking``) or with a ``summary``.
    """
    if isinstance(part, str):
        return False, part
    if isinstance(part, Mapping):
        kind = str(part.get("type", "text"))
        is_thinking = "think" in kind or "reason" in kind
        names = ("text", kind, "content", "summary") if is_thinking else ("text", kind, "content")
        value = next((part[name] for name in names if part.get(name) is not None), None)
        if isinstance(value, list) and not is_inner:
            inner = (one for one in value if not is_thinking or isinstance(one, str | Mapping))
            value = "".join(_part(one, is_inner=True)[1] for one in inner)
        if is_thinking or isinstance(value, str):
            return is_thinking, value if isinstance(value, str) else ""
    raise unexpected(f"a content part {one_line(str(part), 80)}")


def count(usage: object, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS else None
