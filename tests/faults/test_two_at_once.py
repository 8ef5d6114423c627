"""Two runs on one machine do not meet."""

import signal

import pytest

from tests.faults.box import ALL
from tests.faults.conftest import MakeBox
from tests.patience import PATIENCE_S, wait_until
from tests.program import start
from tests.stand_ins.box import with_gpus


@pytest.mark.slow
def test_two_runs_share_a_machine_an_output_directory_and_a_cache(box: MakeBox) -> None:
    machine = box("slow start", **with_gpus(2))
    one, other = machine.start(), machine.start()
    assert (one.wait(PATIENCE_S), other.wait(PATIENCE_S)) == (0, 0)

    ports = machine.story.all_of("port")
    assert len(set(ports)) == 2
    assert sorted(machine.story.all_of("gpus")) == ["0", "1"]
    directories = list(machine.out.iterdir())
    assert len(directories) == 2
    for directory in directories:
        assert (directory / "predictions.jsonl").read_bytes().count(b"\n") == ALL
        assert (directory / "server.log").read_text().count("Loading weights") == 1
    machine.check_nothing_is_left()


@pytest.mark.slow
def test_a_gpu_that_a_run_uses_is_refused_or_waited_for(box: MakeBox) -> None:
    machine = box("silent; good")
    process = machine.start()
    machine.until_stuck()

    refused = machine.run()
    waits_log = machine.directory / "waits"
    waiting = start(*machine.arguments("--wait", "1h"), environment=machine.environment, log=waits_log)
    wait_until(lambda: "waiting for a GPU, at most 3600 s" in waits_log.read_text())

    assert refused.code == 3
    assert f"error: GPU 0 is in use by another run: process {process.pid}, " in refused.said
    assert "hint: Wait for it with --wait TIME, or choose another GPU with --gpu." in refused.said
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130
    assert waiting.wait(PATIENCE_S) == 0
    assert len(machine.story.lives) == 2
    machine.check_nothing_is_left()


def test_a_run_that_is_being_resumed_cannot_be_resumed(box: MakeBox) -> None:
    machine = box("silent")
    process = machine.start()
    machine.until_stuck()
    process.kill()
    process.wait()
    machine.check_nothing_is_left()
    before = machine.rows()
    first = machine.start("--resume", machine.run_directory)
    wait_until(lambda: len(machine.story.lives) == 2)

    second = machine.run("--resume", machine.run_directory)

    assert second.code == 2
    assert "is in use by another process." in second.said
    assert len(machine.story.lives) == 2  # it has started no server
    first.send_signal(signal.SIGINT)
    assert first.wait(PATIENCE_S) == 130
    assert machine.rows()[: len(before)] == before
    machine.check_nothing_is_left()
