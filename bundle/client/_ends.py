"""How a reply ended, in the words of whichever server."""

import re

from bundle.client._faults import AttemptError, Fate
from bundle.system.text import one_line

_LENGTH = re.compile(
    r"length|max\w*tokens|token\w*limit|limit\w*tokens|context_window|truncat|incomplete|unfinished|长度|超长|截断|上限|未完成",
    re.IGNORECASE,
)
_FILTER = (
    "filter|sensitive|safety|block|prohibit|recitation|moderat|inspection|refus|risk|"
    "敏感|违规|违禁|审核|拦截|屏蔽|风控|过滤"
)
_FILTERED = re.compile(_FILTER, re.IGNORECASE)
# "no_risk", "unfiltered", "risk-free", "未命中敏感词", "审核通过"; but not "moderation_not_passed" and "审核未通过".
_NOT_FILTERED = re.compile(
    rf"(?:\b|_)(?:no|not|non|un|without|low)[\W_]*(?:{_FILTER})|(?:{_FILTER})[a-z]*[\W_]*(?:free|ok|pass|通过)"
    rf"|(?:未命中|未触发|未发现|无|没有)\w{{0,2}}(?:{_FILTER})",
    re.IGNORECASE,
)
_TOOLS = frozenset({"tool_calls", "function_call", "tool_use"})
# DeepSeek has "insufficient_system_resource", Zhipu "network_error".
_GIVEN_UP = re.compile(
    r"error|abort|cancel|insufficient|interrupt|fail|time_?out|disconnect|closed|broken|lost|crash|kill|evict|preempt"
    r"|overload|unavailable|错误|异常|失败|中断|中止|取消|超时|断开|断连|过载|不可用",
    re.IGNORECASE,
)


def end_of(finish_reason: object, *, has_text: bool, no_calls: bool) -> tuple[str, str | None]:
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
    if _FILTERED.search(word) and not _NOT_FILTERED.search(word):
        raise AttemptError(f"the content filter withheld the reply: finish_reason {word!r}", Fate.UNANSWERED)
    if _LENGTH.search(word):
        return "length", word
    if _GIVEN_UP.search(word) or not has_text:
        raise AttemptError(f"the server gave up: finish_reason {word!r}", Fate.AGAIN)
    return "stop", word
