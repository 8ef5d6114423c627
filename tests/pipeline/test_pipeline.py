"""A run over a target whose servers come and go, in this process."""

import asyncio
import contextlib
import gc
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from bundle.client import ChatClient, ClientSettings, Endpoint
from bundle.config.model_files import ModelFile
from bundle.errors import BundleError, DataError, ExitCode, ServerError, UnexpectedError
from bundle.pipeline.options import EvaluationOptions
from bundle.pipeline.pipeline import evaluate
from bundle.pipeline.plan import Loaded, Plan
from bundle.pipeline.targets import Prepared, Server, Target, Timing
from bundle.reports.screen.console import Screen
from bundle.runs.record import RemoteModelRecord, Served
from tests.openai_api import Call, letter, loopback_api
from tests.program import results_of, rows_of

SAMPLE = 104
FOREVER = SAMPLE + 1
NEVER_STARTS = -1


class Mortal(Target, Prepared):
    """A target, and itself as prepared, whose servers die after so many replies each.

    Attributes:
        served: How many servers there have been.
        stopped: How many of them are no more.
        most_in_flight: How many requests there have been at a time.
    """

    model_file = ModelFile(description="mortal")
    label, concurrency = "mortal", 4

    def __init__(self, replies: Sequence[int], *, check: Exception | None = None) -> None:
        self._replies = replies
        self._check = check
        self._replied = asyncio.Condition()
        self._count = 0
        self.max_restarts = len(replies) - 1
        self.served = self.stopped = 0
        self.most_in_flight = self._in_flight = 0

    async def prepare(self, plan: Plan, screen: Screen, timing: Timing) -> "Mortal":
        return self

    def kill(self) -> None:
        raise AssertionError

    async def check(self, started: asyncio.Event, loading: Awaitable[Loaded]) -> None:
        await started.wait()
        if self._check is not None:
            raise self._check

    def describe(self) -> Served:
        return Served(RemoteModelRecord(name="mortal", base_url="nowhere"))

    @contextlib.asynccontextmanager
    async def serve(self, log: Path, started: asyncio.Event) -> AsyncIterator[Server]:
        self.served += 1
        self.concurrency = 4 if self.served == 1 else 99
        started.set()
        replies = self._replies[self.served - 1]
        if replies == NEVER_STARTS:
            self.stopped += 1
            raise ServerError("the server does not start")
        self._count = 0

        async def handler(call: Call) -> web.StreamResponse:
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
            await self.reply()
            await asyncio.sleep(0.005)  # for others to come meanwhile
            self._in_flight -= 1
            return await letter(call)

        try:
            async with loopback_api(handler) as api:
                client = ChatClient(Endpoint(api.url), "mortal", ClientSettings(temperature=0, timeout_s=60, retries=0))
                yield Server(client, lambda work: self.attend(work, replies))
        finally:
            self.stopped += 1

    async def attend(self, work: Coroutine[Any, Any, None], replies: int) -> ServerError | None:
        asking, dying = asyncio.ensure_future(work), asyncio.ensure_future(self.have_replied(replies))
        await asyncio.wait({asking, dying}, return_when=asyncio.FIRST_COMPLETED)
        for task in (asking, dying):
            task.cancel()
        await asyncio.gather(asking, dying, return_exceptions=True)
        if asking.cancelled():
            return ServerError("the server died")
        asking.result()
        return None

    async def reply(self) -> None:
        async with self._replied:
            self._count += 1
            self._replied.notify_all()

    async def have_replied(self, times: int) -> None:
        async with self._replied:
            await self._replied.wait_for(lambda: self._count >= times)


async def evaluated(target: Mortal, out: Path, **options: Any) -> int:
    code = await evaluate(EvaluationOptions(data={"": "sample"}, out=out, **options), target, Screen())
    assert target.stopped == target.served
    return code


async def test_a_server_that_lives_is_asked_everything(tmp_path: Path) -> None:
    target = Mortal([FOREVER, FOREVER])
    assert await evaluated(target, tmp_path) == ExitCode.DONE
    assert target.served == 1
    assert results_of(tmp_path)["coverage"] == {"total": SAMPLE, "answered": SAMPLE, "failed": 0}


async def test_the_next_server_is_asked_what_the_last_one_has_left(tmp_path: Path) -> None:
    target = Mortal([20, 20, FOREVER])
    assert await evaluated(target, tmp_path) == ExitCode.DONE
    assert target.served == 3
    keys = [(row["subject"], row["id"]) for row in rows_of(tmp_path)]
    assert len(keys) == len(set(keys)) == SAMPLE


def clients() -> list[object]:
    """All that are alive; other tests may have left some."""
    return [one for one in gc.get_objects() if type(one) is ChatClient]


async def test_nothing_of_a_lost_server_is_kept(tmp_path: Path) -> None:
    threshold, before = gc.get_threshold(), clients()
    await evaluated(Mortal([10, 10, 10, 10, FOREVER]), tmp_path)
    assert (gc.get_threshold(), gc.get_freeze_count()) == (threshold, 0)
    gc.collect()
    assert not [one for one in clients() if not any(one is another for another in before)]


async def test_a_restart_that_fails_says_nothing_of_suspects_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await evaluated(Mortal([20, NEVER_STARTS, FOREVER]), tmp_path)
    said = capsys.readouterr().err
    assert said.count("in flight; asking") == 1
    assert said.count("restarting the server") == 2


async def test_a_restart_that_fails_is_a_life_lost(tmp_path: Path) -> None:
    target = Mortal([20, NEVER_STARTS, FOREVER])
    assert await evaluated(target, tmp_path) == ExitCode.DONE
    assert target.served == 3


async def test_a_first_start_that_fails_ends_the_run(tmp_path: Path) -> None:
    target = Mortal([NEVER_STARTS, FOREVER])
    with pytest.raises(ServerError, match="does not start"):
        await evaluate(EvaluationOptions(data={"": "sample"}, out=tmp_path), target, Screen())
    assert target.served == 1


async def test_the_last_servers_death_ends_the_run_with_what_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = Mortal([20, 20])
    with pytest.raises(ServerError, match="died") as caught:
        await evaluated(target, tmp_path)
    assert caught.value.exit_code == ExitCode.SERVER
    answered = results_of(tmp_path)["coverage"]["answered"]
    assert 0 < answered < SAMPLE
    assert f"{answered} of {SAMPLE} questions answered" in capsys.readouterr().out


async def test_a_fault_of_this_program_keeps_the_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = itertools.count(1)

    def answered(screen: Screen, prediction: object) -> None:
        if next(count) == 20:
            raise ZeroDivisionError("of its own")

    monkeypatch.setattr(Screen, "answered", answered)
    with pytest.raises(UnexpectedError) as caught:
        await evaluated(Mortal([FOREVER]), tmp_path)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert caught.value.directory is not None
    assert results_of(tmp_path)["coverage"]["answered"] >= 20


@pytest.mark.parametrize("where", ["check", "data"])
async def test_whatever_fails_first_ends_the_rest(tmp_path: Path, where: str) -> None:
    fault: BundleError = DataError("this one")
    target = Mortal([FOREVER], check=fault if where == "check" else None)
    data = {"": str(tmp_path / "nowhere") if where == "data" else "sample"}
    with pytest.raises(DataError, match="this one" if where == "check" else "nowhere"):
        await evaluate(EvaluationOptions(data=data, out=tmp_path / "out"), target, Screen())
    assert target.stopped == target.served


async def test_the_concurrency_on_record_is_the_one_that_is_used(tmp_path: Path) -> None:
    target = Mortal([10, 10, FOREVER])
    await evaluated(target, tmp_path, limit=1)
    (path,) = tmp_path.glob("*/run.json")
    record = json.loads(path.read_text())
    assert target.served == 3
    assert record["concurrency"] == 4
    assert target.most_in_flight <= 4


async def test_a_cancelled_run_reports_what_was_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = Mortal([FOREVER])
    running = asyncio.ensure_future(evaluated(target, tmp_path, qps=50))
    await target.have_replied(10)
    running.cancel()
    assert await running == ExitCode.INTERRUPTED
    assert "interrupted" in capsys.readouterr().err
    assert 0 < results_of(tmp_path)["coverage"]["answered"] < SAMPLE
