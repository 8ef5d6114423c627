"""Tasks that ask no replies: the option that is likeliest in its text, by what the server says of the text."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from bundle.client import RefusedError
from bundle.evaluation import AskingOptions, Evaluation
from bundle.runs.predictions import read_predictions
from bundle.runs.run import Run
from bundle.tasks.catalog import Question, find_task
from tests.evaluation.asking import client_of
from tests.openai_api import Call, Handler, continuation, loopback_api

TASK = find_task("ceval_ppl")
OPTIONS = AskingOptions(2, adaptive=False, full_replies=False, prefix_order=True)
QUESTIONS = [
    Question("ceval_ppl", "val", "law", number, [{"role": "text", "content": f"{number}+1=?\n答案: \n"}], "B", 5)
    for number in range(3)
]


def echo(text: str, logprobs: list[float | None]) -> web.Response:
    """As vLLM answers: the tokens of the text that it was given, then the one that it had to generate."""
    body = {
        "choices": [
            {
                "index": 0,
                "text": f"{text}x",
                "logprobs": {"token_logprobs": [*logprobs, -0.001], "tokens": []},
                "finish_reason": "length",
            }
        ],
        "usage": {"prompt_tokens": len(logprobs), "completion_tokens": 1},
    }
    return web.json_response(body)


def generate(logprobs: list[float]) -> web.Response:
    """As lmdeploy answers: a pair for every token of the text but the first."""
    pairs = [[value, token] for token, value in enumerate(logprobs)]
    meta = {"prompt_tokens": 1 + len(pairs), "completion_tokens": 0, "finish_reason": {"type": "stop"}}
    return web.json_response({"text": "", "output_ids": [], "meta_info": {**meta, "input_token_logprobs": pairs}})


async def asked(directory: Path, handler: Handler, **client_options: Any) -> list[dict[str, Any]]:
    """Ask three questions; the bodies of the requests."""
    with Run.create(directory, "r") as run:
        evaluation = Evaluation([TASK], QUESTIONS, run, lambda _: None, max_out_len={"ceval_ppl": 1}, asking=OPTIONS)
        async with loopback_api(handler) as api, client_of(api.url, **client_options) as client:
            await evaluation.ask(client)
    return api.bodies


async def test_the_option_with_the_lowest_mean_loss_is_the_answer(tmp_path: Path) -> None:
    # B's tokens are more, and each of them likelier; by the sum it would be C.
    losses = {"A": [None, -2.0, -2.0], "B": [None, -1.0, -1.0, -1.0, -1.0], "C": [None, -1.5, -2.0], "D": [None, -9.0]}

    async def handler(call: Call) -> web.Response:
        return echo(call.body["prompt"], losses[call.body["prompt"][-1]])

    bodies = await asked(tmp_path, handler)

    assert sorted(body["prompt"] for body in bodies) == sorted(
        f"{n}+1=?\n答案: \n{one}" for n in range(3) for one in "ABCD"
    )
    assert all((body["echo"], body["logprobs"], body["max_tokens"]) == (True, 1, 1) for body in bodies)
    rows = read_predictions(next(tmp_path.iterdir()))
    assert {(row.reply, row.answer, row.correct) for row in rows} == {("B", "B", True)}
    # The first token has no loss and counts all the same, as in OpenCompass.
    assert rows[0].losses == pytest.approx({"A": 4 / 3, "B": 4 / 5, "C": 3.5 / 3, "D": 9 / 2})
    assert (rows[0].prompt_tokens, rows[0].completion_tokens) == (13, 4)


async def test_lmdeploy_is_asked_in_its_own_way(tmp_path: Path) -> None:
    losses = {"A": [-2.0, -2.0], "B": [-1.5, -2.0], "C": [-1.0, -1.0, -1.0, -1.0], "D": [-9.0]}

    async def handler(call: Call) -> web.Response:
        assert call.request.path == "/generate"
        return generate(losses[call.body["prompt"][-1]])

    bodies = await asked(tmp_path, handler, scoring="generate")

    assert len(bodies) == 12
    wanted = {"max_tokens": 0, "return_logprob": True, "logprob_start_len": 0, "stream": False}
    assert all(wanted.items() <= body.items() for body in bodies)
    rows = read_predictions(next(tmp_path.iterdir()))
    assert {(row.answer, row.prompt_tokens) for row in rows} == {("C", 13)}
    assert rows[0].losses == pytest.approx({"A": 4 / 3, "B": 3.5 / 3, "C": 4 / 5, "D": 9 / 2})


async def test_logits_are_not_taken_for_log_probabilities(tmp_path: Path) -> None:
    async def handler(call: Call) -> web.Response:
        return echo(call.body["prompt"], [None, -1.0, 12.5])

    with pytest.raises(RefusedError, match="logits or other numbers above 0"):
        await asked(tmp_path, handler)


async def test_no_more_requests_are_in_flight_than_questions(tmp_path: Path) -> None:
    in_flight = most = 0

    async def handler(call: Call) -> web.Response:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0)
        in_flight -= 1
        return echo(call.body["prompt"], [None, -1.0])

    await asked(tmp_path, handler)
    assert most <= OPTIONS.concurrency


async def test_of_equal_losses_the_first_option_is_the_answer_as_in_opencompass(tmp_path: Path) -> None:
    async def handler(call: Call) -> web.Response:
        return echo(call.body["prompt"], [None, -1.0, -1.0])

    await asked(tmp_path, handler)
    assert {row.answer for row in read_predictions(next(tmp_path.iterdir()))} == {"A"}


@pytest.mark.parametrize(
    "choice",
    [
        {},  # lmdeploy knows echo and takes no notice
        {"logprobs": {"token_logprobs": [-0.1]}},
        {"logprobs": {"token_logprobs": [None, -1.0, None, -1.0, -1.0, -1.0, -1.0, -1.0]}},
        {"logprobs": {"token_logprobs": "no"}},
    ],
)
async def test_a_server_that_does_not_say_how_likely_a_text_is_ends_the_run(
    tmp_path: Path, choice: dict[str, Any]
) -> None:
    async def handler(call: Call) -> web.Response:
        return continuation("B", "length", **choice)

    with pytest.raises(RefusedError, match="does not report log-probabilities") as caught:
        await asked(tmp_path, handler)
    assert "vLLM" in str(caught.value.remedy)
    assert not list(tmp_path.iterdir())  # a run without an answer leaves nothing


async def test_a_text_that_is_refused_leaves_its_question_unanswered(tmp_path: Path) -> None:
    async def handler(call: Call) -> web.Response:
        if call.body["prompt"] == "1+1=?\n答案: \nC":
            return web.Response(status=400, text=json.dumps({"error": {"message": "too many tokens"}}))
        return echo(call.body["prompt"], [None, -1.0])

    await asked(tmp_path, handler)
    errors = {row.id: row.error for row in read_predictions(next(tmp_path.iterdir()))}
    assert (errors[0], errors[2]) == (None, None)
    assert "too many tokens" in str(errors[1])
