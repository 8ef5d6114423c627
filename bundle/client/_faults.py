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


class _Sign:
    """What the code or the message of an error looks like that means one thing, whatever its case."""

    def __init__(self, codes: str, words: str) -> None:
        self._codes = re.compile(codes, re.IGNORECASE)
        self.words = re.compile(words, re.IGNORECASE)

    def has_code(self, error: Mapping[str, Any]) -> bool:
        return any(self._codes.fullmatch(str(error[name])) for name in ("code", "type") if error.get(name))

    def is_in(self, error: Mapping[str, Any], message: str) -> bool:
        return self.has_code(error) or self.words.search(message) is not None


_SUCCESS, _BUSY, _FORBIDDEN, _NOT_FOUND, _TOO_LARGE = 200, 429, 403, 404, 413
_TRANSIENT = frozenset({408, 409, 421, 424, 425, _BUSY, 499})  # 424 of TGI, 499 of nginx and others
_OUTAGE = frozenset({502, 503, 504, 520, 521, 522, 523, 524, 529})  # of gateways, Cloudflare and Anthropic
_MAY_PASS = frozenset({200, 400, 404, 418, 420, 422})
_REFUSED = {
    403: "Check that the API key may use this model.",
    404: "Check the model name and the base URL: it ends in /v1, or is given up to /chat/completions.",
    405: "Check the base URL: there is no chat API at this address.",
    407: "The proxy requires a login: put it into HTTPS_PROXY, or add the host to NO_PROXY.",
    410: "Check the base URL and the model name: the server says that they were removed.",
}
_KEY_REMEDY = "Check the API key."
_MODEL_REMEDY = "Check the model name: it must be one that the server lists."
NETWORK_REMEDY = "Check the base URL and the network; a proxy can be set with HTTPS_PROXY."
LOOPBACK_REMEDY = "Check the base URL and its port, and that the server is running."
_GATEWAY_REMEDY = (
    "A gateway answered in the API's place: check the base URL, and whether it lets this machine and program through."
)
_PAGE_REMEDY = "Check the base URL, which usually ends in /v1, and whether the network requires a login."
_QUOTA_REMEDY = (
    "Wait for the quota to renew, or set another key (several are separated by commas), then continue with "
    "`bundle resume`."
)

# Error codes of OpenAI, Moonshot, DashScope, Volcengine, Anthropic, OpenRouter, DeepSeek, Zhipu (1113), SiliconFlow
# (30001) and new-api.
_QUOTA = _Sign(
    r"insufficient_?(user_?)?(quota|balance|credits?|funds)|exceeded_current_quota_error|billing_(hard_limit_reached|not_active)"
    r"|billing_error|arrearage|account_?overdue(error)?|set_?limit_?exceeded|pre_?consume_?token_?quota_?failed|1113"
    r"|30001|budget_?exceeded",
    r"insufficient_quota|exceeded your current quota|insufficient (account )?(balance|credits?|funds)"
    r"|balance is (insufficient|too low)|out of call volume quota|budget has been exceeded|monthly spending limit"
    r"|free tier\b.{0,40}\bexhausted|余额不足|账户余额|欠费|额度(不足|失败|已用(完|尽))|配额(不足|已用(完|尽))",
)
# AWS (ThrottlingException), Tencent (RequestLimitExceeded), Zhipu (1302, 1305), iFlytek (AppIdQpsOverFlowError,
# 10007, 11202, 11203: "秒级流控超限"; a day's limit, "日流控超限", is a quota).
_RATE_LIMIT = _Sign(
    r"rate_?limit\w*|too_?many_?requests|throttling\w*|request_?limit_?exceeded|slow_?down|\w*qps\w*|130[25]|10007"
    r"|1120[23]",
    r"too many (concurrent |simultaneous )?requests|rate.?limit(s|ed)?\b|qps (request )?limit|\bslow down\b"
    r"|concurren(cy|t requests?) limit|reduce your request rate"
    r"|调用次数.{0,4}限额"
    r"|(请求|调用|访问)(次数)?(过于|太|过)(频繁|快|多)|(频率|速率|并发数?|流量)(已?达到?|过高|超限|超过|超出|受限|限制|上限)"
    r"|限流|限速|(?<!日)流控|每(秒|分钟?).{0,16}(上限|限制|超)|控制.{0,4}(频率|速率|并发)",
)
_MAY_LIMIT = frozenset({200, 400, 401, 403, 418, 420, _BUSY})
_OF_A_KEY = re.compile(r"\bkeys?\b|token|credential|密钥|鉴权|认证", re.IGNORECASE)
# Gemini says "exceeded your current quota" of the requests a minute as well.
# DashScope calls tokens a minute "insufficient_quota".
_OF_A_MINUTE = re.compile(r"allocated quota|error-code#(token|rate)-limit", re.IGNORECASE)
_RATE_WORDS = re.compile(r"per[ _-]?(second|minute)|\b[rt]pm\b|(try again|retry) (in|after)|每(秒|分)", re.IGNORECASE)
_OF_A_DAY = re.compile(r"per[ _-]?day|\b[rt]pd\b|\bdaily\b|今日|每[日天]", re.IGNORECASE)

# Gemini and xAI answer 400 to a wrong key.
_WRONG_KEY = _Sign(
    r"(invalid|incorrect|wrong)_?api_?key|api_?key_?invalid",
    r"\b(invalid|incorrect|wrong|expired|missing)( or missing)? api[ _-]?key\b"
    r"|\bapi[ _-]?key\b( provided)?( is| has)? (not valid|invalid|incorrect|wrong|expired|missing|not found)"
    r"|(无效|错误|过期)的?(令牌|密钥|api ?key)|(令牌|密钥|api ?key)(无效|不正确|错误|不存在|已?过期|已?失效)",
)
_MAY_BE_A_WRONG_KEY = frozenset({200, 400, 403})
# What stands for 401 where every status is 200: MiniMax ("login fail"), FastAPI ("Not authenticated") and others.
_UNAUTHORIZED = _Sign(
    r"un-?authori[sz]ed|unauthenticated|authentication_?(error|failed)|invalid_?(access_?)?token|token_?expired",
    r"\bun-?authori[sz]ed\b|\b(not |un-?)authenticated\b|\bauthentication (has )?(failed|error|(is )?required)\b"
    r"|\blog-?in fail|\btoken (is |has )?(expired|invalid\b)|\b(invalid|expired|missing) (access |auth\w* )?token$"
    r"|身份验证失败|(鉴权|认证|验签)失败|未(授权|登录|认证)|token\s?(非法|无效|已?过期|校验失败)",
)

# new-api and one-api say of a model that no channel has it: 503, "当前分组 default 下对于模型 m 无可用渠道".
_NO_MODEL = _Sign(
    r"model_?not_?found|invalid_?model|model_?not_?exist\w*|deployment_?not_?found",
    r"\bmodel\b.{0,100}?\b(does not|doesn't|not) exist\b|\bmodel\b.{0,100}?\bnot found\b"
    r"|\b(no such|unknown|invalid) model\b|\bno healthy deployments?\b"
    r"|模型.{0,50}?不存在|无可用(的)?渠道|\bno available channels?\b",
)
_MAY_HAVE_NO_MODEL = frozenset({200, 400, 503})

# What gateways say of trouble behind them: one-api and new-api (upstream_error, bad_response_status_code),
# SiliconFlow (50505, "System is too busy now"), Anthropic (overloaded_error).
_PASSING = _Sign(
    r"upstream\w*|bad_response\w*|\w*overload\w*|server_(busy|error)|service_?unavailable\w*|50505",
    r"\bupstream[_ ](error|time|fail|service|server|connect)|\boverload(ed)?\b|\b(too|is|are|currently|server) busy\b"
    r"|\b(try|retry)\b.{0,9}\blater\b|temporar(y|ily) \w*\s?(unavailable|failure|error|issue|problem|overload)"
    r"|bad response status code 5\d\d|internal server error|service (is )?(currently )?unavailable"
    r"|\bmodel (has )?(crashed|unloaded)|\bmodel\b.{0,80}\bis (currently |still )?loading"
    r"|(系统|服务器?|引擎|模型)[^，。]{0,4}(繁忙|忙碌)|(稍|请)[后候](再|重)?试|稍后.{0,4}重试|负载(已|过|较)|过载|超载"
    r"|(暂时|暂|服务)不可用|服务器?(内部)?(异常|错误)|上游.{0,4}(服务|负载|错误|超时|失败|异常)",
)
_TRY_AGAIN = re.compile(r"\btry(ing)? again\b|重试", re.IGNORECASE)
_ANOTHER_REQUEST = re.compile(
    r"\b(invalid|check|correct|fix|modify|changing|remov(e|ing)|reduc(e|ing)|shorten(ing)?|different|another)\b"
    r"|support|检查|修改|更换|缩短|减少|支持|非法|无效|有误",
    re.IGNORECASE,
)
"""Says that something else should be asked, and not the same later."""
PASSING = "temporary server fault"

# OpenAI, Azure (content_filter, ResponsibleAIPolicyViolation), DashScope (data_inspection_failed), Volcengine
# (SensitiveContentDetected), Zhipu (1301), Moonshot (content_filter), MiniMax ("input new_sensitive").
_CONTENT_FILTER = _Sign(
    r"content_?filter\w*|data_?inspection_?failed|content_?policy\w*|responsible_?ai\w*|\w*sensitive\w*|1301"
    r"|content_moderation\w*|moderation_blocked|prohibited_content",
    r"inappropriate content|content (filter|management policy|policy|moderation)|sensitive (content|information|words?)"
    r"|new_sensitive|considered (high risk|unsafe)"
    r"|(input|prompt|content|message|request)s? (was|were) flagged"
    r"|敏感|不当内容|违规内容|内容安全|不安全内容|审核(未|不)通过",
)
_MAY_FILTER = frozenset({200, 400, 403, 421, 422, 451})
FILTERED = "the content filter refused the question"

# OpenAI (context_length_exceeded), vLLM, lmdeploy, SGLang, TGI ("`inputs` tokens + `max_new_tokens` must be"),
# llama.cpp (exceed_context_size_error), DashScope ("Range of input length should be"), Zhipu (1261, "Prompt 超长"),
# Moonshot ("exceeded model token limit"), Gemini, Anthropic ("prompt is too long").
_CONTEXT_EXCEEDED = _Sign(
    r"context_?length_?exceeded|exceed_context_size_error|context_?window_?exceeded\w*|prompt_too_long|1261",
    r"context.?(length|window|size|limit)|max(imum)? (model|input|sequence|prompt) length|max_(model|seq)_len"
    r"|\b(inputs?|prompts?|messages?)\b.{0,80}\b(too (long|large)|longer than|exceed(s|ed)?|must have less than)\b"
    r"|\binputs\b.{0,9}\+ `?max_new_tokens|range of input length|reduce the length of the (messages|input|prompt)"
    r"|token (count|length|limit)s?.{0,40}\bexceed|exceed\w*\b.{0,40}\b(token (limit|length)|message tokens)"
    r"|上下文.{0,10}(长度|超|限制)|(输入|提示词?|prompt|内容|token).{0,20}(超长|过长|超出|超过)",
)
_MAY_BE_A_QUOTA = frozenset({200, 400, 403, 412, _BUSY})
_MAY_BE_TOO_LONG = frozenset({200, 400, 422})
# OpenAI and Groq: one request has more tokens than the limit of a minute, so that no wait helps.
_MORE_THAN_A_MINUTE = re.compile(r"request too large", re.IGNORECASE)
TOO_LONG = "prompt and reply exceed the model's context"

_CODE_KEYS = ("code", "status", "status_code", "error_code", "errcode", "err_code", "errno")
_STATUS = re.compile("[45][0-9]{2}")
_NO_ERROR = re.compile(
    r"\s*(0|200|none|null|nil|undefined|false|n/a|-|ok(ay)?|success(ful|fully)?|succeed(ed)?|no[ _]?errors?"
    r"|(请求|操作|调用|执行|处理|返回)?(成功|正常)|无(错误)?)[.!。！]?\s*",
    re.IGNORECASE,
)
_MORE_TOKENS = re.compile(
    r"(max_(completion_|new_|output_)?tokens\b|最大(输出|生成|回复)?\s*(长度|token)|最大输出).{0,60}"
    r"(at least|greater than or equal|minimum|too (small|low)|至少|不低于|不(能|得|可|应)?小于|过小|太小|大于等于)",
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
    if status == 401 or (status == _SUCCESS and _UNAUTHORIZED.is_in(error, message)):
        return AttemptError(reason, Fate.KEY_SPENT, remedy=_KEY_REMEDY)
    if status in _MAY_HAVE_NO_MODEL and _NO_MODEL.is_in(error, message):
        return AttemptError(reason, Fate.REFUSED, remedy=_MODEL_REMEDY, no_model=True)
    pause_s = retry_after_s(headers)
    if status in _MAY_PASS and _passes(error, message) and not _NO_MODEL.has_code(error):
        return AttemptError(f"{PASSING}: {reason}", Fate.AGAIN, pause_s=pause_s, outage=True)
    if status in _REFUSED:
        is_page = isinstance(body, str) and "json" not in headers.get("content-type", "")
        remedy = _GATEWAY_REMEDY if is_page and status == _FORBIDDEN else _REFUSED[status]
        return AttemptError(reason, Fate.REFUSED, remedy=remedy, no_model=status == _NOT_FOUND, is_page=is_page)
    if status not in _TRANSIENT and _SUCCESS < status < 500:
        if _MORE_TOKENS.search(message):
            return AttemptError(f"the server wants a larger --max-out-len: {reason}", Fate.UNANSWERED)
        return AttemptError(reason, Fate.UNANSWERED, parameter=str(error.get("param") or ""))
    return AttemptError(reason, Fate.AGAIN, pause_s=pause_s, outage=status in _OUTAGE)


def _fault_by_words(
    status: int, error: Mapping[str, Any], message: str, reason: str, headers: Mapping[str, str]
) -> AttemptError | None:
    """The fault that the code or the words of an error name, whatever its status; None if they name none."""
    is_busy = status == _BUSY or (status in _MAY_LIMIT and _RATE_LIMIT.is_in(error, message))
    if status == 401 and _OF_A_KEY.search(message):
        is_busy = False  # a wrong key that was tried too often is waited for in vain
    details = f"{message} {_dumped(error.get('details', ''))}"  # Gemini's say which quota it is and when to come back
    pause_s = retry_after_s(headers, details if is_busy else "")
    if status in _MAY_FILTER and _CONTENT_FILTER.is_in(error, message):
        return AttemptError(f"{FILTERED}: {reason}", Fate.UNANSWERED)
    is_too_long = status in _MAY_BE_TOO_LONG and not is_busy and _CONTEXT_EXCEEDED.is_in(error, message)
    if is_too_long or status == _TOO_LARGE or (is_busy and _MORE_THAN_A_MINUTE.search(message)):
        return AttemptError(f"{TOO_LONG}: {reason}", Fate.UNANSWERED, too_long=True)
    if status == 402 or (status in _MAY_BE_A_QUOTA and _is_quota(error, details, pause_s)):
        return AttemptError(reason, Fate.KEY_SPENT, remedy=_QUOTA_REMEDY)
    if status in _MAY_BE_A_WRONG_KEY and not is_busy and _WRONG_KEY.is_in(error, message):
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


def _passes(error: Mapping[str, Any], message: str) -> bool:
    if _PASSING.words.search(message):
        return True
    may_pass = _PASSING.has_code(error) or _TRY_AGAIN.search(message) is not None
    return may_pass and not (error.get("param") or _ANOTHER_REQUEST.search(message))


def _is_quota(error: Mapping[str, Any], message: str, pause_s: float | None) -> bool:
    if _OF_A_MINUTE.search(message):
        return False
    if _QUOTA.has_code(error):
        return True
    if pause_s is None and _RATE_LIMIT.is_in(error, message) and _OF_A_DAY.search(message):
        return not _RATE_WORDS.search(message)
    # A rate limit is often worded like a spent quota; a server that says when to come back means the former.
    if pause_s is not None or _RATE_LIMIT.has_code(error) or _RATE_WORDS.search(message):
        return False
    return _QUOTA.words.search(message) is not None


def _dumped(body: object) -> str:
    return json.dumps(body, ensure_ascii=False, default=str)
