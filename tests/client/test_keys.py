"""Several keys: used in turn, dropped when they are of no more use, and never told to anybody."""

import asyncio
import json
import logging
import re
from collections import Counter
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from bundle.client import NoReplyError, RefusedError
from bundle.client._keys import KeyRing
from tests.evaluation.asking import ask, client_of
from tests.openai_api import Call, chunks_of, completion, error, loopback_api, send_stream
from tests.patience import PATIENCE_S

KEYS = ["sk-first-4f7a91c2", "sk-second-8b03de55", "sk-third-c61e7f90"]
QUOTA = {"message": "You exceeded your current quota, please check your plan and billing details."}


def key_of(call: Call) -> str:
    return call.request.headers["Authorization"].removeprefix("Bearer ")


async def test_keys_are_used_in_turn() -> None:
    async def handler(call: Call) -> web.Response:
        return completion("A")

    async with loopback_api(handler) as api, client_of(api.url, keys=KEYS) as client:
        for _ in range(6):
            await ask(client)

    assert api.keys == [f"Bearer {key}" for key in KEYS * 2]


async def test_a_refused_key_is_dropped_and_costs_the_question_no_attempt() -> None:
    said: list[str] = []

    async def handler(call: Call) -> web.Response:
        return error(401, f"Incorrect API key provided: {KEYS[1]}") if key_of(call) == KEYS[1] else completion("A")

    async with loopback_api(handler) as api, client_of(api.url, keys=KEYS, retries=0, say=said.append) as client:
        replies = [await ask(client) for _ in range(8)]

    assert [reply.attempts for reply in replies] == [1] * 8
    assert Counter(api.keys) == {f"Bearer {KEYS[0]}": 4, f"Bearer {KEYS[1]}": 1, f"Bearer {KEYS[2]}": 4}
    assert said == ["dropped key 2 of 3, 2 left: HTTP 401: Incorrect API key provided: ***"]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, {**QUOTA, "code": "insufficient_quota", "type": "insufficient_quota"}),
        (429, {"message": "no balance", "type": "exceeded_current_quota_error"}),
        (429, {"message": "您的账户已欠费，请充值后重试", "code": "1113"}),
        (429, QUOTA),
        (429, {"message": "该 API 已达今日调用次数限额，如有更多需求，请联系客服购买", "code": "1304"}),
        (429, {"message": "已达到 5 小时的使用上限。您的限额将在 2026-12-01 12:00:00 重置。", "code": "1308"}),
        (429, {"message": "套餐已到期，暂无法使用", "code": "1309"}),
        (429, {"message": "hour allocated quota exceeded", "code": "Throttling.AllocationQuota"}),
        (429, {"message": "Free allocated quota exceeded.", "code": "insufficient_quota"}),
        (429, {"message": "exceeded the 5-hour usage quota. It will reset at 2026-12-01", "type": "TooManyRequests"}),
        (403, {"message": "账户余额不足"}),
        (403, {"message": "用户额度不足, 剩余额度: ＄0.00", "code": "insufficient_user_quota"}),
        (403, {"message": "预扣费额度失败", "code": "pre_consume_token_quota_failed"}),
        (403, {"message": "Sorry, your account balance is insufficient"}),
        (429, {"message": "has reached the set inference limit", "code": "SetLimitExceeded"}),
        (402, {"message": "Insufficient Balance"}),
        (400, {"message": "Access denied, account not in good standing", "code": "Arrearage"}),
        (400, {"message": "Your credit balance is too low to access the API"}),
    ],
)
async def test_a_key_out_of_quota_is_dropped(status: int, body: dict[str, Any]) -> None:
    async def handler(call: Call) -> web.Response:
        return error(status, **body) if key_of(call) == KEYS[0] and call.number > 2 else completion("A")

    async with loopback_api(handler) as api, client_of(api.url, keys=KEYS[:2], retries=0) as client:
        replies = [await ask(client) for _ in range(6)]

    assert [reply.attempts for reply in replies] == [1] * 6
    assert api.keys.count(f"Bearer {KEYS[0]}") == 2


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"message": "Rate limit reached for m: Limit 3 / min.", "code": "rate_limit_exceeded"}, {}),
        ({"message": "slow down"}, {}),
        ({"message": QUOTA["message"] + " Quota exceeded for requests_per_model_per_minute. Retry in 34s."}, {}),
        ({"message": QUOTA["message"]}, {"Retry-After": "0"}),
        ({"message": "check your quota", "type": "rate_limit_reached_error"}, {}),
    ],
)
async def test_an_ordinary_429_drops_no_key(body: dict[str, Any], headers: dict[str, str]) -> None:
    async def handler(call: Call) -> web.Response:
        return error(429, headers=headers, **body) if call.number == 1 else completion("A")

    async with loopback_api(handler) as api, client_of(api.url, keys=KEYS[:1], retries=0) as client:
        with pytest.raises(NoReplyError, match="HTTP 429"):
            await ask(client)
        assert (await ask(client)).text == "A"


async def test_a_limit_that_lasts_for_hours_drops_the_key() -> None:
    async def handler(call: Call) -> web.Response:
        return error(429, "daily limit", {"Retry-After": "40000"}) if key_of(call) == KEYS[0] else completion("A")

    async with loopback_api(handler) as api, client_of(api.url, keys=KEYS[:2]) as client, asyncio.timeout(PATIENCE_S):
        assert (await ask(client)).attempts == 1

    assert len(api.keys) == 2


async def test_when_no_key_is_left_the_run_ends_and_says_what_the_last_one_met() -> None:
    async def handler(call: Call) -> web.Response:
        if key_of(call) == KEYS[2]:
            return error(429, QUOTA["message"], code="insufficient_quota")
        return error(401, f"wrong key {key_of(call)}")

    async with loopback_api(handler) as api, client_of(api.url, keys=KEYS) as client:
        with pytest.raises(RefusedError) as caught:
            await ask(client)

    assert "refuses all 3 keys; the last, key 3 of 3: HTTP 429: You exceeded your current quota" in str(caught.value)
    assert "`bundle resume`" in str(caught.value)
    assert len(api.bodies) == 3


async def test_keys_that_are_all_refused_at_once_end_the_run_once() -> None:
    all_in = asyncio.Barrier(8)

    async def handler(call: Call) -> web.Response:
        if call.number <= 8:
            await all_in.wait()
        return error(401, "no")

    async with loopback_api(handler) as api, client_of(api.url, keys=KEYS) as client, asyncio.timeout(PATIENCE_S):
        outcomes = await asyncio.gather(*(ask(client) for _ in range(8)), return_exceptions=True)

    assert all(isinstance(outcome, RefusedError) for outcome in outcomes)
    assert 3 <= len(api.bodies) <= 8 + 3 * 8


@pytest.mark.parametrize(
    "echo",
    ["{key}", "Bearer {key}", "x{key}x", "{key:.12}...", "sk-fi***********91c2", "sk-fi…91c2", '{{"key": "{key}"}}'],
)
@pytest.mark.parametrize("status", [400, 401, 500, 200])
async def test_a_key_that_the_server_repeats_is_shown_nowhere(
    echo: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    said = echo.format(key=KEYS[0])

    async def handler(call: Call) -> web.Response:
        body = {"error": {"message": f"the key {said} is wrong"}}
        return web.Response(status=status, text=json.dumps(body), content_type="application/json")

    caplog.set_level(logging.DEBUG)
    async with loopback_api(handler) as api, client_of(api.url, keys=KEYS[:1], retries=0) as client:
        with pytest.raises((NoReplyError, RefusedError)) as caught:
            await ask(client)
        shown = f"{caught.value} {caught.value!r} {client!r} {vars(client)} {caplog.text}"

    assert "***" in str(caught.value)
    shown = re.sub(r"0x[0-9a-f]+", "", shown)  # addresses of objects, which may hold the same digits
    for secret in (KEYS[0], "4f7a91", "91c2"):
        assert secret not in shown


def test_a_key_is_never_shown_with_a_ring() -> None:
    ring = KeyRing(KEYS)

    assert f"{ring!r} {ring.take()!r}" == "KeyRing(3 of 3) Key(1)"


def test_the_same_key_twice_is_one_key() -> None:
    assert len(KeyRing(["a", "b", "a"])) == 2


def test_dropping_a_key_leaves_the_turns_of_the_others() -> None:
    ring = KeyRing(["a", "b", "c"])
    first = ring.take()

    assert ring.drop(first)
    assert not ring.drop(first)
    assert [ring.take().value for _ in range(4)] == ["b", "c", "b", "c"]


@given(st.lists(st.sampled_from(["take", "drop"]), max_size=30), st.integers(1, 5))
def test_whatever_is_dropped_the_keys_left_are_used_equally_often(steps: list[str], count: int) -> None:
    ring = KeyRing([str(number) for number in range(count)])
    for step in steps:
        if len(ring) > 1 and step == "drop":
            ring.drop(ring.take())
        else:
            ring.take()

    uses = Counter(ring.take().value for _ in range(3 * len(ring)))

    assert set(uses.values()) == {3}


TOKEN = st.text("abcdefghijklmnopqrstuvwxyzABCDEF0123456789-_.", min_size=16, max_size=60)


@given(TOKEN, st.text(), st.text(), st.data())
def test_no_eight_characters_of_a_key_are_ever_shown(key: str, before: str, after: str, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(key)))
    end = data.draw(st.integers(begin, len(key)))

    hidden = KeyRing([key]).hide(before + key[begin:end] + after)

    assert not any(key[start : start + 8] in hidden for start in range(len(key) - 7))


@given(st.text("答案是 ,.:()\n"), st.lists(TOKEN, max_size=3))
def test_what_is_no_key_is_shown_as_it_is(text: str, keys: list[str]) -> None:
    assert KeyRing(keys).hide(text) == text


def test_a_short_key_hides_no_part_of_a_word() -> None:
    assert KeyRing(["none"]).hide("nonetheless, none") == "nonetheless, ***"


@pytest.mark.parametrize("streams", [False, True])
async def test_a_key_in_a_reply_is_masked_and_the_rest_stays(streams: bool) -> None:
    said = f"**B**, said {KEYS[0]}, or {KEYS[0][3:14]}"

    async def handler(call: Call) -> web.StreamResponse:
        if streams:
            return await send_stream(call, chunks_of([said[:9], said[9:]]))
        return completion(said, message={"reasoning_content": f"my key is {KEYS[1]}"})

    how = "always" if streams else "never"
    async with loopback_api(handler) as api, client_of(api.url, keys=KEYS[:2], stream=how) as client:
        reply = await ask(client)

    assert reply.text == "**B**, said ***, or ***"
    assert reply.thinking == (None if streams else "my key is ***")


@pytest.mark.parametrize("key", ["B", "EMPTY", "sk-B"])
async def test_what_is_too_short_to_be_secret_changes_no_reply(key: str) -> None:
    async def handler(call: Call) -> web.Response:
        return completion(f"B {key}")

    async with loopback_api(handler) as api, client_of(api.url, keys=[key]) as client:
        assert (await ask(client)).text == f"B {key}"


@given(st.text("abc", min_size=8, max_size=20), st.text("abc", max_size=10), st.text("abc", max_size=10))
def test_no_eight_characters_of_a_key_remain(key: str, before: str, after: str) -> None:
    hidden = KeyRing([key]).hide_in_reply(before + key + after)

    assert not any(key[start : start + 8] in hidden for start in range(len(key) - 7))


async def test_a_secret_header_is_hidden_as_a_key_is() -> None:
    async def handler(call: Call) -> web.Response:
        return error(401, f"wrong key {call.request.headers['Api-Key']}")

    secret = "5ecret-of-azure"
    headers = {"api-key": secret}
    async with loopback_api(handler) as api, client_of(api.url, keys=[], headers=headers, secrets=[secret]) as client:
        with pytest.raises(RefusedError, match=r"wrong key \*\*\*") as caught:
            await ask(client)

    assert secret not in str(caught.value)
    assert "A key was sent" in str(caught.value)
    assert api.keys == [None]
