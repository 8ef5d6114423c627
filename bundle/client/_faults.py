"""Why an attempt got no reply, and what that means for the question and for the run."""

import enum
import html
import json
import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any
from urllib.parse import urlsplit

from bundle.client._addresses import mistyped, redirected
from bundle.client._retry_after import retry_after_s
from bundle.client._signs import (
    CONTENT_FILTER,
    CONTEXT_EXCEEDED,
    MORE_THAN_A_MINUTE,
    MORE_TOKENS,
    NO_MODEL,
    OF_A_KEY,
    RATE_LIMIT,
    UNAUTHORIZED,
    WRONG_KEY,
    is_quota,
    passes,
)
from bundle.system.text import one_line


class Fate(enum.Enum):
    """What follows an attempt without a reply."""

    AGAIN = "a transient fault: retry"
    NOT_ITS_OWN = "another question's reply: ask at once, over another connection"
    UNANSWERED = "this question would fail again: give it up"
    REFUSED = "every question would fail, unless the server has answered others"
    KEY_SPENT = "every question sent with this key would fail"


@dataclass(eq=False)
class AttemptError(Exception):
    """One attempt got no reply.

    Attributes:
        reason: Why, in one line.
        fate: What follows.
        remedy: What the user can do if this ends the run.
        pause_s: Seconds the server asks to wait; None if it does not say.
        busy: Whether the server said that it is asked too often.
        outage: Whether the server cannot be reached, which no question is to blame for.
        heard: Whether whatever answered could be the intended server.
        parameter: The parameter that the server says it is about; "" if it does not say.
        status: The HTTP status, also where the body alone names it; 0 if there is none.
        no_model: Whether it may be that the server does not have the model.
        too_long: Whether prompt and reply exceed the model's context: with fewer examples they may not.
        is_page: Whether it came without a body of the API's, so that a gateway may have answered in its place.
    """

    reason: str
    fate: Fate
    _: KW_ONLY
    remedy: str = "Check the base URL, the API key and the model name."
    pause_s: float | None = None
    busy: bool = False
    outage: bool = False
    heard: bool = True
    parameter: str = ""
    status: int = 0
    no_model: bool = False
    too_long: bool = False
    is_page: bool = False

    def __str__(self) -> str:
        return self.reason

    @property
    def is_of_key(self) -> bool:
        """Whether the key is wrong, and not spent."""
        return self.fate is Fate.KEY_SPENT and self.remedy == _KEY_REMEDY


_SUCCESS, _BUSY, _FORBIDDEN, _NOT_FOUND, _TOO_LARGE = 200, 429, 403, 404, 413
_TRANSIENT = frozenset({408, 409, 421, 424, 425, _BUSY, 499})  # 424 of TGI, 499 of nginx and others
_OUTAGE = frozenset({502, 503, 504, 520, 521, 522, 523, 524, 529})  # of gateways, Cloudflare and Anthropic
_REFUSED = {
    403: "Check that the API key may use this model.",
    404: "Check the model name and the base URL: it ends in /v1, or is given up to /chat/completions.",
    405: "Check the base URL: there is no chat API at this address.",
    407: "The proxy requires a login: put it into HTTPS_PROXY, or add the host to NO_PROXY.",
    410: "Check the base URL and the model name: the server says that they were removed.",
}
_KEY_REMEDY = "Check the API key."
_MODEL_REMEDY = "Check the model name: it must be one that the server lists."
NETWORK_REMEDY = "Check the base URL and its port, and the network; ALL_PROXY sets a proxy."
LOOPBACK_REMEDY = "Check the base URL and its port, and that the server is running."
_GATEWAY_REMEDY = (
    "A gateway answered in the API's place: check the base URL, and whether it lets this machine and program through."
)
_PAGE_REMEDY = "Check the base URL, which usually ends in /v1, and whether the network requires a login."
_QUOTA_REMEDY = (
    "Wait for the quota to renew, or set another key (several are separated by commas), then continue with "
    "`bundle resume`."
)

PASSING = "temporary server fault"
FILTERED = "the content filter refused the question"
TOO_LONG = "prompt and reply exceed the model's context"

_CODE_KEYS = ("code", "status", "status_code", "error_code", "errcode", "err_code", "errno")
_STATUS = re.compile("[45][0-9]{2}")
_NO_ERROR = re.compile(
    r"\s*(0|200|none|null|nil|undefined|false|n/a|-|ok(ay)?|success(ful|fully)?|succeed(ed)?|no[ _]?errors?"
    r"|(请求|操作|调用|执行|处理|返回)?(成功|正常)|无(错误)?)[.!。！]?\s*",
    re.IGNORECASE,
)
_MESSAGE_KEYS = ("message", "detail", "msg", "error_msg", "errmsg", "err_msg", "error_message", "error", "status_msg")
_OF_AN_ERROR = frozenset({*_CODE_KEYS, *_MESSAGE_KEYS, "type", "param", "request_id", "timestamp", "path"})
_FAILED = re.compile(r"[45][0-9]{2}|err(or)?|fail(ed|ure)?|exception", re.IGNORECASE)
"""What a ``status`` is that says so, unlike "completed"."""
_HTML = re.compile(r"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)


def fault_of_status(status: int, body: object, headers: Mapping[str, str], asked: str = "") -> AttemptError:
    """The fault behind an HTTP error status, or one that a body with status 200 names.

    ``body`` is the body or its ``error`` member, ``asked`` the address that was asked, for redirects.
    """
    if 300 <= status < 400:
        fault = _redirect(status, headers.get("location", ""), asked)
    else:
        fault = _error_of_status(status, body, headers)
        if status == _NOT_FOUND and (meant := mistyped(asked)):
            fault.remedy = f"Check the base URL: perhaps --base-url {meant} is meant."
    fault.status = status
    return fault


def _error_of_status(status: int, body: object, headers: Mapping[str, str]) -> AttemptError:
    if isinstance(body, list) and len(body) == 1:
        body = _error_in(body[0])  # Gemini
    error = _error_in(body)
    message = said(body) or "no message"
    reason = f"the server says: {message}" if status == _SUCCESS else f"HTTP {status}: {message}"
    if (fault := _fault_by_words(status, error, message, reason, headers)) is not None:
        return fault
    if status == 401 or UNAUTHORIZED.fits(status, error, message):
        return AttemptError(reason, Fate.KEY_SPENT, remedy=_KEY_REMEDY)
    if NO_MODEL.fits(status, error, message):
        return AttemptError(reason, Fate.REFUSED, remedy=_MODEL_REMEDY, no_model=True)
    pause_s = retry_after_s(headers)
    if passes(status, error, message):
        return AttemptError(f"{PASSING}: {reason}", Fate.AGAIN, pause_s=pause_s, outage=True)
    if status in _REFUSED:
        is_page = isinstance(body, str) and "json" not in headers.get("content-type", "")
        remedy = _GATEWAY_REMEDY if is_page and status == _FORBIDDEN else _REFUSED[status]
        return AttemptError(reason, Fate.REFUSED, remedy=remedy, no_model=status == _NOT_FOUND, is_page=is_page)
    if status not in _TRANSIENT and _SUCCESS < status < 500:
        if MORE_TOKENS.search(message):
            return AttemptError(f"the server wants a larger --max-out-len: {reason}", Fate.UNANSWERED)
        return AttemptError(reason, Fate.UNANSWERED, parameter=str(error.get("param") or ""))
    return AttemptError(reason, Fate.AGAIN, pause_s=pause_s, outage=status in _OUTAGE)


def _fault_by_words(
    status: int, error: Mapping[str, Any], message: str, reason: str, headers: Mapping[str, str]
) -> AttemptError | None:
    """The fault that the code or the words of an error name, whatever its status; None if they name none."""
    is_busy = status == _BUSY or RATE_LIMIT.fits(status, error, message)
    if status == 401 and OF_A_KEY.search(message):
        is_busy = False  # a wrong key that was tried too often is waited for in vain
    details = f"{message} {_dumped(error.get('details', ''))}"  # Gemini's say which quota it is and when to come back
    pause_s = retry_after_s(headers, details if is_busy else "")
    if CONTENT_FILTER.fits(status, error, message):
        return AttemptError(f"{FILTERED}: {reason}", Fate.UNANSWERED)
    is_too_long = not is_busy and CONTEXT_EXCEEDED.fits(status, error, message)
    if is_too_long or status == _TOO_LARGE or (is_busy and MORE_THAN_A_MINUTE.search(message)):
        return AttemptError(f"{TOO_LONG}: {reason}", Fate.UNANSWERED, too_long=True)
    if status == 402 or is_quota(status, error, details, pause_s):
        return AttemptError(reason, Fate.KEY_SPENT, remedy=_QUOTA_REMEDY)
    if not is_busy and WRONG_KEY.fits(status, error, message):
        return AttemptError(reason, Fate.KEY_SPENT, remedy=_KEY_REMEDY)
    return AttemptError(reason, Fate.AGAIN, pause_s=pause_s, busy=True) if is_busy else None


def _redirect(status: int, location: str, asked: str) -> AttemptError:
    """It is not followed: that would carry questions and keys to a host that was never chosen."""
    target, base_url = redirected(asked, location)
    if target == f"{asked}/":
        remedy = "The server wants a slash at the end of this path, as no such API does: change that at the server."
    elif base_url is None:
        remedy = (
            "It does not lead to the API: check the base URL, and whether the server or the network requires a login."
        )
    elif urlsplit(base_url).hostname == urlsplit(asked).hostname:
        remedy = f"Use --base-url {base_url}."
    else:
        remedy = f"If you trust that server with the questions and the API key, use --base-url {base_url}."
    return AttemptError(
        f"HTTP {status}: the server redirects to {one_line(target, 200) or 'nowhere'}", Fate.REFUSED, remedy=remedy
    )


def key_remedy(fault: AttemptError, *, sends_a_key: bool) -> str:
    """The remedy of a fault, which says of a refused key whether one was sent at all."""
    if not fault.is_of_key:
        return fault.remedy
    if sends_a_key:
        return "A key was sent: check it, or name another environment variable with --api-key-env NAME."
    return "No key was sent: name the environment variable that holds it with --api-key-env NAME."


def fault_of_body(body: object) -> AttemptError:
    """The fault behind a body that came with a success status but is not a chat completion."""
    error = error_in_success(body)
    told = body if error is None else error
    # Gateways such as OpenRouter pass on an error that occurred after they had sent the status, and some APIs never
    # send another one than 200.
    codes = (str(one.get(name)) for one in (_error_in(told), told) if isinstance(one, Mapping) for name in _CODE_KEYS)
    code = next(filter(_STATUS.fullmatch, codes), None)
    if error is not None or code is not None:
        return fault_of_status(int(code or _SUCCESS), told, {})
    message = said(body)
    is_page = isinstance(body, str) and _is_html(body)
    what = f'the text "{message}"' if isinstance(body, str) and body.strip() and not is_page else message
    return unexpected(what or "empty body", heard=not is_page)


def error_in_success(body: object) -> Mapping[str, Any] | None:
    """What describes an error in a body that came with a success status; None where nothing does.

    That is an ``error``, MiniMax's ``base_resp`` with a code, or, where there is no text, the body itself: one with a
    message and a code, or ``"success": false``, or no member that an error does not have.
    """
    if not isinstance(body, Mapping):
        return None
    if is_error(body.get("error")):
        return body
    base = body.get("base_resp")
    if isinstance(base, Mapping) and is_error(base.get("status_code")):
        return base
    message = next((body[name] for name in _MESSAGE_KEYS if body.get(name)), None)
    if body.get("choices") or isinstance(message, Mapping) or not is_error(message):
        return None
    status, *codes = (body.get(name) for name in ("status", *(name for name in _CODE_KEYS if name != "status")))
    is_one = body.get("success") is False or _FAILED.fullmatch(str(status)) or any(map(is_error, codes))
    return body if is_one or body.keys() <= _OF_AN_ERROR else None


def is_error(value: object) -> bool:
    """Whether the ``error`` of a body says that there is one, unlike "none" or ``{"code": 0, "message": "ok"}``."""
    if isinstance(value, Mapping):
        told = [value[name] for name in (*_CODE_KEYS, *_MESSAGE_KEYS, "type") if name in value]
        return any(map(is_error, told or value.values()))
    return bool(value) and value != 200 and not _NO_ERROR.fullmatch(str(value))


def unexpected(what: str, *, heard: bool = True) -> AttemptError:
    """The fault of a response that is not one of the API's."""
    return AttemptError(f"not a chat completion: {what}", Fate.AGAIN, remedy=_PAGE_REMEDY, heard=heard)


def said(body: object) -> str:
    """What a response body says, in one line: its message, a page's title, or all of it; "" for nothing."""
    if isinstance(body, Mapping):
        message = next((body[key] for key in _MESSAGE_KEYS if body.get(key)), None)
        return one_line(_dumped(body)) if message is None else said(message)
    if isinstance(body, str) and _is_html(body):
        title = _TITLE.search(body[:20_000])
        return f'an HTML page "{one_line(html.unescape(title[1]), 100)}"' if title else "an HTML page"
    if isinstance(body, str):
        return one_line(body)
    return "" if body is None else one_line(_dumped(body))


def _error_in(body: object) -> Mapping[str, Any]:
    """The part of a body that describes an error: its ``error`` member if it has one."""
    inner = body["error"] if isinstance(body, Mapping) and is_error(body.get("error")) else body
    if isinstance(inner, Mapping):
        return inner
    return {} if inner is None else {"message": inner}


def _is_html(text: str) -> bool:
    return _HTML.match(text[:4000]) is not None


def _dumped(body: object) -> str:
    return json.dumps(body, ensure_ascii=False, default=str)
