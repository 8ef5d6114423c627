"""Several checkpoints in one command: a run each, one table, and the same command again for what is missing."""

import asyncio
import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import pytest

from bundle.checkpoints.internlm2 import make_checkpoint
from bundle.pipeline.sweep import say_all
from bundle.reports.screen.console import Screen
from tests.checkpoints.lora import lora_adapter
from tests.faults.box import ALL, Box
from tests.patience import PATIENCE_S, wait_until
from tests.reports.test_live_line import counted
from tests.stand_ins.box import with_gpus

TWO_GPUS = with_gpus(2)

MakeFolder = Callable[..., Path]


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "tiny"
    make_checkpoint(directory, like="tiny")
    return directory


@pytest.fixture
def training(original: Path, tmp_path: Path) -> MakeFolder:
    """Makes a folder with a checkpoint for each of these steps; their weights differ, and their tokenizers do not."""

    def make(*steps: int) -> Path:
        folder = tmp_path / "sft"
        for step in steps:
            copy = folder / f"checkpoint-{step}"
            shutil.copytree(original, copy)
            weights = copy / "model.safetensors"
            weights.write_bytes(weights.read_bytes()[:-4] + step.to_bytes(4, "big"))
        return folder

    return make


@pytest.fixture
def box(tmp_path: Path) -> Any:
    made: list[Box] = []

    def make(folder: Path, behaviour: str = "good", **more: str) -> Box:
        made.append(Box(tmp_path, folder, behaviour, **more))
        return made[-1]

    yield make
    for one in made:
        one.end()


def runs_of(box: Box) -> dict[str, Path]:
    """The runs by the names of their checkpoints; there is one of each."""
    found = {}
    for path in box.out.glob("*/run.json"):
        name = Path(json.loads(path.read_text())["model"]["path"]).name
        assert name not in found
        found[name] = path.parent
    return found


def sweeps_of(box: Box) -> list[dict[str, Any]]:
    """What each command has written down, the latest last."""
    return [json.loads(path.read_text()) for path in sorted(box.out.glob("*-sweep-*/sweep.json"))]


class Told(Screen):
    """Keeps what it is told to print, and what to redraw in place."""

    def __init__(self) -> None:
        super().__init__()
        self.printed: list[str] = []
        self.redrawn: list[str] = []

    def say(self, text: str) -> None:
        self.printed.append(text)

    def server(self, activity: str) -> None:
        self.redrawn.append(activity)


async def test_where_a_run_is_is_redrawn_and_what_it_has_come_to_is_printed() -> None:
    stream, screen = asyncio.StreamReader(), Told()
    going, done = counted(4, right=1, wrong=1, failed=1), counted(3, right=1, wrong=1, failed=1)
    passing = ["starting lmdeploy: loading weights 37 %", "checking the chat template", going.line()]
    lasting = ["server ready after 6.7 s", "asking 2 questions", done.line()]
    stream.feed_data("".join(f"    1.2 s  {line}\n" for line in passing + lasting).encode())
    stream.feed_eof()

    await say_all("sft", stream, screen)

    assert screen.redrawn == [f"sft: {line}" for line in passing]
    assert screen.printed == [f"sft: {line}" for line in lasting]


@pytest.mark.slow
def test_each_gets_a_run_of_its_own_and_what_fails_stops_no_other(
    training: MakeFolder, box: Callable[..., Box]
) -> None:
    folder = training(100, 200, 1000)
    broken = folder / "checkpoint-200" / "model.safetensors"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:1000])
    machine = box(folder, **TWO_GPUS)

    first = machine.run()

    assert first.code == 2
    assert set(runs_of(machine)) == {"checkpoint-100", "checkpoint-1000"}
    assert set(machine.story.all_of("gpus")) <= {"0", "1"}
    lines = [line.split()[:2] for line in first.shown.splitlines()]
    assert [line[0] for line in lines if line and line[0].startswith("checkpoint-")] == [
        *("checkpoint-100", "checkpoint-200", "checkpoint-1000"),
        "checkpoint-200:",
    ]
    assert "checkpoint-200: not evaluated (exit code 2)" in first.shown
    (written,) = sweeps_of(machine)
    assert [(one["name"], one["exit_code"]) for one in written["checkpoints"]] == [
        ("checkpoint-100", 0),
        ("checkpoint-200", 2),
        ("checkpoint-1000", 0),
    ]
    assert [one["new"]["run"] for one in written["comparisons"]] == [str(runs_of(machine)["checkpoint-1000"])]
    assert first.shown.splitlines()[-1].endswith("-sweep-sft")

    broken.write_bytes(whole)
    lives = len(machine.story.lives)
    again = machine.run()

    assert again.code == 0
    assert len(machine.story.lives) == lives + 1
    assert again.said.count("evaluated before, in ") == 2
    assert set(runs_of(machine)) == {"checkpoint-100", "checkpoint-200", "checkpoint-1000"}
    machine.check_nothing_is_left()


@pytest.mark.slow
def test_several_adapters_are_several_models_in_one_table(
    original: Path, tmp_path: Path, box: Callable[..., Box]
) -> None:
    for number, name in enumerate(("lora-a", "lora-b")):
        lora_adapter(original, tmp_path / name, seed=number)
    lora_adapter(original, tmp_path / "other", module="model.layers.77.attention.wqkv")
    machine = box(original, **TWO_GPUS)
    adapters = [word for name in ("lora-b", "other", "lora-a") for word in ("--adapter", tmp_path / name)]

    first = machine.run("--adapter", "none", *adapters, "--subjects", "law")

    assert first.code == 2
    assert "other: not evaluated (exit code 2)" in first.shown
    assert "other: The adapter" in first.said
    assert "the model has no model.layers.77.attention.wqkv.weight" in first.said
    (written,) = sweeps_of(machine)
    assert [(one["name"], one["exit_code"]) for one in written["checkpoints"]] == [
        *(("tiny", 0), ("lora-b", 0), ("other", 2), ("lora-a", 0)),
    ]
    assert written["base"]["model"] == "tiny"
    assert [one["new"]["model"] for one in written["comparisons"]] == ["lora-b", "lora-a"]
    records = [json.loads(path.read_text()) for path in machine.out.glob("*/run.json")]
    assert {(one["model"]["path"], one["model"].get("adapter")) for one in records} == {
        (str(original), adapter) for adapter in (None, str(tmp_path / "lora-a"), str(tmp_path / "lora-b"))
    }

    # Alone it is the same model, and so it has been evaluated.
    lives = len(machine.story.lives)
    again = machine.run("--adapter", tmp_path / "lora-a", "--adapter", tmp_path / "lora-b", "--subjects", "law")
    assert again.code == 0
    assert again.said.count("evaluated before, in ") == 2
    assert len(machine.story.lives) == lives == 3
    machine.check_nothing_is_left()


@pytest.mark.slow
def test_other_settings_are_another_run(training: MakeFolder, box: Callable[..., Box]) -> None:
    machine = box(training(1, 2))
    assert machine.run("--subjects", "law").code == 0

    assert machine.run("--subjects", "law", "--max-out-len", 100).code == 0

    assert len(machine.story.lives) == 4
    assert len(list(machine.out.glob("*/run.json"))) == 4


@pytest.mark.slow
def test_a_finished_run_is_resumed_for_the_repetitions_that_it_lacks(
    training: MakeFolder, box: Callable[..., Box]
) -> None:
    machine = box(training(1, 2))
    assert machine.run("--subjects", "law").code == 0
    assert machine.run("--subjects", "law", "--repeat", 2).said.count("resuming ") == 2
    assert [json.loads((run / "results.json").read_text())["repeat"]["times"] for run in runs_of(machine).values()] == [
        2,
        2,
    ]
    assert machine.run("--subjects", "law", "--repeat", 2).said.count("evaluated before, in ") == 2


@pytest.mark.slow
def test_interrupted_it_goes_on_where_it_was(training: MakeFolder, box: Callable[..., Box]) -> None:
    machine = box(training(1, 2), "silent", **TWO_GPUS)
    process = machine.start()
    wait_until(lambda: len(machine.story.lives) == 2 and len(list(machine.out.glob("*/predictions.jsonl"))) == 2)
    wait_until(lambda: all(path.stat().st_size for path in machine.out.glob("*/predictions.jsonl")))
    process.send_signal(signal.SIGINT)
    ended = machine.end_of(process)
    assert ended.code == 130
    assert "checkpoint-1: \n" not in ended.said
    assert len(re.findall(r"^checkpoint-[12] +–\*", ended.shown, re.MULTILINE)) == 2
    machine.check_nothing_is_left()
    before = {name: (run / "predictions.jsonl").read_bytes() for name, run in runs_of(machine).items()}

    machine.environment["LMDEPLOY_STAND_IN"] = "good"
    again = machine.run()

    assert again.code == 0
    assert again.said.count(": resuming ") == 2
    for name, run in runs_of(machine).items():
        rows = (run / "predictions.jsonl").read_bytes()
        assert rows.startswith(before[name])
        assert rows.count(b"\n") == ALL
    machine.check_nothing_is_left()


@pytest.mark.slow
def test_while_one_is_asked_the_next_is_inspected(training: MakeFolder, box: Callable[..., Box]) -> None:
    folder = training(1, 2)
    weights = folder / "checkpoint-2" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    machine = box(folder, "silent")
    process = machine.start()
    machine.until_stuck()

    wait_until(lambda: "checkpoint-2: " in machine.log.read_text(encoding="utf-8"))

    process.send_signal(signal.SIGINT)
    assert machine.end_of(process).code == 130
    assert len(machine.story.lives) == 1
    machine.check_nothing_is_left()


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="not every system has it")
@pytest.mark.slow
def test_the_system_is_told_to_read_the_weights_ahead(training: MakeFolder, box: Callable[..., Box]) -> None:
    folder = training(1, 2)
    read: list[tuple[str, int]] = []

    def advise(descriptor: int, _offset: int, _length: int, advice: int) -> None:
        read.append((Path(f"/dev/fd/{descriptor}").resolve().parent.name, advice))

    with mock.patch.object(os, "posix_fadvise", advise):
        assert box(folder).run("--subjects", "law").code == 0

    assert read == [(f"checkpoint-{number}", os.POSIX_FADV_WILLNEED) for number in (1, 2)]


@contextlib.contextmanager
def gpu_1_is_held(machine: Box) -> Iterator[None]:
    """By another program."""
    path = Path(machine.environment["BUNDLE_GPU_LOCKS"]) / "bundle-gpu-GPU-1.lock"
    path.parent.mkdir()
    path.touch()
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


@pytest.mark.slow
def test_no_checkpoint_waits_for_a_gpu_that_is_held_while_another_is_free(
    training: MakeFolder, box: Callable[..., Box]
) -> None:
    machine = box(training(1, 2), **TWO_GPUS)
    with gpu_1_is_held(machine):
        ended = machine.run("--gpu", "0,1", "--subjects", "law")
    assert ended.code == 0
    assert machine.story.all_of("gpus") == ["0", "0"]


@pytest.mark.slow
def test_a_gpu_that_becomes_free_is_used(training: MakeFolder, box: Callable[..., Box]) -> None:
    """It was another program's when the sweep began."""
    machine = box(training(1, 2), "leaves a worker and waits for a word", **TWO_GPUS)
    with gpu_1_is_held(machine):
        process = machine.start()
        machine.until_stuck()
    wait_until(lambda: len(machine.story.lives) == 2)
    Path(f"{machine.environment['LMDEPLOY_STAND_IN_JOURNAL']}-go-on").touch()

    ended = machine.end_of(process)

    assert ended.code == 0
    assert sorted(machine.story.all_of("gpus")) == ["0", "1"]
    machine.check_nothing_is_left()


@pytest.mark.slow
def test_of_two_sweeps_one_waits_for_what_the_other_evaluates(
    training: MakeFolder, box: Callable[..., Box], tmp_path: Path
) -> None:
    machine = box(training(1, 2), "leaves a worker and waits for a word")
    first = machine.start()
    machine.until_stuck()
    another = box(tmp_path / "sft", "leaves a worker and waits for a word")
    another.log = tmp_path / "another"
    second = another.start()
    wait_until(lambda: "checkpoint-1: waiting for another program" in another.log.read_text(encoding="utf-8"))

    Path(f"{machine.environment['LMDEPLOY_STAND_IN_JOURNAL']}-go-on").touch()

    assert machine.end_of(first).code == 0
    ended = another.end_of(second)
    assert ended.code == 0
    assert "checkpoint-1: evaluated before, in " in ended.said
    assert len(list(machine.out.glob("*-checkpoint-1/run.json"))) == 1
    tables = [[(one["name"], one["exit_code"]) for one in sweep["checkpoints"]] for sweep in sweeps_of(machine)]
    assert tables == [[("checkpoint-1", 0), ("checkpoint-2", 0)]] * 2
    machine.check_nothing_is_left()


@pytest.mark.slow
def test_one_that_is_removed_before_its_turn_stops_no_other(training: MakeFolder, box: Callable[..., Box]) -> None:
    """As trainings do that keep the last few."""
    folder = training(1, 2, 3)
    machine = box(folder, "leaves a worker and waits for a word")
    process = machine.start()
    machine.until_stuck()
    shutil.rmtree(folder / "checkpoint-2")
    Path(f"{machine.environment['LMDEPLOY_STAND_IN_JOURNAL']}-go-on").touch()

    ended = machine.end_of(process)

    assert ended.code == 2
    assert set(runs_of(machine)) == {"checkpoint-1", "checkpoint-3"}
    (written,) = sweeps_of(machine)
    assert [one["exit_code"] for one in written["checkpoints"]] == [0, 2, 0]
    machine.check_nothing_is_left()


@pytest.mark.slow
def test_a_run_that_is_killed_is_no_success_and_stops_no_other(training: MakeFolder, box: Callable[..., Box]) -> None:
    machine = box(training(1, 2), **TWO_GPUS, LMDEPLOY_STAND_IN_ON_0="silent")
    process = machine.start()

    def stuck() -> list[psutil.Process]:
        """The run that asks a server which does not reply, once the other has ended."""
        runs = []
        for one in psutil.Process(process.pid).children():
            with contextlib.suppress(psutil.Error):  # it has ended, and is about to be reaped
                runs += [one] if "eval-local" in one.cmdline() else []
        return runs if len(runs) == 1 and len(list(machine.out.glob("*/results.json"))) == 1 else []

    wait_until(stuck)
    stuck()[0].kill()

    ended = machine.end_of(process)
    assert ended.code == 70
    (written,) = sweeps_of(machine)
    assert sorted(one["exit_code"] for one in written["checkpoints"]) == [0, 70]
    machine.check_nothing_is_left()


@pytest.mark.skipif(not Path("/proc").exists(), reason="only Linux tells a process that its parent has died")
@pytest.mark.slow
def test_killed_it_leaves_nothing_behind(training: MakeFolder, box: Callable[..., Box]) -> None:
    machine = box(training(1, 2), "silent", **TWO_GPUS)
    process = machine.start()
    wait_until(lambda: len(machine.story.lives) == 2)

    process.kill()
    process.wait(PATIENCE_S)

    machine.check_nothing_is_left()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--resume", "latest"], "error: --resume is for a single checkpoint."),
        (["--junit", "x.xml"], "error: --junit is for a single checkpoint."),
        (["--adapter", "lora"], "error: --adapter is for a single checkpoint."),
        (["--gpu", "0,7"], "error: --gpu 0,7: no such GPU."),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_run(
    training: MakeFolder, box: Callable[..., Box], options: list[str], said: str
) -> None:
    machine = box(training(1, 2))
    refused = machine.run(*options)
    assert refused.code == 2
    assert said in refused.said
    assert not runs_of(machine)
    assert not machine.story.lives


@pytest.mark.slow
def test_watch_evaluates_what_appears_and_ends_with_the_one_that_was_named(
    training: MakeFolder, box: Callable[..., Box], tmp_path: Path
) -> None:
    folder = training(1)
    machine = box(folder)
    machine.environment["PYTHONPATH"] += f"{os.pathsep}{tmp_path}"
    (tmp_path / "hasty.py").write_text(
        "import sys\nfrom bundle.pipeline.checkpoint_folder import appearing\nfrom bundle.cli.main import main\n"
        "appearing.__kwdefaults__['still_s'] = 0.0\nmain()\n"
    )
    options = ["--until", "checkpoint-2", "--data", "sample", "--subjects", "law", "--out", str(machine.out)]
    with (tmp_path / "watch.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "hasty", "watch", str(folder), *options],
            env=machine.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    wait_until(lambda: list(machine.out.glob("*/results.json")))
    assert process.poll() is None
    training(2)

    assert process.wait(PATIENCE_S) == 0
    assert set(runs_of(machine)) == {"checkpoint-1", "checkpoint-2"}
    assert "against checkpoint-1" in (tmp_path / "watch.log").read_text()
    machine.check_nothing_is_left()
