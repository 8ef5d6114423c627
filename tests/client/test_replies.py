"""What counts as a reply, and what as its text."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.client._faults import AttemptError, Fate
from bundle.client._replies import Reply, reply_of
from bundle.system.text import printable

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def read(body: Any, *, answer_from_thinking: bool = False) -> Reply:
    return reply_of(body, latency_s=0.5, attempts=1, answer_from_thinking=answer_from_thinking)


def body_of(message: Any, finish_reason: Any = "stop", **extra: Any) -> dict[str, Any]:
    return {"choices": [{"message": message, "finish_reason": finish_reason}], **extra}


@pytest.mark.parametrize("finish_reason", ["stop", "length"])
def test_a_whole_reply_is_one_that_stopped_or_reached_its_length(finish_reason: str) -> None:
    reply = read(body_of({"content": "A"}, finish_reason))

    assert (reply.text, reply.finish_reason) == ("A", finish_reason)


@pytest.mark.parametrize(
    "finish_reason",
    [
        "abort",
        "error",
        "network_error",
        "insufficient_system_resource",
        "disconnected",
        "server overloaded",
        "networkError",
        "timed_out",
        "failed",
        "连接断开",
    ],
)
def test_a_reply_that_the_server_gave_up_is_none_and_is_asked_for_again(finish_reason: Any) -> None:
    with pytest.raises(AttemptError, match=f"gave up: finish_reason '{finish_reason}'") as caught:
        read(body_of({"content": "A"}, finish_reason))

    assert caught.value.fate is Fate.AGAIN


@pytest.mark.parametrize("finish_reason", ["eos", "end_turn", "STOP", "", None, 3, ["stop"]])
def test_text_with_an_unknown_end_is_a_reply(finish_reason: Any) -> None:
    reply = read(body_of({"content": "A"}, finish_reason))

    assert (reply.text, reply.finish_reason) == ("A", "stop")
    assert reply.unusual_end is not None


@pytest.mark.parametrize(("refusal", "text"), [("I can't.", "I can't."), (None, ""), (False, "")])
def test_what_a_model_says_that_refuses_is_its_text(refusal: Any, text: str) -> None:
    assert read(body_of({"content": None, "refusal": refusal})).text == text


def test_text_without_any_end_is_a_reply() -> None:
    assert read({"choices": [{"message": {"content": "A"}}]}).finish_reason == "stop"


@pytest.mark.parametrize(
    "finish_reason", ["max_tokens", "MAX_TOKENS", "max_output_tokens", "token_limit", "model_length"]
)
def test_synonyms_of_length_are_length(finish_reason: str) -> None:
    reply = read(body_of({"content": "A"}, finish_reason))

    assert (reply.finish_reason, reply.unusual_end) == ("length", finish_reason)


@pytest.mark.parametrize(
    ("finish_reason", "meaning"),
    [
        ("超长截断", "length"),
        ("达到最大长度", "length"),
        ("incomplete", "length"),
        ("no_risk", "stop"),
        ("risk-free", "stop"),
        ("unfiltered", "stop"),
        ("low_risk", "stop"),
        ("no_error", "stop"),
        ("content_block_stop", "stop"),
        ("end_block", "stop"),
        ("failover_stop", "stop"),
        ("skill_end", "stop"),
        ("未命中敏感词", "stop"),
        ("审核通过", "stop"),
        ("正常结束", "stop"),
    ],
)
def test_words_of_any_language_say_how_a_reply_ended(finish_reason: str, meaning: str) -> None:
    reply = read(body_of({"content": "A"}, finish_reason))
    assert (reply.text, reply.finish_reason, reply.unusual_end) == ("A", meaning, finish_reason)


def test_text_that_ends_with_a_call_of_no_tool_is_a_reply() -> None:
    assert read(body_of({"content": "A", "tool_calls": []}, "tool_calls")).text == "A"
    for message in ({"content": "", "tool_calls": []}, {"content": "A", "tool_calls": [{"type": "function"}]}):
        with pytest.raises(AttemptError, match="tool_calls"):
            read(body_of(message, "tool_calls"))


@pytest.mark.parametrize("finish_reason", ["eos", "", None])
def test_no_text_and_no_known_end_is_no_reply(finish_reason: Any) -> None:
    with pytest.raises(AttemptError) as caught:
        read(body_of({"content": ""}, finish_reason))

    assert caught.value.fate is Fate.AGAIN


@pytest.mark.parametrize(
    "finish_reason",
    [
        *("content_filter", "sensitive", "SAFETY", "risk", "moderation_not_passed", "tool_calls", "function_call"),
        *("BLOCKLIST", "block", "PROHIBITED_CONTENT", "IMAGE_SAFETY", "contentFilter", "refusal", "no_error_blocked"),
        *("guardrail_intervened", "content_policy_violation", "content_policy_block"),
        *("命中敏感词", "审核未通过", "未通过审核", "不良信息拦截"),
    ],
)
def test_what_would_be_withheld_again_is_not_asked_for_again(finish_reason: str) -> None:
    with pytest.raises(AttemptError, match=f"finish_reason '{finish_reason}'") as caught:
        read(body_of({"content": "A"}, finish_reason))

    assert caught.value.fate is Fate.UNANSWERED


@pytest.mark.parametrize("message", [{"content": None}, {"content": ""}, {"role": "assistant"}])
def test_no_content_is_an_empty_reply(message: dict[str, Any]) -> None:
    assert read(body_of(message, "length")).text == ""


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thinking_in_a_field_of_its_own_is_kept_apart(field: str) -> None:
    reply = read(body_of({"content": "答案: B", field: "Is it A? No."}))

    assert (reply.text, reply.thinking) == ("答案: B", "Is it A? No.")


@pytest.mark.parametrize(
    "thought",
    [
        {"type": "redacted_thinking", "data": "zz"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "A or C"}]},
        {"type": "reasoning", "summary": []},
        {"type": "thinking", "thinking": {"steps": 3}, "signature": "x"},
        {"type": "reasoning", "content": [3, None, {"type": "text", "text": "A or C"}]},
    ],
)
def test_thinking_in_a_part_is_kept_apart_whatever_it_holds(thought: dict[str, Any]) -> None:
    reply = read(body_of({"content": [thought, {"type": "text", "text": "B"}]}))
    assert reply.text == "B"
    assert reply.thinking in (None, "A or C")


def test_a_single_part_needs_no_list() -> None:
    assert read(body_of({"content": {"type": "text", "text": "B"}})).text == "B"
    with pytest.raises(AttemptError, match="a content part"):
        read(body_of({"content": {"type": "image_url"}}))


def test_a_body_may_be_wrapped_in_an_object_of_the_gateway() -> None:
    body = body_of({"content": "B"}, usage={"prompt_tokens": 9})
    reply = read({"code": 200, "msg": "ok", "data": body})
    assert (reply.text, reply.prompt_tokens) == ("B", 9)
    assert read({"output": {"choices": body["choices"]}, "usage": body["usage"]}).prompt_tokens == 9
    with pytest.raises(AttemptError, match="busy"):
        read({"code": 500, "msg": "busy", "data": {"choices": []}})


@pytest.mark.parametrize(
    "said",
    [
        *("none", "None", "null", "", None, {}, [], False, "false", 0, "0", "ok", "success", "无", "请求成功"),
        *({"code": 0}, {"code": "200", "message": "success"}, {"code": 200, "message": "OK", "request_id": "7f"}),
        {"code": None, "message": "", "type": "none"},
    ],
)
def test_an_error_that_says_that_there_is_none_is_none(said: Any) -> None:
    assert read(body_of({"content": "A"}, error=said)).text == "A"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Provider disconnected", "Provider disconnected"),
        ({"code": 502, "message": "none"}, "HTTP 502: none"),
        ({"code": 0, "message": "Provider disconnected"}, "Provider disconnected"),
        ({"type": "server_error"}, "server_error"),
        (True, "true"),
        (1, "1"),
    ],
)
def test_an_error_beside_a_text_means_that_it_is_cut_off(said: Any, told: str) -> None:
    with pytest.raises(AttemptError, match=told) as caught:
        read(body_of({"content": "A"}, error=said))

    assert caught.value.fate is Fate.AGAIN


def test_thinking_in_the_text_is_kept_apart() -> None:
    reply = read(body_of({"content": "<think>A or B</think>\n\nB"}))

    assert (reply.text, reply.thinking) == ("B", "A or B")


@pytest.mark.parametrize("message", [{"content": "<think>A"}, {"content": None, "reasoning_content": "A"}])
def test_a_reply_that_is_all_thinking_has_no_text_unless_it_is_asked_for(message: dict[str, Any]) -> None:
    body = body_of(message, "length")

    assert (read(body).text, read(body).thinking) == ("", "A")
    assert (read(body, answer_from_thinking=True).text, read(body).thinking) == ("A", "A")


def test_thinking_is_never_the_text_where_there_is_another() -> None:
    body = body_of({"content": "B", "reasoning_content": "A"})

    assert read(body, answer_from_thinking=True).text == "B"


def test_empty_thinking_is_none() -> None:
    reply = read(body_of({"content": "<think>\n\n</think>\n\nB", "reasoning_content": ""}))

    assert (reply.text, reply.thinking) == ("B", None)


@pytest.mark.parametrize(
    "usage", [None, [], "7", {}, *({"prompt_tokens": count} for count in ("7", True, -1, 1.5, 10**40))]
)
def test_tokens_that_are_not_told_are_not_known(usage: Any) -> None:
    assert read(body_of({"content": "A"}, usage=usage)).prompt_tokens is None


@given(JSON | st.builds(body_of, JSON, JSON) | st.fixed_dictionaries({"error": JSON, "choices": JSON}))
def test_whatever_json_comes_is_a_reply_or_a_reason_in_one_line(body: Any) -> None:
    outcome: Reply | AttemptError
    try:
        outcome = read(body)
    except AttemptError as fault:
        outcome = fault

    if isinstance(outcome, AttemptError):
        assert printable(outcome.reason) == outcome.reason
        assert len(outcome.reason) < 500
    else:
        assert isinstance(outcome.text, str)
