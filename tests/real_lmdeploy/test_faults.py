"""What happens to a run when real lmdeploy fails under it."""

import signal
import time
from pathlib import Path

import pytest

from tests.real_lmdeploy.box import SAMPLE
from tests.real_lmdeploy.conftest import MakeBox

SLOTS = 16
OPTIONS = ("--concurrency", SLOTS, "--", "--backend", "pytorch")


@pytest.mark.parametrize("fault", ["raise", "oom", "cuda", "kill", "abort"])
def test_a_fault_of_the_engine_costs_a_restart_and_no_answer(make_box: MakeBox, tiny: Path, fault: str) -> None:
    box = make_box()
    process = box.start(tiny, *OPTIONS)
    box.until_answered(20)
    box.inject(fault)
    assert box.finish(process) == 0, box.log.read_text()
    assert box.results()["coverage"] == {"total": SAMPLE, "answered": SAMPLE, "failed": 0}


def test_a_fault_that_kills_every_life_ends_the_run_with_its_cause(make_box: MakeBox, tiny: Path) -> None:
    box = make_box()
    process = box.start(tiny, "--max-restarts", "0", *OPTIONS)
    box.until_answered(20)
    box.inject("oom")
    assert box.finish(process) == 3
    assert "out of GPU memory" in box.log.read_text()


def test_a_hanging_engine_is_restarted_after_the_silence(make_box: MakeBox, tiny: Path) -> None:
    box = make_box()
    process = box.start(tiny, "--hang-timeout", "15", *OPTIONS)
    box.until_answered(20)
    box.inject("hang")
    assert box.finish(process) == 0, box.log.read_text()
    assert box.results()["coverage"]["answered"] == SAMPLE


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("victim", ["api_server", "engine"])
def test_a_process_of_the_server_that_is_gone_or_stopped_costs_no_answer(
    make_box: MakeBox, tiny: Path, victim: str, number: signal.Signals
) -> None:
    box = make_box()
    process = box.start(tiny, "--hang-timeout", "15", *OPTIONS)
    box.until_answered(20)
    struck = time.time()
    getattr(box, victim)().send_signal(number)
    assert box.finish(process) == 0, box.log.read_text()
    assert box.results()["coverage"]["answered"] == SAMPLE
    again = sum(row["attempts"] - 1 for row in box.rows())
    assert again <= SLOTS * 4, struck
