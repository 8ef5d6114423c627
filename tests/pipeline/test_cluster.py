"""What ``--cluster`` does without a cluster; `tests/cluster` has one."""

import asyncio
import importlib.util
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bundle.errors import UsageError
from bundle.fleet import Link, Machine
from bundle.fleet.wire import from_line, to_line
from bundle.pipeline.cluster import Cluster
from bundle.pipeline.local import Local
from bundle.pipeline.local_checkpoint import LocalCheckpoint
from bundle.pipeline.options import ALL, LocalOptions
from bundle.pipeline.placement import Placement
from bundle.reports.screen.console import Screen
from bundle.runs.record import versions
from bundle.serving import machine as serving
from tests.patience import eventually
from tests.program import call


@pytest.fixture
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "ray" else found(name, *more))


@pytest.mark.usefixtures("_without_ray")
@pytest.mark.parametrize(
    "command", [["eval-local", "--data", "sample", "--cluster", "auto"], ["doctor", "--cluster", "auto"]]
)
def test_without_ray_it_says_how_to_install_it(command: list[str], tiny: Path, tmp_path: Path) -> None:
    where = [tiny, "--out", tmp_path / "out"] if command[0] == "eval-local" else []
    ended = call(*command, *where, environment=os.environ)
    assert ended.returncode == 2
    assert "pip install '.[cluster]'" in ended.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gpu", "0"], "--gpu has no effect with --cluster"),
        (["--cluster", "ray://head:10001"], "an address is HOST:PORT"),
        (["--cluster", "head"], "an address is HOST:PORT"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: list[str], said: str, tiny: Path, tmp_path: Path) -> None:
    command = ["eval-local", tiny, "--data", "sample", "--out", tmp_path / "out", "--cluster", "auto"]
    ended = call(*command, *options, environment=os.environ)
    assert ended.returncode == 2
    assert said in ended.stderr


def test_several_checkpoints_are_not_for_a_cluster(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "other")
    ended = call(
        "eval-local", tiny, tmp_path / "other", "--out", tmp_path / "out", "--cluster", "auto", environment=os.environ
    )
    assert ended.returncode == 2
    assert "--cluster is for a single checkpoint" in ended.stderr


class ScriptedProgram:
    """A worker that is lost when it is ended, as any is."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.link = Link(lambda data: None, node)

    async def end(self) -> None:
        self.link.lose("it has ended")


class ScriptedHost:
    """A cluster of two machines with room for everybody, once there is."""

    def __init__(self) -> None:
        self.machines = [Machine(name, name, gpus=1, cpus=1) for name in ("old", "new")]
        self.placed: list[str] = []
        self.asked = 0
        self.has_room = asyncio.Event()

    async def start(self, *arguments: str, avoid: Collection[str], **room: object) -> ScriptedProgram:
        self.asked += 1
        await self.has_room.wait()
        self.placed.append(next(machine.node for machine in self.machines if machine.node not in avoid))
        return ScriptedProgram(self.placed[-1])


@pytest.mark.parametrize("leads", [True, False], ids=["the first server", "a further one"])
async def test_a_machine_with_another_version_is_done_without_for_good(
    leads: bool, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def begin(_: Cluster, program: ScriptedProgram, *more: object) -> ScriptedProgram:
        if program.node == "old":
            raise UsageError("old: bundle 0.0 there, 0.1.0 elsewhere.")
        return program

    monkeypatch.setattr(Cluster, "_begin", begin)
    cluster: Any = Cluster(Local(LocalCheckpoint(tiny, LocalOptions(), []), serving.Machine()), "auto")
    host: Any = ScriptedHost()
    host.has_room.set()
    cluster._places = Placement(host, 1, ALL, None)
    cluster._places._first_placed.set()

    for _ in range(2):
        assert (await cluster.worker(Screen(), leads=leads)).node == "new"
    assert host.placed == ["old", "new", "new"]


async def test_no_further_server_takes_the_place_that_the_first_one_waits_for() -> None:
    host: Any = ScriptedHost()
    places = Placement(host, 1, ALL, None)
    first = asyncio.ensure_future(places.place(Screen(), leads=True))
    await eventually(lambda: host.asked)
    further = asyncio.ensure_future(places.place(Screen(), leads=False))
    await asyncio.sleep(0)
    assert host.asked == 1

    host.has_room.set()

    await first
    await further
    assert host.asked == 2


class AnsweringProgram(ScriptedProgram):
    """A worker that opens and prepares what it is given; ``other`` is what its engine has otherwise than others."""

    def __init__(self, node: str, **other: object) -> None:
        super().__init__(node)
        self.asked: dict[str, Any] = {}
        self._engine = {"name": "lmdeploy", "version": "0.18.0", "dtype": "bfloat16", "gpus": ["H100"], **other}
        self.link = Link(self._answer, node)
        self.link.received(to_line(0, "hello", versions()))

    def _answer(self, data: bytes) -> None:
        number, name, self.asked[name] = from_line(data)
        answers = {"open": {"fingerprint": "f", "engine": "lmdeploy"}, "prepare": {"engine": self._engine}}
        self.link.received(to_line(number, "result", answers[name]))


@pytest.fixture
def opened(tiny: Path) -> Any:
    given = LocalCheckpoint(tiny, LocalOptions(model_file="./mine.toml"), [])
    cluster: Any = Cluster(Local(given, serving.Machine()), "auto")
    cluster._model, cluster._requests = SimpleNamespace(fingerprint="f"), {}
    host: Any = ScriptedHost()
    cluster._places = Placement(host, 1, ALL, None)
    return cluster


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"version": "0.16.0"}, "two: the engine's version 0.16.0 there, 0.18.0 elsewhere"),
        ({"dtype": "float16"}, "two: the engine's dtype float16 there, bfloat16 elsewhere"),
        ({"file_arguments": ["--tp", "2"]}, "two: the engine's file_arguments"),
    ],
)
async def test_a_server_that_would_compute_in_another_way_is_refused(
    other: dict[str, object], said: str, opened: Any
) -> None:
    opened._first = await opened._begin(AnsweringProgram("one"), Screen())
    with pytest.raises(UsageError, match=said):
        await opened._begin(AnsweringProgram("two", **other), Screen())
    await opened._begin(AnsweringProgram("three", gpus=["H200"]), Screen())


async def test_a_path_means_the_same_in_a_workers_current_directory(opened: Any) -> None:
    program = AnsweringProgram("one")
    await opened._begin(program, Screen())
    assert program.asked["open"][1]["model_file"] == str(Path.cwd() / "mine.toml")
