"""Which refusals change a request, and how."""

import pytest

from bundle.client._faults import fault_of_status
from bundle.client._request import RequestBody

AS_IT_WAS = None
NO_TEMPERATURE = "temperature left out: the server's default applies"
RENAMED = "max_tokens renamed to max_completion_tokens"


@pytest.mark.parametrize(
    ("status", "said", "change"),
    [
        (500, "unexpected keyword argument 'stream_options'", "stream_options left out"),
        (500, "error in the handler of stream_options", AS_IT_WAS),
        (500, "unexpected end of max_tokens", AS_IT_WAS),
        (502, "upstream: unknown parameter: temperature", NO_TEMPERATURE),
        (400, "参数错误：stream_options 不被支持", "stream_options left out"),
        (400, "请求参数有误: 存在未定义字段 stream_options", "stream_options left out"),
        (400, "温度参数不合法：应大于0", "temperature 0.01 instead of 0"),
        (400, "参数 temperature 不能为 0", "temperature 0.01 instead of 0"),
        (400, "温度只能为 1", NO_TEMPERATURE),
        (400, "temperature of this model must be 0.6", NO_TEMPERATURE),
        (400, "该模型不支持参数 max_tokens，请使用 max_completion_tokens", RENAMED),
        (400, "不支持设置最大长度", RENAMED),
        (400, "不支持最大 token 数", RENAMED),
        (400, "body.max_tokens: Extra inputs are not permitted", RENAMED),
        (400, "max_tokens must be at least 1500 for this thinking model", AS_IT_WAS),
        (400, "最大 token 数不能小于 1500", AS_IT_WAS),
        (400, "max_tokens must be less than or equal to 512", AS_IT_WAS),
    ],
)
def test_a_parameter_that_a_refusal_names_is_changed(status: int, said: str, change: str | None) -> None:
    body = RequestBody("m", 0.0, {})

    assert body.adapt(fault_of_status(status, {"error": {"message": said}}, {}), streams=True) == change
    assert body.changes == ([] if change is None else [change])


@pytest.mark.parametrize(
    ("said", "change"),
    [
        ("Unrecognized request argument supplied: stream", "stream left out"),
        ("不支持流式参数", "stream left out"),
        ("该模型仅支持流式调用", AS_IT_WAS),
        ("不支持非流式调用", AS_IT_WAS),
        ("thinking needs stream=true", AS_IT_WAS),
    ],
)
def test_a_server_that_wants_streams_is_told_from_one_that_does_not_know_the_word(
    said: str, change: str | None
) -> None:
    body = RequestBody("m", 0.0, {})

    assert body.adapt(fault_of_status(400, {"error": {"message": said}}, {}), streams=False) == change


@pytest.mark.parametrize(
    ("said", "wants_more"),
    [
        ("max_tokens must be at least 1500 for this thinking model", True),
        ("Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16", True),
        ("最大 token 数不能小于 1500", True),
        ("max_tokens must be less than or equal to 512", False),
        ("最大 token 数应小于 512", False),
    ],
)
def test_a_server_that_wants_more_tokens_is_told_with_the_option(said: str, wants_more: bool) -> None:
    fault = fault_of_status(400, {"error": {"message": said}}, {})

    assert fault.reason.startswith("the server wants a larger --max-out-len: HTTP 400: ") is wants_more
