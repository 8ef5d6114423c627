"""What the errors of known servers say, in their codes and words: a spent quota, a content filter and the like."""

import re
from collections.abc import Collection, Mapping
from typing import Any


class Sign:
    """What the code or the message of an error looks like that means one thing, whatever its case.

    It does so with these HTTP ``statuses`` alone.
    """

    def __init__(self, statuses: Collection[int], codes: str, words: str) -> None:
        self.statuses = statuses
        self._codes = re.compile(codes, re.IGNORECASE)
        self.words = re.compile(words, re.IGNORECASE)

    def has_code(self, error: Mapping[str, Any]) -> bool:
        return any(self._codes.fullmatch(str(error[name])) for name in ("code", "type") if error.get(name))

    def is_in(self, error: Mapping[str, Any], message: str) -> bool:
        return self.has_code(error) or self.words.search(message) is not None

    def fits(self, status: int, error: Mapping[str, Any], message: str) -> bool:
        return status in self.statuses and self.is_in(error, message)


# Error codes of OpenAI, Moonshot, DashScope, Volcengine, Anthropic, OpenRouter, DeepSeek, Zhipu (a locked or unpaid
# account, a day's limit, a plan's), SiliconFlow (30001) and new-api.
QUOTA = Sign(
    (200, 400, 403, 412, 429),
    r"insufficient_?(user_?)?(quota|balance|credits?|funds)|exceeded_current_quota_error|billing_(hard_limit_reached|not_active)"
    r"|billing_error|arrearage|account_?overdue(error)?|set_?limit_?exceeded|pre_?consume_?token_?quota_?failed"
    r"|111[0-3]|1121|1304|1308|1309|131[01]|30001|budget_?exceeded|account_?quota_?exceeded|\w+_?bill_?overdue",
    r"insufficient_quota|exceeded your current quota|insufficient (account )?(balance|credits?|funds)"
    r"|balance is (insufficient|too low)|out of call volume quota|budget has been exceeded|monthly spending limit"
    r"|free tier\b.{0,40}\bexhausted|余额不足|账户余额|欠费|额度(不足|失败|已用(完|尽))|配额(不足|已用(完|尽))",
)
# AWS (ThrottlingException), Tencent (RequestLimitExceeded), Zhipu (1302, 1305), iFlytek (AppIdQpsOverFlowError,
# 10007, 11202, 11203: "秒级流控超限"; a day's limit, "日流控超限", is a quota).
RATE_LIMIT = Sign(
    (200, 400, 401, 403, 418, 420, 429),
    r"rate_?limit\w*|too_?many_?requests|throttling\w*|request_?limit_?exceeded|slow_?down|\w*qps\w*|130[25]|10007"
    r"|1120[23]",
    r"too many (concurrent |simultaneous )?requests|rate.?limit(s|ed)?\b|qps (request )?limit|\bslow down\b"
    r"|concurren(cy|t requests?) limit|reduce your request rate"
    r"|调用次数.{0,4}限额"
    r"|(请求|调用|访问)(次数)?(过于|太|过)(频繁|快|多)|(频率|速率|并发数?|流量)(已?达到?|过高|超限|超过|超出|受限|限制|上限)"
    r"|限流|限速|(?<!日)流控|每(秒|分钟?).{0,16}(上限|限制|超)|控制.{0,4}(频率|速率|并发)",
)
OF_A_KEY = re.compile(r"\bkeys?\b|token|credential|密钥|鉴权|认证", re.IGNORECASE)
# Gemini says "exceeded your current quota" of the requests a minute as well.
# DashScope calls tokens a minute "insufficient_quota".
_OF_A_MINUTE = re.compile(
    r"(?<!hour )(?<!week )(?<!month )(?<!free )allocated quota|error-code#(token|rate)-limit", re.IGNORECASE
)
_RATE_WORDS = re.compile(r"per[ _-]?(second|minute)|\b[rt]pm\b|(try again|retry) (in|after)|每(秒|分)", re.IGNORECASE)
# DashScope's and Volcengine's plans: "hour allocated quota exceeded", "exceeded the 5-hour usage quota".
_OF_A_PLAN = re.compile(
    r"\b(hour|week|month|free) allocated quota|\b(\d.hour|(week|month)(ly)?) (usage )?(quota|limit)\b", re.IGNORECASE
)
_OF_A_DAY = re.compile(r"per[ _-]?day|\b[rt]pd\b|\bdaily\b|今日|每[日天]", re.IGNORECASE)

# Gemini and xAI answer 400 to a wrong key.
WRONG_KEY = Sign(
    (200, 400, 403),
    r"(invalid|incorrect|wrong)_?api_?key|api_?key_?invalid",
    r"\b(invalid|incorrect|wrong|expired|missing)( or missing)? api[ _-]?key\b"
    r"|\bapi[ _-]?key\b( provided)?( is| has)? (not valid|invalid|incorrect|wrong|expired|missing|not found)"
    r"|(无效|错误|过期)的?(令牌|密钥|api ?key)|(令牌|密钥|api ?key)(无效|不正确|错误|不存在|已?过期|已?失效)",
)
# What stands for 401 where every status is 200: MiniMax ("login fail"), FastAPI ("Not authenticated") and others.
UNAUTHORIZED = Sign(
    (200,),
    r"un-?authori[sz]ed|unauthenticated|authentication_?(error|failed)|invalid_?(access_?)?token|token_?expired",
    r"\bun-?authori[sz]ed\b|\b(not |un-?)authenticated\b|\bauthentication (has )?(failed|error|(is )?required)\b"
    r"|\blog-?in fail|\btoken (is |has )?(expired|invalid\b)|\b(invalid|expired|missing) (access |auth\w* )?token$"
    r"|身份验证失败|(鉴权|认证|验签)失败|未(授权|登录|认证)|token\s?(非法|无效|已?过期|校验失败)",
)

# new-api and one-api say of a model that no channel has it: 503, "当前分组 default 下对于模型 m 无可用渠道".
NO_MODEL = Sign(
    (200, 400, 503),
    r"model_?not_?found|invalid_?model|model_?not_?exist\w*|deployment_?not_?found",
    r"\bmodel\b.{0,100}?\b(does not|doesn't|not) exist\b|\bmodel\b.{0,100}?\bnot found\b"
    r"|\b(no such|unknown|invalid) model\b|\bno healthy deployments?\b"
    r"|模型.{0,50}?不存在|无可用(的)?渠道|\bno available channels?\b",
)

# What gateways say of trouble behind them: one-api and new-api (upstream_error, bad_response_status_code),
# SiliconFlow (50505, "System is too busy now"), Anthropic (overloaded_error).
TRANSIENT = Sign(
    (200, 400, 404, 418, 420, 422),
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

# OpenAI, Azure (content_filter, ResponsibleAIPolicyViolation), DashScope (data_inspection_failed), Volcengine
# (SensitiveContentDetected), Zhipu (1301), Moonshot (content_filter), MiniMax ("input new_sensitive").
CONTENT_FILTER = Sign(
    (200, 400, 403, 421, 422, 451),
    r"content_?filter\w*|data_?inspection_?failed|content_?policy\w*|responsible_?ai\w*|\w*sensitive\w*|1301"
    r"|content_moderation\w*|moderation_blocked|prohibited_content",
    r"inappropriate content|content (filter|management policy|policy|moderation)|sensitive (content|information|words?)"
    r"|new_sensitive|considered (high risk|unsafe)"
    r"|(input|prompt|content|message|request)s? (was|were) flagged"
    r"|敏感|不当内容|违规内容|内容安全|不安全内容|审核(未|不)通过",
)

# OpenAI (context_length_exceeded), vLLM, lmdeploy, SGLang, TGI ("`inputs` tokens + `max_new_tokens` must be"),
# llama.cpp (exceed_context_size_error), DashScope ("Range of input length should be"), Zhipu (1261, "Prompt 超长"),
# Moonshot ("exceeded model token limit"), Gemini, Anthropic ("prompt is too long").
CONTEXT_EXCEEDED = Sign(
    (200, 400, 422),
    r"context_?length_?exceeded|exceed_context_size_error|context_?window_?exceeded\w*|prompt_too_long|1261",
    r"context.?(length|window|size|limit)|max(imum)? (model|input|sequence|prompt) length|max_(model|seq)_len"
    r"|\b(inputs?|prompts?|messages?)\b.{0,80}\b(too (long|large)|longer than|exceed(s|ed)?|must have less than)\b"
    r"|\binputs\b.{0,9}\+ `?max_new_tokens|range of input length|reduce the length of the (messages|input|prompt)"
    r"|token (count|length|limit)s?.{0,40}\bexceed|exceed\w*\b.{0,40}\b(token (limit|length)|message tokens)"
    r"|上下文.{0,10}(长度|超|限制)|(输入|提示词?|prompt|内容|token).{0,20}(超长|过长|超出|超过)",
)
# OpenAI and Groq: one request has more tokens than the limit of a minute, so that no wait helps.
MORE_THAN_A_MINUTE = re.compile(r"request too large", re.IGNORECASE)

MORE_TOKENS = re.compile(
    r"(max_(completion_|new_|output_)?tokens\b|最大(输出|生成|回复)?\s*(长度|token)|最大输出).{0,60}"
    r"(at least|greater than or equal|minimum|too (small|low)|至少|不低于|不(能|得|可|应)?小于|过小|太小|大于等于)",
    re.IGNORECASE,
)


def passes(status: int, error: Mapping[str, Any], message: str) -> bool:
    """Whether an error is one of those that pass by themselves."""
    if status not in TRANSIENT.statuses or NO_MODEL.has_code(error):
        return False
    if TRANSIENT.words.search(message):
        return True
    may_pass = TRANSIENT.has_code(error) or _TRY_AGAIN.search(message) is not None
    return may_pass and not (error.get("param") or _ANOTHER_REQUEST.search(message))


def is_quota(status: int, error: Mapping[str, Any], message: str, pause_s: float | None) -> bool:
    """Whether an error says that what is paid for is used up, and not that requests come too fast."""
    if status not in QUOTA.statuses or _OF_A_MINUTE.search(message):
        return False
    if QUOTA.has_code(error) or (pause_s is None and _OF_A_PLAN.search(message)):
        return True
    if pause_s is None and RATE_LIMIT.is_in(error, message) and _OF_A_DAY.search(message):
        return not _RATE_WORDS.search(message)
    # A rate limit is often worded like a spent quota; a server that says when to come back means the former.
    if pause_s is not None or RATE_LIMIT.has_code(error) or _RATE_WORDS.search(message):
        return False
    return QUOTA.words.search(message) is not None
