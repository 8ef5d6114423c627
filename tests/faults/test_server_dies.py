"""A server that dies while questions are asked: it is started again, and what was answered is not asked again."""

import os
import shutil
import signal
from pathlib import Path

import psutil
import pytest

from tests.faults.box import ALL, MIDWAY
from tests.faults.conftest import MakeBox


def test_killed_from_outside(box: MakeBox) -> None:
    machine = box("silent; good")
    process = machine.start()
    machine.until_stuck()

    os.kill(machine.story.lives[0], signal.SIGKILL)

    ended = machine.end_of(process)
    assert ended.code == 0
    assert "server died (killed by SIGKILL)" in ended.said
    assert f"restarting the server (1 of 2): {ALL - MIDWAY} questions left" in ended.said
    assert "in flight; asking again after the others" in ended.said
    assert f"{ALL} of {ALL} questions answered" in ended.shown
    assert machine.restarts == 1
    machine.check(answered=ALL)
    machine.check_only_what_was_open_was_asked_again()
    assert (machine.run_directory / "server.log").read_text().count("Loading weights") == 2


@pytest.mark.parametrize("how", ["written to", "removed"])
def test_a_checkpoint_that_has_changed_is_not_served_again(box: MakeBox, tiny: Path, tmp_path: Path, how: str) -> None:
    """As a training overwrites its last one: half of the rows would be another model's."""
    checkpoint = tmp_path / "last"
    shutil.copytree(tiny, checkpoint)
    machine = box("silent; good", model_dir=checkpoint)
    process = machine.start()
    machine.until_stuck()
    if how == "removed":
        shutil.rmtree(checkpoint)
    else:
        weights = checkpoint / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-4] + b"next")

    os.kill(machine.story.lives[0], signal.SIGKILL)

    ended = machine.end_of(process)
    assert ended.code == 2
    assert ended.cleanly
    assert ("has changed since it was inspected: model.safetensors" if how == "written to" else str(checkpoint)) in (
        ended.said
    )
    assert len(machine.answered()) == MIDWAY
    assert machine.results["coverage"]["answered"] == MIDWAY
    machine.check_nothing_is_left()


@pytest.mark.slow
def test_it_exits_and_does_not_come_up_again_at_once(box: MakeBox) -> None:
    """As where the driver has not yet given back what the dead one held."""
    machine = box("exits; out of memory; good")
    ended = machine.run()

    assert ended.code == 0
    assert "server died (exit code 3)" in ended.said
    assert "server ended before it was ready" in ended.said
    assert machine.restarts == 2
    machine.check(answered=ALL)
    machine.check_only_what_was_open_was_asked_again()


@pytest.mark.slow
def test_the_guardian_is_killed(box: MakeBox) -> None:
    machine = box("silent; good")
    process = machine.start()
    machine.until_stuck()
    (guardian,) = (one for one in psutil.Process(process.pid).children() if "guardian.py" in " ".join(one.cmdline()))

    guardian.kill()

    ended = machine.end_of(process)
    assert ended.code == 0
    assert machine.restarts == 1
    machine.check(answered=ALL)


def test_out_of_gpu_memory_after_every_start(box: MakeBox) -> None:
    machine = box("out of memory midway")
    ended = machine.run()

    assert ended.code == 3
    assert ended.cleanly
    assert "restarting the server (2 of 2)" in ended.said
    assert "out of memory" in ended.said.partition("error: ")[2]
    assert "hint:" in ended.said
    assert "not asked" in ended.shown
    assert len(machine.story.lives) == 3
    answered = len(machine.answered())
    assert MIDWAY <= answered < ALL
    machine.check(answered=answered, failed=0)
    machine.check_nothing_is_left()


def test_it_dies_and_no_restart_is_allowed(box: MakeBox) -> None:
    machine = box("exits")
    ended = machine.run("--max-restarts", 0)

    assert ended.code == 3
    assert "server died (exit code 3)" in ended.said.partition("error: ")[2]
    assert len(machine.story.lives) == 1
    machine.check(answered=len(machine.answered()))


@pytest.mark.slow
def test_a_worker_that_ignores_signals_is_gone_before_the_next_server_starts(box: MakeBox) -> None:
    machine = box("leaves a worker and exits; good")
    ended = machine.run()

    assert ended.code == 0
    assert len(machine.story.all_of("worker")) == 1
    assert machine.story.all_of("workers_alive") == [[], []]
    machine.check(answered=ALL)
