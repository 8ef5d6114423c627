"""A disk that is full, cannot be written or is taken away: said clearly, and what is there is valid."""

import contextlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.faults.box import ALL, MIDWAY, Box
from tests.faults.conftest import MakeBox
from tests.patience import wait_until

# A file system of its own for the run directories, gone with the process; what was on it is copied out before.
_ON_ITS_OWN_DISK = """
mount -t tmpfs -o "$1" tmpfs "$2" && out=$2 copy=$3 && shift 3 && "$@"
code=$?
cp -r "$out/." "$copy" && exit $code
"""
_UNSHARE = ["unshare", "--user", "--map-root-user", "--mount", "--"]


@pytest.fixture(scope="session")
def mounting() -> None:
    command = [*_UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    if shutil.which("unshare") is None or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("nothing can be mounted here, not even in a user namespace of one's own")


def start_on_its_own_disk(machine: Box, mount_options: str) -> tuple["subprocess.Popen[bytes]", Path]:
    """Start with the run directories on a file system of their own; after its end they are where they always are.

    Returns:
        The process, and where others see that file system.
    """
    disk = machine.directory / "disk"
    disk.mkdir()
    machine.out.mkdir()
    script = [*_UNSHARE, "sh", "-c", _ON_ITS_OWN_DISK, "sh", mount_options, str(disk), str(machine.out)]
    with machine.log.open("wb") as log:
        process = subprocess.Popen(
            [*script, *machine.command("--out", disk)],
            env=machine.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    return process, Path(f"/proc/{process.pid}/root{disk}")


def fill(disk: Path) -> None:
    """Leave no room."""
    with (disk / "filling").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


@pytest.mark.usefixtures("mounting")
@pytest.mark.slow
def test_it_fills_up_while_questions_are_asked(box: MakeBox) -> None:
    machine = box("takes its time")
    process, disk = start_on_its_own_disk(machine, "size=1m")
    wait_until(lambda: any(path.stat().st_size for path in disk.glob("*/predictions.jsonl")))

    fill(disk)

    ended = machine.end_of(process)
    (machine.out / "filling").unlink()
    assert ended.code == 2
    assert "predictions.jsonl cannot be written: No space left on device." in ended.said.partition("error: ")[2]
    assert "hint: Free some space, or choose another directory with --out (reports: -o)." in ended.said
    assert ended.cleanly
    assert f" of {ALL} questions answered" in ended.shown
    assert 0 < len(machine.answered()) < ALL
    content = (machine.run_directory / "predictions.jsonl").read_bytes()
    assert all(json.loads(line) for line in content.splitlines())
    assert not list(machine.out.rglob("*.part"))
    machine.check_nothing_is_left()

    resumed = machine.run("--resume", machine.run_directory)

    assert resumed.code == 0
    machine.check(answered=ALL)


@pytest.mark.usefixtures("mounting")
def test_it_is_read_only(box: MakeBox) -> None:
    machine = box("good")
    process, _ = start_on_its_own_disk(machine, "ro")
    ended = machine.end_of(process)

    assert ended.code == 2
    assert "cannot be written: Read-only file system." in ended.said
    assert "Choose a writable directory with --out (reports: -o)." in ended.said
    assert not machine.story.lives  # no server was started for that
    machine.check_nothing_is_left()


def test_the_run_directory_is_removed_while_questions_are_asked(box: MakeBox) -> None:
    machine = box("takes its time")
    process = machine.start()
    machine.until_stuck()

    shutil.rmtree(machine.out)

    ended = machine.end_of(process)
    assert ended.code == 2
    assert "predictions.jsonl cannot be written: it has been removed." in ended.said
    assert "hint: The run's directory was removed or moved." in ended.said
    assert ended.cleanly
    assert f" of {ALL} questions answered" in ended.shown
    assert len(machine.story.asked()) < ALL
    machine.check_nothing_is_left()


def test_another_program_wrote_into_the_predictions(box: MakeBox, tmp_path: Path) -> None:
    """A row that is no row is never passed over: it is named, and the user decides."""
    machine = box("silent")
    process = machine.start()
    machine.until_stuck()
    process.kill()
    process.wait()
    path = machine.run_directory / "predictions.jsonl"
    path.write_bytes(path.read_bytes() + b"\0\0\0\0\n")

    ended = machine.run("--resume", machine.run_directory)

    assert ended.code == 2
    assert f"predictions.jsonl, line {MIDWAY + 1}, is damaged" in ended.said
    assert len(machine.story.lives) == 1
