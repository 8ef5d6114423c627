"""A GPU belongs to one run, whoever started it, until the run's server is gone."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bundle.checkpoints import Checkpoint, inspect_checkpoint
from bundle.errors import ServerError
from bundle.serving import gpu_choice
from bundle.serving.engine import Job
from bundle.serving.gpu_choice import reserve_gpus
from bundle.serving.gpu_locks import GpuLocks, holder
from bundle.serving.gpus import Gpu
from bundle.serving.machine import Machine
from tests.stand_ins.box import gpu_box

ROWS = [(index, f"GPU-{index}", "H100", 80000, 70000 - index, "570") for index in range(3)]
GPUS = [Gpu(*row) for row in ROWS]
HOLD = """
import fcntl, os, subprocess, sys
descriptor = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
print(subprocess.Popen(["sleep", "600"], pass_fds=[descriptor]).pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with three GPUs; the directory of its locks."""
    for name, value in gpu_box(tmp_path, gpus=ROWS).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpu_choice, "_LOOK_AGAIN_S", 0.01)
    return tmp_path / "locks"


@pytest.fixture(scope="module")
def checkpoint(tiny: Path) -> Checkpoint:
    return inspect_checkpoint(tiny)


@pytest.fixture
def job(checkpoint: Checkpoint) -> Job:
    return Job(checkpoint, Machine())


class Run:
    """A process that holds a GPU, and a second one that does, too, as a server's guardian."""

    def __init__(self, number: int) -> None:
        GpuLocks().take(GPUS[number])  # makes the file
        file = Path(os.environ["BUNDLE_GPU_LOCKS"]) / f"bundle-gpu-GPU-{number}.lock"
        command = [sys.executable, "-S", "-c", HOLD, str(file)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.guardian = int(self.process.stdout.readline())

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        """Kill the run alone."""
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.guardian, signal.SIGKILL)
        self.process.communicate()


AnotherRun = Callable[[int], Run]


@pytest.fixture
def another_run() -> Iterator[AnotherRun]:
    """Starts one that holds the GPU with this number."""
    runs: list[Run] = []

    def hold(number: int) -> Run:
        runs.append(Run(number))
        return runs[-1]

    yield hold
    for run in runs:
        run.end()


def numbers(gpus: tuple[Gpu, ...]) -> list[int | None]:
    return [gpu.index for gpu in gpus]


def quietly(text: str) -> None:
    """Nobody reads what is said."""


def test_two_runs_take_different_gpus_and_a_run_that_ends_gives_its_own_back(job: Job) -> None:
    first, locks = reserve_gpus(job, "lmdeploy", 1, quietly)
    second, others = reserve_gpus(job, "lmdeploy", 2, quietly)
    assert (numbers(first), numbers(second)) == ([0], [1, 2])

    del locks
    again, _ = reserve_gpus(job, "lmdeploy", 1, quietly)

    assert numbers(again) == [0]
    assert len(others.descriptors) == 2


def test_where_none_is_free_it_is_refused_and_said_who_holds_them(job: Job, another_run: AnotherRun) -> None:
    pids = [another_run(number).pid for number in range(3)]

    with pytest.raises(ServerError) as caught:
        reserve_gpus(job, "lmdeploy", 1, quietly)

    told = [caught.value.message, *caught.value.details]
    for number, pid in enumerate(pids):
        assert f"GPU {number} is in use by another run: process {pid}, {Path(sys.executable).name}" in told[number]
    assert "--wait" in str(caught.value.remedy)


def test_a_gpu_that_is_named_and_in_use_is_refused_although_others_are_free(job: Job, another_run: AnotherRun) -> None:
    another_run(1)

    with pytest.raises(ServerError, match="GPU 1 is in use by another run: process"):
        reserve_gpus(replace(job, gpu="1"), "lmdeploy", 1, quietly)


def test_of_several_gpus_none_is_kept_where_not_all_can_be_had(job: Job, another_run: AnotherRun) -> None:
    another_run(0)
    with pytest.raises(ServerError):
        reserve_gpus(job, "lmdeploy", 3, quietly)

    assert numbers(reserve_gpus(job, "lmdeploy", 2, quietly)[0]) == [1, 2]


def test_with_leave_to_wait_it_waits_until_one_is_free(job: Job, another_run: AnotherRun) -> None:
    runs = [another_run(number) for number in range(3)]
    said: list[str] = []
    waits = threading.Event()

    def say(text: str) -> None:
        said.append(text)
        waits.set()

    def end_one() -> None:
        waits.wait()
        runs[2].end()

    ending = threading.Thread(target=end_one)
    ending.start()
    gpus, _ = reserve_gpus(replace(job, wait_s=600.0), "lmdeploy", 1, say)
    ending.join()

    assert numbers(gpus) == [2]
    assert said[0].startswith("waiting for a GPU, at most 600 s: GPU 0 is in use by another run: process")


def test_memory_that_is_not_free_is_waited_for_as_well(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def has_free(mib: int) -> None:
        gpus = [(*row[:4], mib, row[5]) for row in ROWS]
        monkeypatch.setenv("NVIDIA_SMI_STAND_IN", json.dumps({"gpus": gpus}))

    def say(text: str) -> None:
        said.append(text)
        has_free(70000)

    has_free(300)
    gpus, _ = reserve_gpus(replace(job, wait_s=600.0), "lmdeploy", 1, say)

    assert numbers(gpus) == [0]
    assert said == [
        "waiting for a GPU, at most 600 s: GPU 0 (H100) has 0.3 GiB of 78.1 GiB free, and this checkpoint needs about "
        "2.0 GiB."
    ]


def test_the_server_of_a_killed_run_is_waited_for_without_being_told_to(job: Job, another_run: AnotherRun) -> None:
    runs = [another_run(number) for number in range(3)]
    for run in runs:
        run.kill()
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        runs[1].end()

    gpus, _ = reserve_gpus(job, "lmdeploy", 1, say)

    assert numbers(gpus) == [1]
    assert f"GPU 0 is in use by another run: process {runs[0].pid} has ended, and its server is about to" in said[0]


def test_nobody_else_needs_rights_on_the_file(job: Job, box: Path) -> None:
    before = os.umask(0o077)
    try:
        reserve_gpus(job, "lmdeploy", 1, quietly)
    finally:
        os.umask(before)

    for file in box.iterdir():
        assert file.stat().st_mode & 0o777 == 0o444
        assert file.read_bytes() == b""


def test_what_cannot_be_locked_is_used_and_said(job: Job, box: Path) -> None:
    box.mkdir()
    (box / "bundle-gpu-GPU-0.lock").symlink_to(box / "elsewhere")
    said: list[str] = []

    gpus, _ = reserve_gpus(job, "lmdeploy", 1, said.append)

    assert numbers(gpus) == [0]
    assert len(said) == 1
    assert said[0].startswith("GPU 0 cannot be locked, so another run may use it too: ")
    assert said[0].endswith("it is not a regular file")
    assert not (box / "elsewhere").exists()


def test_a_lock_whose_file_was_cleaned_away_protects_the_next_run_too(box: Path) -> None:
    first = GpuLocks()
    assert first.take(GPUS[0])
    (box / "bundle-gpu-GPU-0.lock").unlink()
    second, third = GpuLocks(), GpuLocks()

    assert second.take(GPUS[0])
    assert not third.take(GPUS[0])


def test_the_holder_is_told_and_nobody_where_there_is_none(another_run: AnotherRun) -> None:
    run = another_run(1)

    assert [holder(gpu) is None for gpu in GPUS] == [True, False, True]
    assert str(holder(GPUS[1])).startswith(f"process {run.pid}, {Path(sys.executable).name} -c …, user ")


def test_a_part_of_a_gpu_is_locked_under_its_own_name(box: Path) -> None:
    part = Gpu(None, "MIG-3eb87630-93d5-b2b6-b8ff-9b359caf4ee2", "part of a GPU")
    one, other = GpuLocks(), GpuLocks()

    assert one.take(part)
    assert not other.take(part)
    assert other.take(replace(part, uuid="MIG-GPU-5c89852c/1/0"))
