"""When a server has ended, the driver is asked whether its memory is free again."""

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from bundle.serving.gpu_memory import GpuMemory
from bundle.serving.gpus import ask_for_gpus
from tests.patience import PATIENCE_S
from tests.stand_ins.box import GPU, install

Row = Sequence[object]


class Driver:
    """What ``nvidia-smi`` says from now on."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        monkeypatch.setenv("PATH", f"{install(directory / 'bin', 'nvidia-smi')}{os.pathsep}{os.environ['PATH']}")
        self.says()

    def says(self, *processes: Row, free_mib: int = 80000) -> None:
        gpus = [[*GPU[:4], free_mib, *GPU[5:]]]
        self._monkeypatch.setenv("NVIDIA_SMI_STAND_IN", json.dumps({"gpus": gpus, "processes": list(processes)}))


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    return Driver(tmp_path, monkeypatch)


OURS = (GPU[1], os.getpid(), "lmdeploy", 3000)
SOMEBODY_ELSES = (GPU[1], 1, "train.py", 20000)


async def served(driver: Driver, *processes: Row) -> GpuMemory:
    """A server with our pid that has been noted, while these processes held memory."""
    memory = GpuMemory(ask_for_gpus().gpus)
    driver.says(*processes)
    await memory.note(os.getpid())
    return memory


async def test_memory_that_is_free_again_is_not_mentioned(driver: Driver) -> None:
    memory = await served(driver, OURS, SOMEBODY_ELSES)
    driver.says(SOMEBODY_ELSES, free_mib=40000)

    assert await memory.wait_until_free(PATIENCE_S) is None


async def test_a_driver_that_takes_a_moment_is_waited_for(driver: Driver) -> None:
    memory = await served(driver, OURS)
    waiting = asyncio.create_task(memory.wait_until_free(PATIENCE_S))
    done, _ = await asyncio.wait({waiting}, timeout=1.5)
    assert not done

    driver.says()

    assert await waiting is None


async def test_memory_that_stays_held_is_told(driver: Driver) -> None:
    memory = await served(driver, OURS)

    assert await memory.wait_until_free(1.5) == (
        f"GPU 0: the driver still counts 2.9 GiB for process {os.getpid()} of the server, which has ended; "
        "see nvidia-smi"
    )


async def test_where_the_driver_names_nobody_the_free_memory_is_compared(driver: Driver) -> None:
    memory = await served(driver)
    driver.says(free_mib=70000)
    held = await memory.wait_until_free(1.5)
    driver.says(free_mib=79900)

    assert held is not None
    assert "GPU 0 has 9.8 GiB less free memory than before, and its driver does not report what uses it" in held
    assert await memory.wait_until_free(PATIENCE_S) is None


async def test_a_server_on_the_cpu_is_not_asked_about(driver: Driver) -> None:
    memory = GpuMemory([])
    driver.says(OURS)
    await memory.note(os.getpid())

    assert await memory.wait_until_free(PATIENCE_S) is None
