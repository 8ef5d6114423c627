"""An API's error that comes as the text of a reply with status 200: asked again, and never a wrong answer."""

import pytest
from aiohttp import web

from bundle.client import NoReplyError
from bundle.client._early_decisions import EarlyDecisions
from bundle.client._error_texts import is_error_text
from bundle.tasks.answers import AllOptions, AnswerRule, FirstCapital, FirstOption, Pattern
from tests.client.test_early_decisions import EXPLAINED, ask_all
from tests.evaluation.asking import MESSAGES, client_of
from tests.openai_api import Call, chunks_of, completion, loopback_api, send_stream

ERRORS = [
    "当前服务器繁忙，请稍后再试。",
    "哎呀，出错了，请联系客服处理",
    "请求超时，请重试",
    "当前API请求过多，请稍后再试",
    "当前分组上游负载已饱和，请稍后再试 (request id: 20261127)",
    "账户余额不足",
    "账户余额为零，请及时充值",
    "The server had an error while processing your request. You can retry your request, or contact us.",
    "系统繁忙，您可以稍后再次尝试",
    "Error: 429 Too Many Requests",
    "Error code: 401 - {'error': {'message': 'Incorrect API key provided'}}",
    "API Error: Request timed out.",
    "Internal Server Error",
    "internal error happened",
    "CUDA out of memory. Tried to allocate 2.00 GiB",
    "A server error occurred. Please try again later.",
    "A rate limit was exceeded. Please retry after 20 seconds.",
    "An error occurred while processing your request. Please retry.",
    "Sorry, something went wrong. Please try again.",
    "You exceeded your current quota, please check your plan and billing details.",
    "**NETWORK ERROR DUE TO HIGH TRAFFIC. PLEASE REGENERATE OR REFRESH THIS PAGE.**",
    "upstream connect error or disconnect/reset before headers. reset reason: connection failure",
    '{"error": {"message": "Rate limit reached for gpt-4", "code": "rate_limit_exceeded"}}',
    '{"code": 50001, "msg": "worker lost"}',
    "<html><head><title>502 Bad Gateway</title></head></html>",
]
REPLIES = [
    "D",
    "答案是D。服务器负载过高时请稍后重试。",
    "D. 服务器繁忙，请稍后再试",
    '{"answer": "D"}',
    "抱歉，我无法回答这个问题。",
    "I cannot answer this question.",
    "流量控制和拥塞控制都会限制发送速率",
    "可能出现超时或连接错误",
    "他失败了，但没有放弃，终于成功",
    "The error in the statement is the limit of the series",
    "The traffic exceeded the limit. " * 20,
    "A is correct: the first attempt failed, and a later one succeeded.",
    "A because after a timeout the sender will retry.",
    "An error in the premise: the limit is only reached later",
    "“盈余公积”账户余额",
    "注册会计师应当对所有交易、账户余额和披露实施实质性程序",
    "超时后重试的机制",
    "HTML 语言用标签描述网页",
    "抱歉，题目存在错误，请提供正确的题目后再试。",
]
RULES = [FirstCapital(), FirstOption("ABCD"), AllOptions("ABCD")]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@pytest.mark.parametrize("text", ERRORS)
def test_an_error_in_words_or_as_json_is_known(text: str, rule: AnswerRule) -> None:
    assert is_error_text(text, rule, "ABCD")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@pytest.mark.parametrize("text", REPLIES)
def test_what_a_model_says_is_none(text: str, rule: AnswerRule) -> None:
    assert not is_error_text(text, rule, "ABCD")


def test_a_text_in_which_the_tasks_rule_finds_an_answer_is_none() -> None:
    assert not is_error_text("HTTP 503", Pattern(r"(\d+)"), "")
    assert is_error_text("HTTP 503", Pattern(r"答案是(\d+)"), "")


@pytest.mark.parametrize("text", [ERRORS[0], ERRORS[-3]])
async def test_such_a_reply_is_asked_again(text: str) -> None:
    async def handler(call: Call) -> web.Response:
        return completion("D" if call.number > 1 else text)

    reading = EarlyDecisions(FirstCapital(), tls=False, options="ABCD")
    async with loopback_api(handler) as api, client_of(api.url, stream="never") as client:
        reply = await client.ask(MESSAGES, 64, reading=reading)
        assert (reply.text, reply.attempts) == ("D", 2)


async def test_from_a_server_of_our_own_it_is_the_models_text() -> None:
    async def handler(call: Call) -> web.Response:
        return completion(ERRORS[0], model="m")

    reading = EarlyDecisions(FirstCapital(), tls=False, options="ABCD")
    async with loopback_api(handler) as api, client_of(api.url, ours=True, stream="never") as client:
        assert (await client.ask(MESSAGES, 64, reading=reading)).text == ERRORS[0]


async def test_a_question_that_gets_nothing_else_has_no_reply() -> None:
    async def handler(call: Call) -> web.Response:
        return completion(ERRORS[0])

    reading = EarlyDecisions(FirstCapital(), tls=False, options="ABCD")
    async with loopback_api(handler) as api, client_of(api.url, retries=1, stream="never") as client:
        with pytest.raises(NoReplyError, match="an error as the text of a reply: 当前服务器繁忙"):
            await client.ask(MESSAGES, 64, reading=reading)


async def test_such_a_reply_is_no_answer_where_replies_are_stopped_early() -> None:
    async def handler(call: Call) -> web.StreamResponse:
        return await send_stream(
            call, chunks_of(["A server error occurred. Try again."] if call.number == 10 else EXPLAINED)
        )

    replies = await ask_all(handler, 10, options="ABCD")

    assert replies[8].decided_early
    assert [reply.text[:5] for reply in replies[8:]] == ["答案是B。"] * 2
