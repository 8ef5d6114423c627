"""Why an attempt brought no reply, and what that means for the question and for the run."""

import asyncio
import enum
import re
import ssl
from collections.abc import Mapping
from typing import Any

import aiohttp

from bundle.client.backoff import LONGEST_WAIT_S, retry_after_s
from bundle.client.wording import chain, described, error_in, is_html, said
from bundle.system.text import one_line


class Fate(enum.Enum):
    """What an attempt without a reply is followed by."""

    AGAIN = "the fault passes: the question is asked again"
    UNANSWERED = "this question would meet it again: it stays without a reply"
    REFUSED = "every question would meet it, unless the server has answered others"
    KEY_SPENT = "every question with this key would meet it"


class AttemptError(Exception):
    """One attempt brought no reply.

    Attributes:
        reason: Why, in one line.
        fate: What follows.
        remedy: What the user can do where it ends the run.
        pause_s: Seconds to wait as the server asks, None where it did not.
        busy: Whether the server said that it is asked too often.
        heard: Whether what answered, if anything did, may be the server that is meant.
    """

    def __init__(
        self,
        reason: str,
        fate: Fate,
        *,
        remedy: str = "Check the base URL, the API key and the model's name.",
        pause_s: float | None = None,
        busy: bool = False,
        heard: bool = True,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fate = fate
        self.remedy = remedy
        self.pause_s = pause_s
        self.busy = busy
        self.heard = heard


_BUSY = 429
_PASSING = frozenset({408, 409, 425, _BUSY})
_REFUSED = {
    403: "Check that the API key may use this model.",
    404: "Check the base URL, which usually ends in /v1, and the model's name. A base URL that has no version is taken "
    "as it is where it is given with /chat/completions at its end.",
    405: "Check the base URL: what answers there is no chat API.",
    407: "The proxy wants a login: put it into the variable HTTPS_PROXY, or name the host in NO_PROXY.",
    410: "Check the base URL and the model's name: what they name was there and is gone.",
}
_KEY_REMEDY = "Check the API key."
_MODEL_REMEDY = "Check the model's name: it must be the one the server lists."
_NOBODY_REMEDY = "Check the base URL and the network; a proxy is named in HTTPS_PROXY."
_PAGE_REMEDY = "Check the base URL, which usually ends in /v1, and whether the network wants a login."
_QUOTA_REMEDY = (
    "Wait until there is quota again, or give another key (several are separated by commas), and go on with --resume."
)

# What servers call it: OpenAI, Moonshot, DashScope, Volcengine, Anthropic, OpenRouter, DeepSeek, Zhipu (1113).
_QUOTA_CODES = re.compile(
    r"insufficient_?(quota|balance|credits?|funds)|exceeded_current_quota_error|billing_(hard_limit_reached|not_active)"
    r"|billing_error|arrearage|account_?overdue(error)?|1113",
    re.IGNORECASE,
)
_QUOTA_WORDS = re.compile(
    r"insufficient_quota|exceeded your current quota|insufficient (account )?(balance|credits?|funds)"
    r"|credit balance is too low|余额不足|账户余额|欠费|额度已用(完|尽)|配额已用(完|尽)",
    re.IGNORECASE,
)
_RATE_CODES = re.compile(r"rate_limit\w*|too_?many_?requests|throttling\w*", re.IGNORECASE)
# Gemini says "exceeded your current quota" of the requests a minute as well.
_RATE_WORDS = re.compile(r"per[ _-]?(second|minute)|\b[rt]pm\b|(try again|retry) (in|after)|每(秒|分)", re.IGNORECASE)

_NO_MODEL_CODES = re.compile(r"model_?not_?found|invalid_?model|model_?not_?exist\w*", re.IGNORECASE)
_NO_MODEL_WORDS = re.compile(
    r"\bmodel\b.{0,100}?\b(does not|doesn't|not) exist\b|\bmodel\b.{0,100}?\bnot found\b"
    r"|\b(no such|unknown|invalid) model\b|模型.{0,50}?不存在",
    re.IGNORECASE,
)


def fault_of_status(status: int, body: object, headers: Mapping[str, str]) -> AttemptError:
    """What an answer with this status means.

    Args:
        status: The HTTP status, or the one a body names that came with 200.
        body: The body, or its ``error`` member.
        headers: The answer's headers.
    """
    error = error_in(body)
    message = said(body) or "no message"
    reason = f"HTTP {status}: {message}"
    pause_s = retry_after_s(headers)
    if 300 <= status < 400:
        return AttemptError(
            f"HTTP {status}: it sends requests on to {one_line(headers.get('location', 'nowhere'), 200)}",
            Fate.REFUSED,
            remedy="Give the base URL that requests are sent on to, if you trust it.",
        )
    if status == 401:
        return AttemptError(reason, Fate.KEY_SPENT, remedy=_KEY_REMEDY)
    if status == 402 or (status in (400, 403, _BUSY) and _is_quota(error, message, pause_s)):
        return AttemptError(reason, Fate.KEY_SPENT, remedy=_QUOTA_REMEDY)
    if status == 400 and _is_no_model(error, message):
        return AttemptError(reason, Fate.REFUSED, remedy=_MODEL_REMEDY)
    if status in _REFUSED:
        return AttemptError(reason, Fate.REFUSED, remedy=_REFUSED[status])
    if status not in _PASSING and status < 500:
        return AttemptError(reason, Fate.UNANSWERED)
    if pause_s is not None and pause_s > LONGEST_WAIT_S:
        reason = f"{reason} (asks to wait {pause_s:.0f} s)"
        fate = Fate.KEY_SPENT if status == _BUSY else Fate.UNANSWERED
        return AttemptError(reason, fate, remedy=_QUOTA_REMEDY)
    return AttemptError(reason, Fate.AGAIN, pause_s=pause_s, busy=status == _BUSY)


def fault_of_connection(error: BaseException, timeout_s: float) -> AttemptError:
    """What it means that the connection failed: it was not made, broke off or took too long."""
    errors = chain(error)
    cause = errors[-1]
    if isinstance(cause, ssl.SSLCertVerificationError):
        return AttemptError(
            f"the server's certificate is not valid: {one_line(cause.verify_message or str(cause), 200)}",
            Fate.REFUSED,
            remedy="Check the base URL. Where your network has its own certificate, name its file in SSL_CERT_FILE.",
        )
    if any(isinstance(one, aiohttp.ConnectionTimeoutError) for one in errors):
        return AttemptError("the server does not take the connection", Fate.AGAIN, remedy=_NOBODY_REMEDY, heard=False)
    if isinstance(cause, TimeoutError | asyncio.CancelledError):
        return AttemptError(f"no reply within {timeout_s:g} s", Fate.AGAIN)
    made = not any(isinstance(one, aiohttp.ClientConnectorError) for one in errors)
    return AttemptError(f"connection failed: {described(cause)}", Fate.AGAIN, remedy=_NOBODY_REMEDY, heard=made)


def fault_of_body(body: object) -> AttemptError:
    """What a body means that came with a good status and is no completion."""
    error = body.get("error") if isinstance(body, Mapping) else None
    if error:
        # Gateways such as OpenRouter pass an error on that came after they had promised success.
        code = error_in(body).get("code")
        if isinstance(code, int) and 400 <= code < 600:
            return fault_of_status(code, body, {})
        if _is_quota(error_in(body), said(body), None):
            return AttemptError(f"the server says: {said(body)}", Fate.KEY_SPENT, remedy=_QUOTA_REMEDY)
        return AttemptError(f"the server says: {said(body)}", Fate.AGAIN)
    return AttemptError(
        f"the reply is not what the API promises: {said(body) or 'nothing'}",
        Fate.AGAIN,
        remedy=_PAGE_REMEDY,
        heard=not (isinstance(body, str) and is_html(body)),
    )


def _is_quota(error: Mapping[str, Any], message: str, pause_s: float | None) -> bool:
    codes = _codes(error)
    if any(_QUOTA_CODES.fullmatch(code) for code in codes):
        return True
    # A limit that passes is worded like one that does not; who says when to come back means the former.
    if pause_s is not None or any(_RATE_CODES.fullmatch(code) for code in codes) or _RATE_WORDS.search(message):
        return False
    return _QUOTA_WORDS.search(message) is not None


def _is_no_model(error: Mapping[str, Any], message: str) -> bool:
    return any(_NO_MODEL_CODES.fullmatch(code) for code in _codes(error)) or bool(_NO_MODEL_WORDS.search(message))


def _codes(error: Mapping[str, Any]) -> list[str]:
    return [str(error[name]) for name in ("code", "type") if error.get(name)]
