"""The worker, over plain pipes."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from bundle.checkpoints import fingerprint, inspect_checkpoint
from bundle.client import ClientSettings
from bundle.errors import CheckpointError, ServerError
from bundle.fleet import DistantClient, Link
from bundle.pipeline.options import LocalOptions
from bundle.pipeline.plan import Requests
from bundle.runs.record import versions
from bundle.system.locks import Lock
from bundle.tasks.prompts import Message
from tests.patience import PATIENCE_S, eventually
from tests.program import carrying
from tests.stand_ins.box import gpu_box
from tests.stand_ins.journal import Story, read_journal

REQUESTS = Requests(False, False, 64, ClientSettings(temperature=0.0, timeout_s=600.0, retries=3))
MESSAGES: list[Message] = [{"role": "user", "content": "甲乙丙丁"}]


@dataclass
class Machine:
    """Where the worker is."""

    directory: Path
    process: asyncio.subprocess.Process
    link: Link

    @property
    def story(self) -> Story:
        return read_journal(self.directory / "journal")

    async def check_nothing_is_left(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.process.wait()
        await eventually(lambda: not carrying(str(self.directory)))


@contextlib.asynccontextmanager
async def machine(directory: Path, behaviour: str = "good") -> AsyncIterator[Machine]:
    environment = gpu_box(directory, behaviour=behaviour)
    environment["LMDEPLOY_STAND_IN_JOURNAL"] = str(directory / "journal")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bundle.worker"),
        env=environment | {"TMPDIR": str(directory)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    link = Link(process.stdin.write, "node-1")

    async def listen(frames: asyncio.StreamReader) -> None:
        while data := await frames.read(2**16):
            link.received(data)
        link.lose("it has ended")

    listening = asyncio.ensure_future(listen(process.stdout))
    try:
        yield Machine(directory, process, link)
    finally:
        if process.returncode is None:
            process.kill()
        await listening
        await process.wait()


async def served(there: Machine, model_dir: Path) -> DistantClient:
    link = there.link
    assert await link.hello() == versions()
    found = await link.call("open", str(model_dir), asdict(LocalOptions()), [])
    assert found["fingerprint"] == fingerprint(inspect_checkpoint(model_dir))
    assert found["engine"] == "lmdeploy"
    prepared = await link.call("prepare", asdict(REQUESTS))
    assert prepared["engine"]["gpus"] == ["NVIDIA H100 80GB HBM3"]
    (rendered,) = (await link.call("prove", [MESSAGES]))["rendered"]
    await link.call("serve", "/runs/server.log")
    client = DistantClient(link, prepared["scoring"])
    assert (await client.ask(MESSAGES, 1)).prompt_tokens == rendered["tokens"]
    return client


async def test_where_its_log_is_no_doctor_takes_for_left_behind(tmp_path: Path) -> None:
    async with machine(tmp_path) as there:
        await there.link.hello()
        (directory,) = tmp_path.glob("bundle-server-*")
        assert Lock(directory).is_held()
        there.link.stop()
        await there.check_nothing_is_left()
    assert not directory.exists()


async def test_it_serves_and_asks_and_leaves_nothing(tiny: Path, tmp_path: Path) -> None:
    async with machine(tmp_path) as there:
        logged: list[str] = []
        there.link.heard = lambda kind, text: logged.append(text) if kind == "log" else None
        client = await served(there, tiny)
        client.send_always({"top_k": 1})
        replies = await asyncio.gather(*(client.ask(MESSAGES, 64) for _ in range(5)))
        assert [one.text for one in replies] == ["A"] * 5
        there.link.tell("stop")
        await there.check_nothing_is_left()
        assert there.process.returncode == 0
        assert "Loading weights" in "".join(logged)
        assert all(fields["top_k"] == 1 for fields in there.story.all_of("fields"))
        assert not list(tmp_path.glob("bundle-*"))


async def test_its_server_dies_and_it_says_why_and_where(tiny: Path, tmp_path: Path) -> None:
    async with machine(tmp_path) as there:
        await served(there, tiny)
        attending = asyncio.ensure_future(there.link.call("attend"))
        os.kill(there.story.lives[-1], signal.SIGKILL)
        with pytest.raises(ServerError, match="node-1: The lmdeploy server died") as met:
            await attending
        assert "/runs/server.log" in str(met.value.remedy)
        there.link.tell("stop")
        await there.check_nothing_is_left()


async def test_its_driver_is_gone(tiny: Path, tmp_path: Path) -> None:
    async with machine(tmp_path, "silent") as there:
        await served(there, tiny)
        assert there.process.stdin is not None
        there.process.stdin.close()
        await there.check_nothing_is_left()


@pytest.mark.slow
async def test_it_is_killed(tiny: Path, tmp_path: Path) -> None:
    async with machine(tmp_path, "stubborn") as there:
        await served(there, tiny)
        there.process.kill()
        await there.check_nothing_is_left()


async def test_a_checkpoint_that_is_not_there_is_an_error_of_that_machine(tmp_path: Path) -> None:
    async with machine(tmp_path) as there:
        with pytest.raises(CheckpointError, match=r"node-1: .*missing"):
            await there.link.call("open", str(tmp_path / "missing"), asdict(LocalOptions()), [])
