"""No room on the disk, a directory that went away, no more files to open."""

import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bundle.runs import read_predictions
from tests.faults.box import ALL, MIDWAY
from tests.faults.conftest import MakeBox
from tests.program import wait_until

ROOM_FOR_SOME_ROWS = 152
"""Kilobytes, of which the record and the prompts of the sample questions take 140."""


@contextmanager
def small_disk(path: Path, kilobytes: int, *, options: str = "") -> Iterator[None]:
    """A file system of its own at ``path``, with so much room."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k{options}", "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a file system can only be mounted by root, and not in every container")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def test_there_is_no_room_for_anything(box: MakeBox) -> None:
    machine = box()
    with small_disk(machine.out, 8):
        ended = machine.run()

    assert ended.code == 2
    assert "cannot be written: No space left on device" in ended.said
    assert "what to do: Free some space" in ended.said
    assert ended.cleanly
    machine.check_nothing_is_left()


def test_the_disk_is_full_midway(box: MakeBox, tmp_path: Path) -> None:
    machine = box()
    with small_disk(machine.out, ROOM_FOR_SOME_ROWS):
        ended = machine.run()
        kept = tmp_path / "kept" / machine.run_directory.name
        shutil.copytree(machine.run_directory, kept)

    assert ended.code == 2
    assert "predictions.jsonl cannot be written: No space left on device" in ended.said
    assert ended.cleanly
    machine.check_nothing_is_left()
    rows = len(read_predictions(kept))
    assert 0 < rows < ALL

    again = machine.run("--out", kept.parent, "--resume", kept)

    assert again.code == 0
    assert f"{rows} are answered already" in again.said
    assert len({row.key for row in read_predictions(kept)}) == ALL


def test_nothing_may_be_written_there(box: MakeBox) -> None:
    machine = box()
    with small_disk(machine.out, 8, options=",ro"):
        ended = machine.run()

    assert ended.code == 2
    assert "Read-only file system" in ended.said
    assert "--out" in ended.said
    assert ended.cleanly
    machine.check_nothing_is_left()


def test_the_runs_directory_is_removed_midway(box: MakeBox) -> None:
    machine = box("takes its time")
    process = machine.start()
    wait_until(lambda: len(machine.rows()) >= MIDWAY, 60)
    shutil.rmtree(machine.run_directory)
    ended = machine.end_of(process)

    assert ended.code == 2
    assert "cannot be written: it has been removed" in ended.said
    assert ended.cleanly
    machine.check_nothing_is_left()


def test_there_are_too_few_files_to_open(box: MakeBox) -> None:
    machine = box()
    result = subprocess.run(
        machine.command("--concurrency", 64),
        env=machine.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40)),
    )

    assert result.returncode in (2, 3, 4)
    assert "Traceback" not in result.stderr
    assert "what to do:" in result.stderr or "without a reply" in result.stdout
    machine.check_nothing_is_left()


def test_two_runs_at_once_do_not_meet(box: MakeBox) -> None:
    machine = box()
    processes = [machine.start("--limit", 1) for _ in range(2)]
    codes = [process.wait(120) for process in processes]

    assert codes == [0, 0], machine.log.read_text()
    ports = machine.story.all_of("port")
    assert len(set(ports)) == 2
    assert len(list(machine.out.iterdir())) == 2
    machine.check_nothing_is_left()


def test_a_run_is_gone_on_with_by_one_at_a_time(box: MakeBox) -> None:
    machine = box("takes its time")
    first = machine.start()
    wait_until(lambda: len(machine.rows()) >= MIDWAY, 60)

    second = machine.run("--resume", machine.run_directory.name)

    assert second.code == 2
    assert "is in use: another run is writing to it" in second.said
    assert machine.end_of(first).code == 0
    machine.check(answered=ALL)
