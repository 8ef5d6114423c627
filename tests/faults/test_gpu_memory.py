"""What a run sees of its GPUs: how busy they are, and that their memory is free when it ends."""

import json
import signal

import psutil
import pytest

from tests.faults.box import ALL
from tests.faults.conftest import MakeBox
from tests.patience import PATIENCE_S, wait_until
from tests.stand_ins.box import GPU, with_gpus


@pytest.mark.slow
def test_the_driver_releases_the_memory_of_a_dead_server_late(box: MakeBox) -> None:
    machine = box("takes its time")
    held = machine.directory / "held"  # by the driver's account; the server adds itself, and nobody takes it away
    machine.environment["LMDEPLOY_STAND_IN_GPU_PROCESSES"] = str(held)
    process = machine.start()
    wait_until(lambda: machine.story.lives)
    wait_until(lambda: not psutil.pid_exists(machine.story.lives[0]))
    assert process.poll() is None

    held.unlink()

    ended = machine.end_of(process)
    assert ended.code == 0
    assert "the driver still counts" not in ended.said
    machine.check(answered=ALL)


def test_how_busy_the_gpus_of_all_servers_are_is_written_down(box: MakeBox) -> None:
    machine = box("silent", **with_gpus(2))
    process = machine.start("--replicas", 2)
    file = "*/gpus.jsonl"
    wait_until(lambda: any(path.read_text().endswith("}\n") for path in machine.out.glob(file)))
    process.send_signal(signal.SIGINT)

    assert process.wait(PATIENCE_S) == 130
    (path,) = machine.out.glob(file)
    first, second, *_ = map(json.loads, path.read_text().splitlines())
    assert [one["gpu"] for one in (first, second)] == [0, 1]
    assert (first["utilization"], first["used_mib"], first["total_mib"]) == (50, GPU[3] - GPU[4], GPU[3])
    assert '"gpus"' in (path.parent / "report.html").read_text(encoding="utf-8")
    machine.check_nothing_is_left()


@pytest.mark.slow
def test_a_death_is_told_before_its_gpu_memory_is_waited_for(box: MakeBox) -> None:
    machine = box("crash midway; good")
    machine.environment["LMDEPLOY_STAND_IN_GPU_PROCESSES"] = str(machine.directory / "held")  # and is never released
    ended = machine.run()

    assert ended.code == 0, ended.said
    told, held = (ended.said.index(text) for text in ("The lmdeploy server died", "the driver still counts"))
    assert told < held
