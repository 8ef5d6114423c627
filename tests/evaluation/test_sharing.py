"""One run on two servers, in one event loop."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from bundle.evaluation import AskingOptions, Evaluation
from bundle.runs.predictions import read_predictions
from bundle.runs.run import Run
from bundle.tasks.catalog import Question, find_task
from tests.evaluation.asking import MESSAGES, client_of
from tests.openai_api import Call, Handler, chunks_of, completion, loopback_api, send_stream
from tests.patience import PATIENCE_S

EXPLAINED = ["答案是", "B。", *("因为 x 。" for _ in range(40))]
THOUGHT = ["A or B?", *("?" * 40), "</think>", "C"]
SUBJECTS = ("law", "logic", "physician", "accountant")


def questions() -> list[Question]:
    return [Question("ceval_gen", "val", name, number, MESSAGES, "C", 5) for name in SUBJECTS for number in range(20)]


async def asked_on_two(directory: Path, first: Handler, second: Handler, options: AskingOptions) -> Evaluation:
    with Run.create(directory, "r") as run:
        evaluation = Evaluation(
            [find_task("ceval_gen")],
            questions(),
            run,
            lambda _: None,
            max_out_len={"ceval_gen": 64},
            asking=options,
            servers=2,
        )
        async with (
            loopback_api(first) as one,
            loopback_api(second) as other,
            client_of(one.url) as lead,
            client_of(other.url) as helper,
            asyncio.timeout(PATIENCE_S),
        ):
            helping = asyncio.create_task(evaluation.help_asking(1, helper))
            await evaluation.ask(lead, ours=True)
            helping.cancel()
            await asyncio.wait({helping})
            assert helping.cancelled()
    return evaluation


async def test_text_that_turns_out_to_be_thinking_on_one_server_ends_early_stopping_on_both(tmp_path: Path) -> None:
    """And what was stopped on either is asked again."""
    calls = 0
    shown = asyncio.Event()

    async def reply(call: Call) -> web.StreamResponse:
        if call.body.get("stream"):
            return await send_stream(call, chunks_of(EXPLAINED))
        return completion("".join(THOUGHT))

    async def first(call: Call) -> web.StreamResponse:
        nonlocal calls
        calls += 1
        if calls > 40:
            await shown.wait()
        return await reply(call)

    async def second(call: Call) -> web.StreamResponse:
        nonlocal calls
        calls += 1
        if calls > 20 and not shown.is_set():
            shown.set()
            return await send_stream(call, chunks_of(["hm", "</think>", "C"]))
        return await reply(call)

    options = AskingOptions(4, adaptive=False, full_replies=False, prefix_order=True)
    evaluation = await asked_on_two(tmp_path, first, second, options)

    results = evaluation.results({})
    assert results.coverage.answered == sum(server["answered"] for server in results.replicas or ()) == 80
    assert not any(one.decided_early for one in evaluation.predictions)
    (directory,) = tmp_path.iterdir()
    last = {row.key: row for row in read_predictions(directory)}
    assert len(last) == 80
    assert not any(row.decided_early for row in last.values())


@pytest.mark.parametrize("prefix_order", [True, False])
async def test_each_question_is_asked_once_and_counted_where_it_was(tmp_path: Path, prefix_order: bool) -> None:
    counts = {"first": 0, "second": 0}
    both = asyncio.Barrier(2)

    def server(name: str) -> Handler:
        async def reply(call: Call) -> web.StreamResponse:
            counts[name] += 1
            if counts[name] == 1:
                await both.wait()  # each has been asked something
            return completion("C")

        return reply

    options = AskingOptions(4, adaptive=False, full_replies=True, prefix_order=prefix_order)
    evaluation = await asked_on_two(tmp_path, server("first"), server("second"), options)

    results = evaluation.results({})
    assert sum(counts.values()) == results.coverage.answered == 80
    assert results.replicas == [{"answered": count, "correct": count} for count in counts.values()]
