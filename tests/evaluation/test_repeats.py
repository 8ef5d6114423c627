"""Questions asked again: which, and how much of the replies has changed."""

from pathlib import Path

import pytest
from aiohttp import web

from bundle.evaluation._repeats import compare, spread_over_subjects
from bundle.runs.predictions import Prediction, read_predictions
from bundle.runs.run import Run
from tests.evaluation.asking import client_of
from tests.evaluation.test_evaluation import evaluation_of, question
from tests.openai_api import Call, completion, error, loopback_api


def prediction(number: int, reply: str | None, answer: str = "A", *, early: bool = False) -> Prediction:
    return Prediction(
        task="t",
        split="val",
        subject="law",
        id=number,
        reply=reply,
        answer=None if reply is None else answer,
        gold="A",
        correct=None,
        finish_reason="stop",
        decided_early=early,
        prompt_tokens=1,
        completion_tokens=1,
        latency_s=0.1,
        attempts=1,
        error="HTTP 500" if reply is None else None,
    )


def test_a_hundred_questions_are_spread_over_the_subjects() -> None:
    questions = [question("law", number) for number in range(200)] + [question("logic", number) for number in range(30)]
    sample = spread_over_subjects(questions)
    assert len(sample) == 100
    assert [one.id for one in sample if one.subject == "logic"] == list(range(30))
    assert [one.id for one in sample if one.subject == "law"] == list(range(70))


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        (prediction(0, "A"), prediction(0, "A"), (0, 0, 0)),
        (prediction(0, "A. yes"), prediction(0, "A. no"), (0, 1, 0)),
        (prediction(0, "A"), prediction(0, "B", "B"), (1, 1, 0)),
        (prediction(0, "A. ye", early=True), prediction(0, "A. yes", early=True), (0, 0, 0)),
        (prediction(0, "A. ye", early=True), prediction(0, "A. no", early=True), (0, 1, 0)),
        (prediction(0, "A"), prediction(0, None), (0, 0, 1)),
    ],
)
def test_answers_and_replies_that_changed_are_counted(
    before: Prediction, after: Prediction, changed: tuple[int, int, int]
) -> None:
    repeat = compare([before], [[after]])
    assert (repeat.answers_changed, repeat.replies_changed, repeat.failed) == changed


def test_a_question_counts_once_however_often_it_was_asked() -> None:
    repeat = compare([prediction(0, "A")], [[prediction(0, "B", "B")], [prediction(0, "C", "C")]])
    assert (repeat.questions, repeat.times, repeat.answers_changed, repeat.replies_changed) == (1, 3, 1, 1)


async def test_asking_again_changes_no_score_and_no_file(tmp_path: Path) -> None:
    async def handler(call: Call) -> web.Response:
        if "law 3" in call.body["messages"][-1]["content"]:
            return error(400, "no")
        return completion("A" if call.number <= 6 else "B")

    questions = [question("law", number) for number in range(6)]
    with Run.create(tmp_path, "r") as run:
        evaluation = evaluation_of(run, questions, 1)
        async with loopback_api(handler) as api, client_of(api.url) as client:
            await evaluation.ask(client)
            before, rows = evaluation.results({}), read_predictions(run.directory)
            await evaluation.repeat(client, 2)
        after = evaluation.results({})

    assert (after.scores, after.coverage, read_predictions(run.directory)) == (before.scores, before.coverage, rows)
    assert after.repeat is not None
    assert (after.repeat.questions, after.repeat.answers_changed, after.repeat.replies_changed) == (5, 5, 5)
    assert "repeat" not in before.to_json()


async def test_a_servers_counts_come_with_replies_of_one_token_each(tmp_path: Path) -> None:
    async def handler(call: Call) -> web.Response:
        if "law 1" in call.body["messages"][-1]["content"]:
            return error(400, "too long")
        return completion("A")

    with Run.create(tmp_path, "r") as run:
        evaluation = evaluation_of(run, [], 1)
        async with loopback_api(handler) as api, client_of(api.url) as client:
            replies = await evaluation.first_tokens(client, [question("law", number) for number in range(3)])

    assert [reply and (reply.text, reply.prompt_tokens) for reply in replies] == [("A", 7), None, ("A", 7)]
    assert [body["max_tokens"] for body in api.bodies] == [1, 1, 1]
