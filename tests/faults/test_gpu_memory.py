"""A run is not over before the driver has taken back the memory of its server."""

import psutil
import pytest

from tests.faults.box import ALL
from tests.faults.conftest import MakeBox
from tests.patience import wait_until


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
