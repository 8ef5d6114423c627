"""What happens to a run when real lmdeploy fails under it: every failure costs a restart and no answer."""

import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.real_lmdeploy.box import SAMPLE, LmdeployBox
from tests.real_lmdeploy.conftest import MakeBox

SLOTS = 8
MORE = 6
"""Questions that a server answers before its next failure."""
OPTIONS = ("--concurrency", SLOTS, "--max-restarts", 8, "--", "--backend", "pytorch")
NOTICED_WITHIN_S = 2.0

CAUSES = {
    "raise": "RuntimeError: injected failure in the engine",
    "oom": "the GPU has too little free memory",
    "cuda": "an illegal memory access was encountered",
    "kill": "no longer answers requests",
    "abort": "no longer answers requests",
}


def until_it_works_again(box: LmdeployBox, restarts: int) -> None:
    """Wait until the server has been started so often and its last life has answered some questions."""
    box.until_restarted(restarts)
    box.until_answered(min(box.answered() + MORE, SAMPLE))


def check_nothing_is_lost(box: LmdeployBox, deaths: int) -> None:
    """Every question has its answer, and at most a window of them was asked again for each death."""
    assert box.results()["coverage"] == {"total": SAMPLE, "answered": SAMPLE, "failed": 0}
    assert sum(row["attempts"] - 1 for row in box.rows()) <= deaths * SLOTS


@pytest.mark.parametrize(
    ("version", "faults"), [("0.18.0", ("raise", "oom", "cuda", "abort")), ("0.12.3", ("kill", "oom"))]
)
def test_a_fault_of_the_engine_is_noticed_with_its_cause(
    make_box: MakeBox, tiny: Path, version: str, faults: Sequence[str]
) -> None:
    box = make_box(version)
    process = box.start(tiny, *OPTIONS)
    box.until_answered(2 * MORE)
    for number, fault in enumerate(faults, 1):
        said = len(box.said())
        box.inject(fault)
        until_it_works_again(box, number)
        assert CAUSES[fault] in box.said()[said:], fault
    assert box.finish(process) == 0, box.said()
    check_nothing_is_lost(box, deaths=len(faults))


def test_a_killed_process_of_the_server_is_noticed_within_two_seconds(make_box: MakeBox, tiny: Path) -> None:
    box = make_box()
    process = box.start(tiny, *OPTIONS)
    box.until_answered(2 * MORE)
    victims = ("engine", "api_server", "engine", "engine")
    noticed: dict[str, float] = {}
    for number, victim in enumerate(victims, 1):
        killed = time.monotonic()
        getattr(box, victim)().kill()
        box.until_restarted(number)
        noticed[victim] = min(time.monotonic() - killed, noticed.get(victim, NOTICED_WITHIN_S * 100))
        until_it_works_again(box, number)
    assert box.finish(process) == 0, box.said()
    check_nothing_is_lost(box, deaths=len(victims))
    assert noticed["engine"] < NOTICED_WITHIN_S


def test_a_hanging_or_stopped_process_of_the_server_is_replaced(make_box: MakeBox, tiny: Path) -> None:
    box = make_box()
    process = box.start(tiny, "--hang-timeout", 20, *OPTIONS)
    box.until_answered(2 * MORE)
    box.inject("hang")
    until_it_works_again(box, 1)
    box.engine().send_signal(signal.SIGSTOP)
    until_it_works_again(box, 2)
    box.api_server().send_signal(signal.SIGSTOP)
    assert box.finish(process) == 0, box.said()
    assert box.said().count("hangs: ") == 3
    check_nothing_is_lost(box, deaths=3)


def test_a_fault_in_the_last_life_ends_the_run_with_its_cause(make_box: MakeBox, tiny: Path) -> None:
    box = make_box()
    process = box.start(tiny, "--max-restarts", 0, "--concurrency", SLOTS, "--", "--backend", "pytorch")
    box.until_answered(MORE)
    box.inject("oom")
    assert box.finish(process) == 3
    assert "the GPU has too little free memory" in box.said()
    assert MORE <= box.results()["coverage"]["answered"] < SAMPLE


def test_the_race_in_lmdeploys_own_start_is_survived(make_box: MakeBox, tiny: Path) -> None:
    box = make_box()
    box.lose_the_race()
    result = box.run(tiny, "--subjects", "law", "--", "--backend", "pytorch")
    assert result.returncode == 0, result.stderr
    assert "its engine process was cut off while starting (a race in lmdeploy)" in result.stderr
    assert box.results()["coverage"]["answered"] == 2
