"""What happens to a run when real lmdeploy fails under it: every failure costs a restart and no answer."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from benchmarks.questions import write_questions
from tests.real_lmdeploy.box import NEWEST, OLDEST, SAMPLE, LmdeployBox, Ran
from tests.real_lmdeploy.conftest import MakeBox

SLOTS = 8
AFTER = 20
"""The prompt at which a life of the engine ends. Some are not the run's questions: those that prove the server."""
OPTIONS = ("--concurrency", SLOTS, "--max-restarts", 8)
VALIDATION_SPLIT = 1346
FULL_CONCURRENCY = 320
PYTORCH = ("--", "--backend", "pytorch")

NO_ENGINE = "no longer answers requests: (process [0-9]+ of its engine has ended|its log says)"
HANGS = "hangs: no reply, not even a part of one, for 20 s"
CAUSES = {
    "raise": "RuntimeError: injected failure in the engine",
    "oom": "the GPU has too little free memory",
    "cuda": "an illegal memory access was encountered",
    "abort": NO_ENGINE,
    "kill": NO_ENGINE,
    "kill_server": re.escape("died (killed by SIGKILL)"),
    "hang": HANGS,
    "stop": HANGS,
    "stop_server": HANGS,
}


def lives(said: str) -> list[str]:
    """What was said until each restart, and after the last."""
    return said.split("restarting the server")


def check_nothing_is_lost(
    box: LmdeployBox, ran: Ran, deaths: int, questions: int = SAMPLE, in_flight: int = SLOTS
) -> None:
    """Every question has its answer, and at most a window of them was asked again for each death."""
    assert box.still_to_happen() == ""
    assert box.results()["coverage"] == {"total": questions, "answered": questions, "failed": 0}
    asked_again = [int(number) for number in re.findall(r"([0-9]+) questions? (?:was|were) in flight", ran.stderr)]
    assert asked_again
    assert max(asked_again) <= deaths * in_flight


def test_a_killed_engine_costs_no_answer_at_full_concurrency(
    make_box: MakeBox, tiny: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    write_questions(tmp_path / "questions")
    box = make_box()
    box.inject("kill", after=VALIDATION_SPLIT // 2)
    result = box.run(tiny, *PYTORCH, data=tmp_path / "questions")
    assert result.returncode == 0, result.stderr
    # By its process or the log, not by requests that fail: they may not have begun to.
    told_at = [at for at, line in result.said if re.search(CAUSES["kill"], line)]
    assert len(told_at) == 1, result.stderr
    check_nothing_is_lost(box, result, deaths=1, questions=VALIDATION_SPLIT, in_flight=FULL_CONCURRENCY)
    record_property("seconds from SIGKILL of the engine to the message", round(told_at[0] - box.last_fault_at(), 2))


@pytest.mark.parametrize(
    ("version", "faults"),
    [(NEWEST, ("raise", "oom", "cuda", "abort", "kill_server")), (OLDEST, ("kill", "oom"))],
)
def test_a_death_is_noticed_with_its_cause(make_box: MakeBox, tiny: Path, version: str, faults: Sequence[str]) -> None:
    """By a process that is gone or by what the log says, long before requests or health checks would time out."""
    box = make_box(version)
    box.inject(*faults, after=AFTER)
    result = box.run(tiny, *OPTIONS, *PYTORCH)
    assert result.returncode == 0, result.stderr
    said = lives(result.stderr)
    assert len(said) == 1 + len(faults)
    for fault, life in zip(faults, said, strict=False):
        assert re.search(CAUSES[fault], life), f"{fault}:\n{life}"
    check_nothing_is_lost(box, result, deaths=len(faults))


def test_a_hanging_or_stopped_process_of_the_server_is_replaced(make_box: MakeBox, tiny: Path) -> None:
    faults = ("hang", "stop", "stop_server")
    box = make_box()
    box.inject(*faults, after=AFTER)
    result = box.run(tiny, "--hang-timeout", 20, *OPTIONS, *PYTORCH)
    assert result.returncode == 0, result.stderr
    said = lives(result.stderr)
    for fault, life in zip(faults, said, strict=False):
        assert re.search(CAUSES[fault], life), f"{fault}:\n{life}"
    check_nothing_is_lost(box, result, deaths=len(said) - 1)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_the_race_in_lmdeploys_own_start_costs_no_restart_and_a_fault_in_the_last_life_ends_the_run(
    make_box: MakeBox, tiny: Path, version: str
) -> None:
    """The oldest waits for ever for an engine that ended while starting."""
    box = make_box(version)
    box.lose_the_race()
    box.inject("oom", after=2 * AFTER)
    result = box.run(tiny, "--max-restarts", 0, "--concurrency", SLOTS, *PYTORCH)
    assert result.returncode == 3, result.stderr
    _, after = result.stderr.split("starting again: ")
    assert "its engine process was cut off while starting (a race in lmdeploy)" in after
    assert "the GPU has too little free memory" in after
    assert AFTER / 2 <= box.results()["coverage"]["answered"] < SAMPLE
