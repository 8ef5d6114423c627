"""A run that is killed, or whose machine loses power, goes on and ends as if nothing had happened."""

import asyncio
import functools
import os
import random
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from bundle.evaluation import AskingOptions, Evaluation
from bundle.runs.run import Run
from bundle.tasks.catalog import Question, find_task
from tests.evaluation.asking import client_of
from tests.faults.box import ALL, whole_rows
from tests.faults.conftest import MakeBox
from tests.openai_api import Call, ScriptedApi, completion, letter, loopback_api, remote_api
from tests.patience import PATIENCE_S, wait_until
from tests.program import results_of, run, start
from tests.stand_ins.box import ROOT


def outcome(rows: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return sorted((row["subject"], row["id"], row["reply"], row["answer"], row["correct"]) for row in rows)


@pytest.mark.slow
def test_killed_repeatedly_at_random_moments(tmp_path: Path) -> None:
    async def slow_letter(call: Call) -> web.StreamResponse:
        await asyncio.sleep(0.1)
        return await letter(call)

    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    options = ["--data", "sample", "--concurrency", 4]
    seed = random.randrange(10**6)
    moments = random.Random(seed)
    out, log = tmp_path / "out", tmp_path / "log"
    with remote_api() as api:
        run("eval-remote", "m", "--base-url", api.url, *options, "--out", tmp_path / "whole", environment=environment)
    with remote_api(slow_letter) as api:
        command = ["eval-remote", "m", "--base-url", api.url, *options, "--out", out]
        process = start(*command, environment=environment, log=log)
        wait_until(lambda: list(out.glob("*/prompts.jsonl")))
        (run_directory,) = out.iterdir()
        kills = known = asked_before = 0
        while kills < 5 and process.poll() is None:
            time.sleep(moments.uniform(0.1, 1.0))
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            known, asked_before = len(whole_rows(out)), len(api.bodies)
            process = start(*command, "--resume", run_directory, environment=environment, log=log)
            wait_until(functools.partial(more_than, process, api, asked_before))
        assert process.wait(PATIENCE_S) == 0, (seed, log.read_text())

    assert len(api.bodies) - asked_before == ALL - known, seed  # in the last life: each open question once, no other
    assert results_of(out)["scores"] == results_of(tmp_path / "whole")["scores"]
    assert outcome(whole_rows(out)) == outcome(whole_rows(tmp_path / "whole"))


def more_than(process: "subprocess.Popen[bytes]", api: ScriptedApi, requests: int) -> bool:
    """Whether it has come to asking, or to its end."""
    return len(api.bodies) > requests or process.poll() is not None


@pytest.mark.slow
def test_killed_together_with_its_server(box: MakeBox) -> None:
    machine = box("silent; good")
    process = machine.start()
    machine.until_stuck()
    process.send_signal(signal.SIGKILL)
    process.wait()
    machine.check_nothing_is_left()
    had_rows = {machine.texts()[row["subject"], row["id"]] for row in machine.rows()}

    ended = machine.run("--resume", machine.run_directory.name)

    assert ended.code == 0
    assert not had_rows & set(machine.story.asked(life=2))
    assert len(machine.story.asked(life=2)) == ALL - len(had_rows)
    machine.check(answered=ALL)


@pytest.mark.slow
async def test_power_is_lost_at_any_byte_of_the_predictions(tmp_path: Path) -> None:
    task = find_task("ceval_gen")
    questions = [
        Question("ceval_gen", "val", "law", number, [{"role": "user", "content": f"题 {number}"}], "A", 0)
        for number in range(2)
    ]
    options = AskingOptions(2, adaptive=False, full_replies=True, prefix_order=False)

    async def handler(call: Call) -> web.Response:
        return completion("A" if call.body["messages"][0]["content"] != "题 1" else "B")

    async with loopback_api(handler) as api, client_of(api.url) as client, asyncio.timeout(60):
        with Run.create(tmp_path, "r") as begun:
            begun.write("run.json", {})
            evaluation = Evaluation(
                [task], questions, begun, lambda _: None, max_out_len={"ceval_gen": 8}, asking=options
            )
            await evaluation.ask(client)
        scores = evaluation.results({}).scores
        path = begun.directory / "predictions.jsonl"
        whole = path.read_bytes()
        first_row = whole.index(b"\n")  # `tests.runs.test_run` cuts all rows at all bytes, and does not ask
        for cut in (0, 1, *range(first_row, len(whole) + 1)):
            path.write_bytes(whole[:cut])
            before = len(api.bodies)
            with Run.resume(begun.directory) as again:
                evaluation = Evaluation(
                    [task], questions, again, lambda _: None, max_out_len={"ceval_gen": 8}, asking=options
                )
                await evaluation.ask(client)
            assert len(api.bodies) - before == 2 - whole[:cut].count(b"\n")
            assert evaluation.results({}).scores == scores
