"""Servers as they are: whatever their quirk, every question is answered, and the score is that of a good server."""

import asyncio
import itertools
import time
from pathlib import Path

import pytest
from aiohttp import web

from bundle.client import RefusedError
from bundle.client._settings import Streaming
from bundle.evaluation import AskingOptions, Evaluation
from bundle.runs.results import Results
from bundle.runs.run import Run
from bundle.tasks.catalog import Question, find_task
from tests.client.quirks import HOPELESS, QUIRKS, always, letter, streaming
from tests.evaluation.asking import client_of
from tests.openai_api import Handler, ScriptedApi, loopback_api
from tests.patience import PATIENCE_S

OPTIONS = AskingOptions(16, adaptive=True, full_replies=False, prefix_order=True)
QUESTIONS = [
    Question("ceval_gen", "val", subject, number, [{"role": "user", "content": f"{subject} {number}"}], "B", 0)
    for subject in ("law", "logic")
    for number in range(25)
]


async def evaluate(
    out: Path, handler: Handler, options: AskingOptions = OPTIONS, count: int = 50, stream: Streaming = "auto"
) -> tuple[Results, ScriptedApi, list[str]]:
    """The results, what the server has seen and what was said."""
    said: list[str] = []
    with Run.create(out, "r") as run:
        evaluation = Evaluation(
            [find_task("ceval_gen")],
            QUESTIONS[:count],
            run,
            lambda _: None,
            max_out_len={"ceval_gen": 64},
            asking=options,
        )
        async with loopback_api(handler) as api, asyncio.timeout(PATIENCE_S):
            client = client_of(api.url, patience_s=PATIENCE_S, stream=stream, say=said.append)
            async with client:
                await evaluation.ask(client)
        return evaluation.results({}), api, said


def require_right(results: Results) -> None:
    """Every question is answered, with the letter that the server meant."""
    assert results.coverage.answered == len(QUESTIONS)
    for subject in ("law", "logic"):
        mine = [one for one in QUESTIONS if one.subject == subject]
        right = sum(letter({"messages": question.messages}) == question.gold for question in mine)
        assert results.scores[f"ceval-{subject}"].accuracy == pytest.approx(100 * right / len(mine))


@pytest.mark.parametrize("quirk", QUIRKS)
async def test_a_quirk_changes_no_score(quirk: str, tmp_path: Path) -> None:
    results, _, _ = await evaluate(tmp_path, QUIRKS[quirk]())

    require_right(results)


@pytest.mark.parametrize(
    "quirk", ["streams only", "streams always", "no temperature of 0", "rate limit", "content in parts"]
)
async def test_a_quirk_changes_no_score_of_whole_replies(quirk: str, tmp_path: Path) -> None:
    options = AskingOptions(16, adaptive=True, full_replies=True, prefix_order=False)
    results, _, _ = await evaluate(tmp_path, QUIRKS[quirk](), options)

    require_right(results)


@pytest.mark.parametrize("quirk", ["rate limit", "outage", "trouble as 400"])
async def test_a_clock_that_is_set_back_and_forward_changes_nothing(
    quirk: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, hours = time.time, itertools.cycle([0, -1, 1, -24, 24])
    monkeypatch.setattr(time, "time", lambda: clock() + 3600 * next(hours))
    results, _, _ = await evaluate(tmp_path, QUIRKS[quirk]())

    require_right(results)


@pytest.mark.parametrize("case", HOPELESS)
async def test_when_the_first_ten_questions_meet_the_same_refusal_the_run_ends_with_it(
    case: str, tmp_path: Path
) -> None:
    refusal, reason = HOPELESS[case]
    with pytest.raises(
        RefusedError, match=f"first 10 questions got no reply, all for the same reason: .*{reason}"
    ) as caught:
        await evaluate(tmp_path, always(refusal))

    assert caught.value.exit_code == 3


async def test_a_refused_key_ends_the_run_at_once_whatever_the_status(tmp_path: Path) -> None:
    asked = 0

    def refusal() -> web.Response:
        nonlocal asked
        asked += 1
        return web.json_response({"code": "A0211", "msg": "token expired", "data": None})

    with pytest.raises(RefusedError, match="the server says: token expired") as caught:
        await evaluate(tmp_path, always(refusal))
    assert "--api-key-env" in (caught.value.remedy or "")
    assert asked <= OPTIONS.concurrency


async def test_a_parameter_is_adapted_once_and_said_once(tmp_path: Path) -> None:
    results, api, said = await evaluate(tmp_path, QUIRKS["max_completion_tokens"]())

    assert [line.partition(" (")[0] for line in said] == [
        "the server refuses a parameter: max_tokens renamed to max_completion_tokens",
        "the server refuses a parameter: temperature left out: the server's default applies",
    ]
    assert api.bodies[-1].keys() == {"model", "messages", "max_completion_tokens", "stream"}
    assert results.request_changes == [line.partition(": ")[2].partition(" (")[0] for line in said]


async def test_an_unknown_end_is_said_once(tmp_path: Path) -> None:
    _, _, said = await evaluate(tmp_path, QUIRKS["finish_reason 'eos'"]())

    assert said == ["treating finish_reason 'eos' as 'stop'"]


async def test_a_good_server_is_asked_once_per_question_and_nothing_is_said(tmp_path: Path) -> None:
    _, api, said = await evaluate(tmp_path, streaming())

    assert (len(api.bodies), said) == (len(QUESTIONS), [])


@pytest.mark.parametrize(("stream", "quirk"), [("always", "streams only"), ("never", "never streams")])
async def test_how_to_ask_can_be_settled_beforehand(stream: Streaming, quirk: str, tmp_path: Path) -> None:
    results, api, said = await evaluate(tmp_path, QUIRKS[quirk](), stream=stream)

    require_right(results)
    assert {body["stream"] for body in api.bodies} == {stream == "always"}
    assert (len(api.bodies), said) == (len(QUESTIONS), [])


async def test_a_server_that_refuses_what_was_settled_is_not_asked_otherwise(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="thinking needs stream=true"):
        await evaluate(tmp_path, QUIRKS["streams only"](), stream="never")


async def test_after_the_first_refusal_of_whole_replies_all_are_streamed(tmp_path: Path) -> None:
    results, api, _ = await evaluate(tmp_path, QUIRKS["streams only"]())

    require_right(results)
    first = next(place for place, body in enumerate(api.bodies) if not body["stream"])
    assert all(body["stream"] for body in api.bodies[first + 2 * OPTIONS.concurrency :])
    assert len(api.bodies) <= len(QUESTIONS) + OPTIONS.concurrency
