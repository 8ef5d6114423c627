"""What a server said, fit for one line on a screen."""

import html
import json
import re
from collections.abc import Mapping
from typing import Any

from bundle.system.text import one_line

_MESSAGE_KEYS = ("message", "detail", "msg", "error_msg", "error", "status_msg")
_HTML = re.compile(r"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)


def is_html(text: str) -> bool:
    """Whether this is a web page."""
    return _HTML.match(text[:4000]) is not None


def said(body: object) -> str:
    """What the body of an answer says, in one line: its message, a page's title, or all of it; "" for nothing."""
    if isinstance(body, Mapping):
        message = next((body[key] for key in _MESSAGE_KEYS if body.get(key)), None)
        return one_line(_dumped(body)) if message is None else said(message)
    if isinstance(body, str) and is_html(body):
        title = _TITLE.search(body[:20_000])
        return f'an HTML page "{one_line(html.unescape(title[1]), 100)}"' if title else "an HTML page"
    if isinstance(body, str):
        return one_line(body)
    return "" if body is None else one_line(_dumped(body))


def error_in(body: object) -> Mapping[str, Any]:
    """The part of a body that describes an error: its ``error`` member where there is one."""
    inner = body.get("error", body) if isinstance(body, Mapping) else body
    if isinstance(inner, Mapping):
        return inner
    return {} if inner is None else {"message": inner}


def described(error: BaseException) -> str:
    """An exception in one line."""
    return one_line(f"{type(error).__name__}: {error}".removesuffix(": "))


def chain(error: BaseException) -> list[BaseException]:
    """An exception and what it came from, back to the first."""
    errors = [error]
    while (below := errors[-1].__cause__ or errors[-1].__context__) is not None:
        errors.append(below)
    return errors


def _dumped(body: object) -> str:
    return json.dumps(body, ensure_ascii=False, default=str)
