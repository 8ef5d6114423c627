"""Trouble behind a gateway, whatever its status: waited out where it may pass, and told at once where it cannot."""

from typing import Any

import pytest
from aiohttp import web

from bundle.client import NoReplyError, RefusedError
from bundle.client._faults import AttemptError, Fate, fault_of_status
from tests.client.test_patience import REPLY, ask_at, simulated
from tests.evaluation.asking import ask, client_of
from tests.openai_api import Call, completion, error, loopback_api

NO_ROUTE = {"message": "no Route matched with those values"}
NO_CHANNEL = {
    "error": {
        "message": "当前分组 default 下对于模型 m 无可用渠道（distributor）",
        "type": "new_api_error",
        "code": "model_not_found",
    }
}
UNKNOWN: list[tuple[int, Any]] = [
    (404, NO_ROUTE),
    (404, {"error_msg": "404 Route Not Found"}),
    (404, {"error": {"message": "The model `m` does not exist.", "code": "model_not_found"}}),
    (404, "<html><title>404 Not Found</title></html>"),
    (400, {"error": {"message": "Model Not Exist"}}),
    (400, {"error": {"message": "There are no healthy deployments for this model. Received Model Group=m"}}),
    (404, {"error": {"code": "DeploymentNotFound", "message": "The deployment is not there. Wait and try again."}}),
    (503, NO_CHANNEL),
    (503, {"error": {"message": "No available channel for model m under group default"}}),
]
"""What a gateway says that does not know a model or an address, at all or while it reloads."""


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"type": "upstream_error", "message": "openai_error"}),
        (400, {"code": "bad_response_status_code", "message": "bad response status code 500"}),
        (400, {"code": 50505, "message": "System is too busy now. Please try again later."}),
        (400, {"message": "server overloaded"}),
        (400, {"message": "An error occurred, please try again"}),
        (400, {"message": "系统繁忙，请稍后重试"}),
        (400, {"message": "当前分组上游负载已饱和，请稍后再试"}),
        (404, {"message": "The model is temporarily unavailable"}),
        (422, {"message": "upstream timed out"}),
        (400, {"message": "The model has crashed without additional information. (Exit code: 9)"}),  # LM Studio
        (400, {"message": "Model unloaded."}),
        (420, {"message": "服务暂不可用"}),
    ],
)
def test_words_of_trouble_that_passes_count_like_a_503(status: int, body: dict[str, Any]) -> None:
    fault = fault_of_status(status, {"error": body}, {"retry-after": "7"})

    assert (fault.fate, fault.outage, fault.pause_s) == (Fate.AGAIN, True, 7)
    assert fault.reason.startswith(f"temporary server fault: HTTP {status}: ")


@pytest.mark.parametrize(
    ("body", "fate"),
    [
        ({"message": "Invalid image. Please check it and try again"}, Fate.UNANSWERED),
        ({"message": "请求参数有误，请检查后重试"}, Fate.UNANSWERED),
        ({"message": "try again", "param": "seed"}, Fate.UNANSWERED),
        ({"type": "upstream_error", "message": "this model does not support images"}, Fate.UNANSWERED),
        ({"type": "upstream_error", "message": "exceeds the context length of the model"}, Fate.UNANSWERED),
        ({"type": "upstream_error", "message": "insufficient balance"}, Fate.KEY_SPENT),
    ],
)
def test_what_asking_again_does_not_help_is_no_passing_trouble(body: dict[str, Any], fate: Fate) -> None:
    fault = fault_of_status(400, {"error": body}, {})

    assert (fault.fate, fault.outage) == (fate, False)


async def test_a_parameter_that_is_refused_behind_a_gateway_is_adapted() -> None:
    async def handler(call: Call) -> web.Response:
        if "max_tokens" not in call.body:
            return completion("A")
        return error(400, "upstream error: unsupported parameter: max_tokens", type="upstream_error")

    async with loopback_api(handler) as api, client_of(api.url) as client:
        assert (await ask(client)).attempts == 1

    assert client.changes == ("max_tokens renamed to max_completion_tokens",)


@pytest.mark.parametrize(("status", "body"), UNKNOWN)
async def test_an_unknown_model_or_address_ends_the_run_at_once(status: int, body: Any) -> None:
    async def handler(call: Call) -> web.Response:
        return web.json_response(body, status=status) if isinstance(body, dict) else page(body, status)

    async with loopback_api(handler) as api, client_of(api.url, patience_s=3600) as client:
        with pytest.raises(RefusedError, match=f"refuses every request: HTTP {status}: ") as caught:
            await ask(client)

    assert len(api.bodies) == 1
    assert caught.value.no_model
    assert "Check the model name" in str(caught.value)


def page(text: str, status: int) -> web.Response:
    return web.Response(text=text, status=status, content_type="text/html")


def told(status: int, body: Any) -> AttemptError:
    """A fault of its own for every request: what becomes of one is noted in it."""
    return fault_of_status(status, body, {})


@pytest.mark.parametrize(("status", "body"), [*UNKNOWN, (302, ""), (400, {"error": {"message": "请稍后重试"}})])
def test_after_a_reply_it_is_waited_for_and_costs_no_question(status: int, body: Any) -> None:
    took, _ = simulated(lambda now: told(status, body) if 1 <= now < 600 else REPLY, ask_at(1), patience_s=3600)

    assert 600 <= took < 660


@pytest.mark.parametrize(("status", "body"), UNKNOWN)
def test_after_the_patience_it_ends_the_run_and_says_for_how_long_that_was(status: int, body: Any) -> None:
    with pytest.raises(RefusedError, match=rf"has not replied for 30 min: HTTP {status}: .*\.") as caught:
        simulated(lambda now: told(status, body) if now >= 1 else REPLY, ask_at(1), patience_s=1800)

    assert caught.value.no_model
    assert caught.value.remedy is not None
    assert caught.value.remedy.startswith("Check the model name")
    assert caught.value.remedy.endswith("Continue later with `bundle resume`; --patience TIME waits longer.")


async def test_without_patience_it_costs_retries() -> None:
    async def handler(call: Call) -> web.Response:
        return completion("A") if call.number == 1 else web.json_response(NO_ROUTE, status=404)

    async with loopback_api(handler) as api, client_of(api.url, retries=1) as client:
        await ask(client)
        with pytest.raises(NoReplyError, match="no Route matched") as caught:
            await ask(client)

    assert (caught.value.transient, caught.value.attempts) == (True, 2)
