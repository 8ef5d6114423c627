"""A server that was ready and has died, or hangs, is noticed."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from bundle.serving.health import wait_for_trouble
from tests.patience import PATIENCE_S
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

        assert "hangs: no reply, nor any part of one, for 1 s" in trouble.message
        assert "--hang-timeout" in str(trouble)
