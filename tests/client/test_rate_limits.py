"""What says that a server is asked too often, whatever the status; what sounds like it and is not."""

from typing import Any

import pytest

from bundle.client._faults import Fate, fault_of_body, fault_of_status


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "触发每分钟请求数上限，请稍后再试"),
        (400, "您的请求已达到速率限制，请控制请求频率"),
        (400, "每分钟 token 数超过限制"),
        (400, "请求过快"),
        (400, "秒级流控超限"),
        (401, "too many requests, slow down"),
        (403, "Concurrency limit reached"),
        (418, "too many requests"),
    ],
)
def test_a_rate_limit_is_told_by_its_words(status: int, message: str) -> None:
    fault = fault_of_status(status, {"error": {"message": message}}, {})

    assert (fault.busy, fault.fate, fault.status) == (True, Fate.AGAIN, status)


@pytest.mark.parametrize("message", ["Allocated quota exceeded", "your quota, see https://x/error-code#token-limit"])
def test_tokens_a_minute_that_are_called_a_quota_are_a_rate_limit(message: str) -> None:  # DashScope
    error = {"message": message, "type": "insufficient_quota", "code": "insufficient_quota"}
    fault = fault_of_status(429, {"error": error}, {})

    assert (fault.busy, fault.fate) == (True, Fate.AGAIN)


@pytest.mark.parametrize(
    "body",
    [
        {"code": 10007, "message": "用户流量受限：服务正在处理用户当前的问题，需等待处理完成后再发送新的请求"},
        {"code": 11203, "message": "licc limit"},
        {"code": 429, "msg": "slow"},
        {"status": "429", "message": "slow"},
        {"error": "slow", "code": 429},
        {"error": {"code": 429, "message": "slow"}},
        {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}, "choices": None},
    ],
)
def test_a_rate_limit_may_come_with_status_200(body: dict[str, Any]) -> None:
    fault = fault_of_body(body)

    assert (fault.busy, fault.fate) == (True, Fate.AGAIN)


@pytest.mark.parametrize(
    ("status", "message", "fate"),
    [
        (401, "Too many requests with an invalid API key", Fate.KEY_SPENT),
        (400, "输入长度超过上限", Fate.UNANSWERED),
        (400, "日流控超限", Fate.UNANSWERED),
        (404, "there is no page on rate limits", Fate.REFUSED),
    ],
)
def test_what_waiting_does_not_help_is_no_rate_limit(status: int, message: str, fate: Fate) -> None:
    fault = fault_of_status(status, {"error": {"message": message}}, {})

    assert (fault.busy, fault.fate) == (False, fate)


@pytest.mark.parametrize(
    ("body", "fate"),
    [
        ({"code": 401, "msg": "no"}, Fate.KEY_SPENT),
        ({"status_code": 404, "message": "no"}, Fate.REFUSED),
        ({"error_code": "503", "error_msg": "no"}, Fate.AGAIN),
        ({"error": None, "code": 503, "detail": "no"}, Fate.AGAIN),
    ],
)
def test_a_code_that_is_a_status_counts_as_it(body: dict[str, Any], fate: Fate) -> None:
    fault = fault_of_body(body)

    assert fault.fate is fate
    assert fault.reason == f"HTTP {fault.status}: no"


MINIMAX = {"id": "1", "choices": None, "model": "m", "usage": None}


@pytest.mark.parametrize(
    ("body", "fate", "busy", "outage"),
    [
        ({"detail": "Not authenticated"}, Fate.KEY_SPENT, False, False),
        ({"detail": "Invalid token"}, Fate.KEY_SPENT, False, False),
        ({"success": False, "message": "Unauthorized", "result": {}}, Fate.KEY_SPENT, False, False),
        ({"status": "error", "message": "API key is invalid", "data": []}, Fate.KEY_SPENT, False, False),
        ({"code": 1000, "msg": "身份验证失败。", "success": False}, Fate.KEY_SPENT, False, False),
        ({"errcode": 7, "errmsg": "余额不足"}, Fate.KEY_SPENT, False, False),
        ({"code": 1302, "msg": "您当前使用该API的并发数过高"}, Fate.AGAIN, True, False),
        ({"success": False, "message": "too many requests", "data": None}, Fate.AGAIN, True, False),
        ({"code": 50505, "message": "System is too busy now", "data": None}, Fate.AGAIN, False, True),
        ({"status": "failed", "msg": "model m does not exist", "data": {}}, Fate.REFUSED, False, False),
        ({"detail": "internal"}, Fate.AGAIN, False, False),
        (MINIMAX | {"base_resp": {"status_code": 1004, "status_msg": "login fail: carry the API secret key"}},
         Fate.KEY_SPENT, False, False),
        (MINIMAX | {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}},
         Fate.KEY_SPENT, False, False),
        (MINIMAX | {"base_resp": {"status_code": 1026, "status_msg": "input new_sensitive"}},
         Fate.UNANSWERED, False, False),
        (MINIMAX | {"base_resp": {"status_code": 1000, "status_msg": "unknown error"}}, Fate.AGAIN, False, False),
    ],
)  # fmt: skip
def test_an_error_may_come_with_status_200_and_without_an_error_member(
    body: dict[str, Any], fate: Fate, busy: bool, outage: bool
) -> None:
    fault = fault_of_body(body)

    assert (fault.fate, fault.busy, fault.outage) == (fate, busy, outage)
    assert "the server says: " in fault.reason


@pytest.mark.parametrize(
    "body",
    [
        {"type": "message", "content": [{"type": "text", "text": "Invalid token"}]},  # Anthropic's
        {"object": "response", "status": "completed", "error": None, "output": [{"text": "too many requests"}]},
        {"model": "m", "message": {"role": "assistant", "content": "Unauthorized"}, "done": True},  # Ollama's
        {"code": 20000, "msg": "success", "result": "rate limit exceeded"},
        {"response": "Invalid API key", "status": "ok"},
        MINIMAX | {"base_resp": {"status_code": 0, "status_msg": "success"}},
    ],
)
def test_the_words_of_another_apis_reply_are_no_error(body: dict[str, Any]) -> None:
    fault = fault_of_body(body)

    assert (fault.fate, fault.busy, fault.outage) == (Fate.AGAIN, False, False)
    assert fault.reason.startswith("not a chat completion: ")


@pytest.mark.parametrize("status", [302, 400, 401, 402, 403, 404, 407, 429, 451, 500, 503])
def test_every_fault_of_a_status_has_it(status: int) -> None:
    assert fault_of_status(status, {"error": {"message": "no"}}, {}).status == status


GEMINI = {
    "code": 429,
    "message": "You exceeded your current quota, please check your plan and billing details.",
    "status": "RESOURCE_EXHAUSTED",
    "details": [
        {"violations": [{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "quotaValue": "10"}]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"},
    ],
}


@pytest.mark.parametrize("body", [{"error": GEMINI}, [{"error": GEMINI}]])
def test_geminis_requests_a_minute_are_no_spent_quota_and_its_delay_is_kept(body: Any) -> None:
    fault = fault_of_status(429, body, {})

    assert (fault.busy, fault.pause_s) == (True, 34)
    assert fault.reason.startswith("HTTP 429: You exceeded your current quota")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (429, {"message": "Rate limit exceeded: free-models-per-day. Add 10 credits"}),
        (429, {"message": "reached TPD rate limit, current: 1505138", "type": "rate_limit_reached_error"}),
        (429, {"code": "1304", "message": "该API已达今日调用次数限额"}),
        (403, {"code": "403", "message": "Out of call volume quota. Quota will be replenished in 01:10:00."}),
        (400, {"type": "budget_exceeded", "message": "Budget has been exceeded! Max budget: 10.0"}),
        (403, {"message": "The free tier of the model has been exhausted."}),
    ],
)
def test_a_days_limit_without_a_time_to_come_back_is_a_spent_quota(status: int, error: dict[str, Any]) -> None:
    fault = fault_of_status(status, {"error": error}, {})

    assert (fault.fate, fault.is_of_key) == (Fate.KEY_SPENT, False)


@pytest.mark.parametrize("status", [400, 403])
@pytest.mark.parametrize(
    "body",
    [
        [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}],  # Gemini
        {"error": {"code": 400, "message": "API key expired. Please renew the API key."}},
        {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: ab***."},  # xAI
        {"error": {"message": "无效的令牌"}},
        {"error": {"message": "no", "code": "invalid_api_key"}},
    ],
)
def test_a_wrong_key_is_told_by_its_words(status: int, body: Any) -> None:
    fault = fault_of_status(status, body, {})

    assert (fault.fate, fault.is_of_key) == (Fate.KEY_SPENT, True)
