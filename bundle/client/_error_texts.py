"""Errors that come as the text of an ordinary reply, as from gateways that let an API's error pass for the model's."""

import json
import re

from bundle.client._faults import error_in_success
from bundle.client._signs import QUOTA
from bundle.tasks.answers import AnswerRule
from bundle.tasks.options import is_answer

_SHORTEST, _LONGEST = 6, 400
"""Characters; a model that says more is not an error."""
_ARTICLE = re.compile(
    r"\bAn? (?=(?:(?!is\b|was\b)[a-z-]+ ){0,3}"
    r"(?:error|problem|failure|exception|timeout|limit|server|service|gateway|connection|request)\b)"
)
_OF_THE_QUESTION = re.compile(r"题目|选项|[本此该]题")
_HEADS = (
    r"\berror code: [45]\d\d\b|\b(?:http|status(?: code)?|error)\W{1,3}(?:429|50[0-4])\b"
    r"|\b(?:429 too many|50[0-4] (?:internal|bad gateway|service|gateway))"
    r"|^\W*(?:(?:an? )?internal (?:server )?error|bad gateway|gateway time-?out|service (?:temporarily )?unavailable"
    r"|too many requests|rate limit (?:reached|exceeded)|upstream (?:connect|request|time)"
    r"|request (?:timed out|timeout)|connection (?:error|refused|reset|timed out)|cuda (?:out of memory|error)"
    r"|network error|traceback \(most recent call last\))|^\W*<(?:!doctype )?html\b"
    r"|^\W*(?:\w+ ){0,2}error: .{0,80}(?:timed? ?out|connect|unavailable|limit|quota|upstream)"
)
_TROUBLE = (
    r"\b(?:errors?|fail(?:ed|ure)|unavailable|timed? ?out|overload(?:ed)?|busy|went wrong"
    r"|traffic|exceeded|limit(?: \w+)?)\b|出错|失败|异常|错误|超时|繁忙|忙碌|频繁|过多|太多|不可用|限制|上限|负载|中断"
)
# Said to whoever asked: of a sender, too, a model says that it will retry later.
_LATER = (
    r"(?:\bplease\b(?: \w+){0,3}|[.!,;:]) ?(?:(?:re-?)?try|regenerate|come back|check back|wait)\b"
    r"|\bretry (?:later|your|the request)\b|\btry(?: \w+)? later\b|\bcontact (?:us|support|the admin\w*)\b"
    r"|(?:请|建议|可以|点击|[，,。；;！!])[^，,。；;！!]{0,8}(?:重试|再试)|请.{0,6}稍[后候等]|稍[后候].{0,4}[试来]|联系(?:客服|管理员|我们)"
)
# An account's balance is also what a question of accounting is about.
_QUOTA = rf"(?!账户余额)(?:{QUOTA.words.pattern})|请.{{0,4}}充值"
_ERROR = re.compile(rf"{_HEADS}|{_QUOTA}|(?:{_TROUBLE}).{{0,120}}(?:{_LATER})", re.IGNORECASE | re.DOTALL)


def is_error_text(text: str, rule: AnswerRule, options: str) -> bool:
    """Whether a reply is an error in words or as JSON, and has no answer under a task's rule.

    One in words is short, and names a status or a spent quota, or says that something failed and to try again.
    ``options`` as in `is_option`.
    """
    if not _SHORTEST <= len(text) <= _LONGEST or _has_answer(text, rule, options) or _OF_THE_QUESTION.search(text):
        return False
    return _ERROR.search(text) is not None or (text.startswith("{") and _is_json_error(text))


def _has_answer(text: str, rule: AnswerRule, options: str) -> bool:
    """Whether it has an answer, as which the A of "A server error" does not count."""
    texts = {text, _ARTICLE.sub("", text)}
    return all(is_answer(rule.extract(one), one, options) for one in texts)


def _is_json_error(text: str) -> bool:
    try:
        return error_in_success(json.loads(text)) is not None
    except (ValueError, RecursionError):
        return False
