"""A cluster of machines with a network of their own each: a cable is cut, the head is lost."""

import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundle.checkpoints.internlm2 import make_checkpoint
from tests.cluster.box import ClusterBox
from tests.cluster.network import Cabled, can_be_cut
from tests.faults.box import ALL, IN_FLIGHT, MIDWAY
from tests.patience import PATIENCE_S, wait_until

pytestmark = pytest.mark.skipif(not can_be_cut(), reason="network namespaces need root and iproute2")

CLUSTER = Cabled
GIVEN_UP = "nothing was heard of the worker"


class Driver(ClusterBox):
    """A machine from which a run is started, whose servers stop midway until they are told to go on."""

    nodes: Cabled

    def asking(self, *options: object) -> "subprocess.Popen[bytes]":
        """Start a run; return when both servers wait."""
        process = self.start(*options)
        wait_until(lambda: len(self.story.lives) >= 2)
        wait_until(lambda: len(self.rows()) >= 2 * MIDWAY)
        return process

    def machine_of(self, server: int) -> str:
        """Where a server runs, numbered from 0 in the order of their starts."""
        return self.nodes.machine_of(self.story.lives[server])

    def says(self, what: str) -> bool:
        return what in self.log.read_text(encoding="utf-8")

    def check_nothing_was_asked_twice(self, but: int = 0) -> None:
        """No more than so many questions."""
        times = Counter(self.story.asked())
        assert sum(count - 1 for count in times.values()) <= but


@pytest.fixture
def driver(tmp_path: Path, tiny: Path, nodes: Cabled, request: pytest.FixtureRequest) -> Iterator[Driver]:
    """On the head, or where a test says."""
    nodes.heal()
    machine = Driver(tmp_path, tiny, nodes)
    machine.inside = nodes.on(getattr(request, "param", "head"))
    nodes.set("leaves a worker and waits for a word")
    yield machine
    machine.end()
    if machine.log.exists():  # pytest shows it where the test has failed
        print(machine.log.read_text(encoding="utf-8"))


@pytest.mark.parametrize("server", [0, 1])
def test_what_is_behind_a_cut_cable_ends_alone_and_is_asked_elsewhere(driver: Driver, server: int) -> None:
    process = driver.asking()
    lost = driver.machine_of(server)
    driver.nodes.cut(lost)
    wait_until(lambda: driver.says(f"{lost}: {GIVEN_UP}"))
    wait_until(lambda: not driver.nodes.ours_on(lost))
    driver.nodes.go_on()

    ended = driver.end_of(process)

    assert ended.code == 0, ended.said
    assert "did not become free" not in ended.said  # it looks for a place where there is one
    driver.nodes.restore(lost)
    driver.check(answered=ALL)
    driver.check_nothing_was_asked_twice(but=IN_FLIGHT)


def test_a_cable_that_is_soon_plugged_in_again_costs_nothing(driver: Driver) -> None:
    process = driver.asking()
    lost = driver.machine_of(1)
    driver.nodes.cut(lost)
    driver.nodes.go_on()
    wait_until(lambda: len(driver.rows()) > 3 * MIDWAY)  # those of the other one
    driver.nodes.restore(lost)

    ended = driver.end_of(process)

    assert ended.code == 0, ended.said
    assert GIVEN_UP not in ended.said
    driver.check(answered=ALL)


def test_a_machine_that_is_back_after_it_was_given_up_is_used_again(driver: Driver) -> None:
    process = driver.asking("--hang-timeout", 3600)
    lost = driver.machine_of(1)
    driver.nodes.cut(lost)
    wait_until(lambda: driver.says(f"{lost}: {GIVEN_UP}"))
    driver.nodes.restore(lost)
    wait_until(lambda: not driver.nodes.ours_on(lost))
    wait_until(lambda: driver.nodes.ours_on(lost) or not driver.nodes.has_ray(lost), 3 * PATIENCE_S)
    if not driver.nodes.has_ray(lost):  # it was away for so long that Ray has ended there
        driver.nodes.boot(lost)
    wait_until(lambda: driver.nodes.ours_on(lost), 3 * PATIENCE_S)
    driver.nodes.go_on()

    ended = driver.end_of(process)

    assert ended.code == 0, ended.said
    driver.check(answered=ALL)


def test_a_driver_without_any_machine_ends_and_its_run_is_resumed(driver: Driver) -> None:
    process = driver.asking()
    driver.nodes.cut("head")
    wait_until(lambda: not (driver.nodes.ours_on("left") or driver.nodes.ours_on("right")))

    process.wait(3 * PATIENCE_S)  # it waits for machines twice
    ended = driver.end_of(process)

    assert ended.code == 3
    # The second, if a further server still waits for a place that the cluster has not missed yet.
    reasons = "No machine of the cluster with 1 GPU can be used any more", "1 GPU of the cluster did not become free"
    assert any(reason in ended.said for reason in reasons)
    driver.check_nothing_is_left()
    before = driver.answered().keys()

    driver.nodes.heal()
    driver.nodes.go_on()
    ended = driver.end_of(driver.start("--resume", driver.run_directory))
    assert ended.code == 0, ended.said
    assert before <= driver.answered().keys()
    driver.check(answered=ALL)
    driver.check_nothing_was_asked_twice(but=2 * IN_FLIGHT)


@pytest.mark.parametrize("why", ["is empty", "is another checkpoint there"])
def test_a_machine_without_the_checkpoint_is_passed_over(driver: Driver, tiny: Path, tmp_path: Path, why: str) -> None:
    other = tmp_path / "other"
    other.mkdir()
    if why != "is empty":
        make_checkpoint(other, like="tiny", seed=2)
    driver.nodes.hide("left", tiny, other)
    process = driver.start()
    wait_until(lambda: driver.says(f"not using left: {tiny} {why}"))
    driver.nodes.go_on()
    ended = driver.end_of(process)
    assert ended.code == 0, ended.said
    driver.check(answered=ALL)

    driver.nodes.hide("right", tiny, other)
    ended = driver.end_of(driver.start())
    assert ended.code == 2
    assert all(f"{name}: {tiny} {why}" in ended.said for name in ("left", "right"))


@pytest.mark.parametrize("driver", ["head", "left"], indirect=True)
def test_without_the_head_a_run_ends_and_says_why(driver: Driver) -> None:
    process = driver.asking()
    driver.nodes.stop_ray("head", "gcs_server")

    ended = driver.end_of(process)

    assert ended.code == 3
    assert "the connection to the cluster was lost (Failed to connect to GCS within 60 seconds)" in ended.said
    assert "did not become free" not in ended.said
    assert len(driver.answered()) == 2 * MIDWAY
    driver.check_nothing_is_left()


def test_where_ray_is_stopped_everywhere_a_run_ends(driver: Driver) -> None:
    process = driver.asking()
    for name in driver.nodes.names:
        driver.nodes.stop_ray(name)

    ended = driver.end_of(process)

    assert ended.code == 3
    assert len(driver.answered()) == 2 * MIDWAY
    driver.check_nothing_is_left()
