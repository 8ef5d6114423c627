"""One task's questions, all asked at once, written down and scored."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pytest
from aiohttp import web

from bundle.client import RefusedError
from bundle.errors import RunError
from bundle.evaluation import AskingOptions, Evaluation
from bundle.runs.predictions import read_predictions
from bundle.runs.results import Coverage
from bundle.runs.run import Run
from bundle.tasks.catalog import Question, find_task
from bundle.tasks.prompts import Message
from tests.evaluation.asking import client_of
from tests.openai_api import Call, completion, error, loopback_api
from tests.patience import PATIENCE_S

TASK = find_task("ceval_gen")
SHORT = {"ceval_gen": 8}


def evaluation_of(
    run: Run, questions: Sequence[Question], concurrency: int, max_out_len: Mapping[str, int] = MappingProxyType(SHORT)
) -> Evaluation:
    """Of these tasks, in the order of the files."""
    asking = AskingOptions(concurrency, adaptive=False, full_replies=True, prefix_order=False)
    tasks = [find_task(name) for name in max_out_len]
    return Evaluation(tasks, questions, run, lambda _: None, max_out_len=max_out_len, asking=asking)


def question(subject: str, number: int, gold: str = "A") -> Question:
    message: Message = {"role": "user", "content": f"{subject} {number}"}
    return Question("ceval_gen", "val", subject, number, [message], gold, examples=0)


async def test_as_many_requests_are_in_flight_as_was_asked_for_with_no_barrier_between_subjects(tmp_path: Path) -> None:
    all_in = asyncio.Barrier(12)

    async def handler(call: Call) -> web.Response:
        await all_in.wait()  # only passed when 12 requests, of both subjects, are in flight together
        return completion("A")

    questions = [question(subject, number) for subject in ("law", "logic") for number in range(6)]
    with Run.create(tmp_path, "r") as run:
        evaluation = evaluation_of(run, questions, 12)
        async with loopback_api(handler) as api, client_of(api.url, retries=1) as client, asyncio.timeout(PATIENCE_S):
            await evaluation.ask(client)

    assert evaluation.results({}).coverage.answered == 12


async def test_never_more_requests_are_in_flight_than_was_asked_for(tmp_path: Path) -> None:
    in_flight = most = 0

    async def handler(call: Call) -> web.Response:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0)
        in_flight -= 1
        return completion("A")

    with Run.create(tmp_path, "r") as run:
        evaluation = evaluation_of(run, [question("law", number) for number in range(40)], 4)
        async with loopback_api(handler) as api, client_of(api.url, retries=1) as client:
            await evaluation.ask(client)

    assert most <= 4


async def test_a_question_without_a_reply_is_unanswered_and_not_wrong(tmp_path: Path) -> None:
    async def handler(call: Call) -> web.Response:
        asked = call.body["messages"][0]["content"]
        return error(400, "too long") if asked == "law 1" else completion("A")

    with Run.create(tmp_path, "r") as run:
        evaluation = evaluation_of(run, [question("law", number) for number in range(3)], 2)
        async with loopback_api(handler) as api, client_of(api.url, retries=1) as client:
            await evaluation.ask(client)

    results = evaluation.results({"ask_s": 1.23456})
    assert results.coverage == Coverage(total=3, answered=2, failed=1)
    law = results.scores["ceval-law"]
    assert (law.accuracy, law.n, law.answered) == (100.0, 3, 2)
    rows = {row.id: row for row in read_predictions(run.directory)}
    assert rows[1].correct is None
    assert rows[1].error is not None
    assert "too long" in rows[1].error
    assert rows[0].correct is True
    assert rows[0].error is None


async def test_a_refused_key_ends_the_run_at_once(tmp_path: Path) -> None:
    async def handler(call: Call) -> web.Response:
        return error(401, "who are you?")

    with Run.create(tmp_path, "r") as run:
        evaluation = evaluation_of(run, [question("law", number) for number in range(50)], 2)
        async with loopback_api(handler) as api, client_of(api.url, retries=1) as client:
            with pytest.raises(RefusedError):
                await evaluation.ask(client)

    assert len(api.bodies) <= 2
    assert evaluation.results({}).coverage.answered == 0


async def test_a_row_is_on_disk_while_other_questions_are_still_asked(tmp_path: Path) -> None:
    async def handler(call: Call) -> web.Response:
        if call.number == 2:
            while not read_predictions(run.directory):  # noqa: ASYNC110 - a file tells nobody that it has grown
                await asyncio.sleep(0.005)
        return completion("B")

    with Run.create(tmp_path, "r") as run:
        evaluation = evaluation_of(run, [question("law", number) for number in range(2)], 1)
        async with loopback_api(handler) as api, client_of(api.url, retries=1) as client, asyncio.timeout(PATIENCE_S):
            await evaluation.ask(client)

        assert len(read_predictions(run.directory)) == 2


async def test_a_row_that_cannot_be_written_ends_the_run(tmp_path: Path) -> None:
    async def handler(call: Call) -> web.Response:
        return completion("A")

    with Run.create(tmp_path, "r") as run:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, run._predictions._file.fileno())
        os.close(full)
        evaluation = evaluation_of(run, [question("law", 0)], 1)
        async with loopback_api(handler) as api, client_of(api.url, retries=1) as client:
            with pytest.raises(RunError, match="No space left on device"):
                await evaluation.ask(client)


async def test_what_a_run_knows_already_is_not_asked_again(tmp_path: Path) -> None:
    async def handler(call: Call) -> web.Response:
        return completion("A")

    questions = [question("law", number) for number in range(6)]
    with Run.create(tmp_path, "r") as run:
        run.write("run.json", {})
        evaluation = evaluation_of(run, questions[:4], 2)
        async with loopback_api(handler) as api, client_of(api.url, retries=1) as client:
            await evaluation.ask(client)

    with Run.resume(run.directory) as again:
        evaluation = evaluation_of(again, questions, 2)
        async with loopback_api(handler) as api, client_of(api.url, retries=1) as client:
            await evaluation.ask(client)

    assert [body["messages"][0]["content"] for body in api.bodies] == ["law 4", "law 5"]
    assert evaluation.results({}).coverage.answered == 6
    assert sorted(row.id for row in read_predictions(run.directory)) == list(range(6))


async def test_two_tasks_share_one_queue_and_keep_their_scores_apart(tmp_path: Path) -> None:
    async def handler(call: Call) -> web.Response:
        return completion("A" if call.body["max_tokens"] == 8 else "B")

    other = find_task("ceval_zero_shot_gen")
    message: Message = {"role": "user", "content": "law"}
    theirs = Question(other.name, "val", "law", 0, [message], "A", examples=0)
    with Run.create(tmp_path, "r") as run:
        evaluation = evaluation_of(run, [question("law", 0), theirs], 2, SHORT | {other.name: 256})
        async with loopback_api(handler) as api, client_of(api.url, retries=1) as client:
            await evaluation.ask(client)

    scores = evaluation.results({}).scores
    assert scores["ceval_gen/ceval-law"].accuracy == 100.0
    assert scores[f"{other.name}/ceval-law"].accuracy == 0.0
