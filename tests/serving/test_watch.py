"""A server that was ready and has died, or no longer answers requests, or hangs, is noticed."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from bundle.errors import ServerError
from bundle.serving.health import wait_for_trouble
from bundle.serving.server import Server
from tests.patience import PATIENCE_S, fastest_of
from tests.serving.stand_in import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def test_a_dead_server_is_noticed_at_once(stage: Stage) -> None:
    async with stage.supervisor() as server, asyncio.timeout(PATIENCE_S):
        watching = asyncio.create_task(wait_for_trouble(server, lambda: 0.0, 60))
        os.kill(server.pid, signal.SIGKILL)

        assert "died (killed by SIGKILL)" in (await watching).message


async def test_a_server_that_answers_nothing_any_more_hangs(stage: Stage) -> None:
    async with stage.supervisor() as server, asyncio.timeout(PATIENCE_S):
        os.kill(server.pid, signal.SIGSTOP)

        trouble = await wait_for_trouble(server, lambda: 0.0, 60, health_silence_s=1.0)

        assert "hangs: its health check has not answered for 1 s" in trouble.message


async def test_a_healthy_server_whose_replies_do_not_come_hangs(stage: Stage) -> None:
    async with stage.supervisor() as server, asyncio.timeout(PATIENCE_S):
        trouble = await wait_for_trouble(server, lambda: 2.0, 1.0)

        assert "hangs: no reply, not even a part of one, for 1 s" in trouble.message
        assert "--hang-timeout" in str(trouble)


OUT_OF_MEMORY = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"


async def noticed(stage: Stage, harm: Callable[[Server], None], *options: str) -> ServerError:
    """What is said of a server whose engine is harmed while the API server lives on; within 2 s."""
    troubles: list[ServerError] = []

    async def once() -> float:
        stage.write("healthy")
        async with stage.supervisor(*options) as server, asyncio.timeout(PATIENCE_S):
            watching = asyncio.create_task(wait_for_trouble(server, lambda: 0.0, 60))
            await asyncio.sleep(0.5)
            assert not watching.done()
            began = time.monotonic()
            harm(server)
            troubles.append(await watching)
            return time.monotonic() - began

    assert await fastest_of(once, below=2) < 2
    assert "is running but no longer answers requests" in troubles[-1].message
    return troubles[-1]


def logs(stage: Stage, *lines: str) -> None:
    with stage.log.open("a") as log:
        log.write("\n".join([*lines, ""]))


async def test_a_line_that_says_the_engine_died_is_noticed_with_the_cause_that_the_log_holds(stage: Stage) -> None:
    trouble = await noticed(stage, lambda _: logs(stage, OUT_OF_MEMORY, "the engine died"))
    assert "its log says 'the engine died'" in trouble.message
    assert "the GPU has too little free memory" in trouble.message
    assert "--cache-max-entry-count" in str(trouble.remedy)
    assert trouble.details == (OUT_OF_MEMORY,)


async def test_a_health_check_that_says_the_engine_died_is_noticed(stage: Stage) -> None:
    options = ("--healthy-when", str(stage.directory / "healthy"), "--unhealthy-because", "the engine died")
    trouble = await noticed(stage, lambda _: (stage.directory / "healthy").unlink(), *options)
    assert "its health check says" in trouble.message
    assert "the engine died" in trouble.message


async def test_a_health_check_that_stays_at_503_without_replies_means_a_hang(stage: Stage) -> None:
    stage.write("healthy")
    options = ("--healthy-when", str(stage.directory / "healthy"), "--unhealthy-because", "the probe timed out")
    async with stage.supervisor(*options) as server, asyncio.timeout(PATIENCE_S):
        (stage.directory / "healthy").unlink()
        trouble = await wait_for_trouble(server, lambda: 60.0, 600, health_silence_s=1.0)
        assert 'hangs: its health check has answered HTTP 503 ({"message": "the probe timed out"}) for 1 s' in str(
            trouble
        )


async def test_a_busy_server_whose_health_check_says_503_while_replies_come_lives(stage: Stage) -> None:
    """lmdeploy's answers so while a step of its engine takes more than ten seconds."""
    stage.write("healthy")
    async with stage.supervisor("--healthy-when", str(stage.directory / "healthy")) as server:
        (stage.directory / "healthy").unlink()
        watching = asyncio.create_task(wait_for_trouble(server, lambda: 0.3, 600, health_silence_s=0.5))
        done, _ = await asyncio.wait({watching}, timeout=3)
        watching.cancel()
        assert not done


async def test_the_death_of_the_process_that_computes_is_noticed(stage: Stage) -> None:
    def kill(server: Server) -> None:
        (child,) = psutil.Process(server.pid).children()
        child.kill()

    trouble = await noticed(stage, kill, "--worker", "child")
    assert "of its engine has ended" in trouble.message


async def test_the_death_of_other_children_means_nothing(stage: Stage) -> None:
    async with stage.supervisor("--worker", "stubborn") as server:
        (child,) = psutil.Process(server.pid).children()
        watching = asyncio.create_task(wait_for_trouble(server, lambda: 0.0, 60))
        await asyncio.sleep(0.5)
        child.kill()
        done, _ = await asyncio.wait({watching}, timeout=2)
        watching.cancel()
        assert not done


async def test_what_the_log_reveals_is_added_to_an_error_that_does_not_know_it(stage: Stage) -> None:
    async with stage.supervisor() as server:
        unknown = ServerError("Every request fails with HTTP 503.", remedy="Look at it.")
        assert server.explained(unknown).message == unknown.message
        logs(stage, OUT_OF_MEMORY)
        assert server.explained(unknown).message == (
            "Every request fails with HTTP 503. Its log shows why: the GPU has too little free memory."
        )
        explained = ServerError("It died.", details=["why"])
        assert server.explained(explained) is explained
