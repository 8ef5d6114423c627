"""Several servers are asked at once, and some of them die."""

import contextlib
import json
import os
import signal
from pathlib import Path

import pytest

from tests.faults.box import ALL, IN_FLIGHT, MIDWAY, Box
from tests.faults.conftest import MakeBox
from tests.patience import PATIENCE_S, wait_until
from tests.stand_ins.box import GPU, with_gpus

TWO_GPUS, FOUR_GPUS = with_gpus(2), with_gpus(4)
ON_FIRST, ON_SECOND = "LMDEPLOY_STAND_IN_ON_0", "LMDEPLOY_STAND_IN_ON_1"
POISON = "快速排序"


def replies(machine: Box) -> dict[tuple[str, int], tuple[str, str]]:
    return {key: (row["reply"], row["answer"]) for key, row in machine.answered().items()}


def test_two_servers_give_what_one_gives_row_for_row_and_a_resume_may_have_another_number(
    box: MakeBox, tmp_path: Path
) -> None:
    machine = box("good", **TWO_GPUS)
    assert machine.run("--replicas", "all").code == 0
    both = replies(machine)
    asked = machine.story.asked()
    counts = machine.results["replicas"]

    machine.out = tmp_path / "one"
    assert machine.run("--out", machine.out).code == 0

    assert replies(machine) == both
    assert len(asked) - asked.count("1") == len(set(asked) - {"1"}) == ALL
    assert sum(one["answered"] for one in counts) == ALL
    assert sorted(machine.story.all_of("gpus"))[:2] == ["0", "0"]
    machine.check_nothing_is_left()


def test_a_gpu_on_which_it_would_be_computed_otherwise_is_not_used(box: MakeBox) -> None:
    gpus = [GPU, (1, "GPU-1", "Tesla T4", *GPU[3:], "7.5")]  # no bfloat16, which the checkpoint is in
    machine = box("good", NVIDIA_SMI_STAND_IN=json.dumps({"gpus": gpus}))
    ended = machine.run("--replicas", "all")

    assert ended.code == 0
    assert "not used: GPU 1 (Tesla T4" in ended.said
    assert "the engine's dtype would be float16 and not its default, as the first server's" in ended.said
    assert machine.story.all_of("gpus") == ["0"]
    machine.check(answered=ALL)
    machine.check_nothing_is_left()


@pytest.mark.parametrize(
    ("stop", "options"), [(signal.SIGKILL, []), (signal.SIGSTOP, ["--hang-timeout", 3])], ids=["killed", "stopped"]
)
@pytest.mark.parametrize("behaviour", ["silent", "leaves a worker"])
@pytest.mark.slow
def test_both_are_lost_midway(box: MakeBox, behaviour: str, stop: signal.Signals, options: list[object]) -> None:
    machine = box(f"{behaviour}; {behaviour}; good", **TWO_GPUS)
    process = machine.start("--replicas", 2, *options)
    wait_until(lambda: len(machine.story.lives) >= 2)
    wait_until(lambda: len(machine.rows()) >= 2 * MIDWAY)
    for pid in machine.story.lives[:2]:
        with contextlib.suppress(ProcessLookupError):  # it was found to hang before it was stopped
            os.kill(pid, stop)

    ended = machine.end_of(process)

    assert ended.code == 0
    machine.check(answered=ALL)


@pytest.mark.slow
def test_one_is_stopped_and_what_it_holds_is_asked_elsewhere(box: MakeBox) -> None:
    """Long before it counts as hung."""
    machine = box("silent; good", **TWO_GPUS)
    process = machine.start("--replicas", 2)
    wait_until(lambda: len(machine.rows()) >= ALL - IN_FLIGHT)
    with contextlib.suppress(ProcessLookupError):
        os.kill(machine.story.lives[0], signal.SIGSTOP)

    ended = machine.end_of(process)

    assert ended.code == 0
    assert "hangs" not in ended.said
    machine.check(answered=ALL)


def test_one_that_never_comes_up_is_gone_on_without(box: MakeBox) -> None:
    machine = box("good", **TWO_GPUS, **{ON_SECOND: "out of memory"})
    ended = machine.run("--replicas", 2, "--max-restarts", 1)

    assert ended.code == 0
    assert "Continuing without it" in ended.said or len(machine.story.lives) == 2
    machine.check(answered=ALL)


@pytest.mark.slow
def test_the_first_is_lost_for_good_and_the_other_answers_the_rest(box: MakeBox) -> None:
    # Which comes up first is not known, and the other must not have answered all before this one is midway.
    machine = box("good", **TWO_GPUS, **{ON_FIRST: "crash midway", ON_SECOND: "takes its time"})
    ended = machine.run("--replicas", 2, "--max-restarts", 0)

    assert ended.code == 3
    assert "Continuing with the other servers" in ended.said
    assert len(machine.answered()) >= ALL - IN_FLIGHT
    machine.check_nothing_is_left()

    del machine.environment[ON_FIRST], machine.environment[ON_SECOND]
    assert machine.run("--resume", machine.run_directory, "--replicas", 1).code == 0
    machine.check(answered=ALL)


@pytest.mark.slow
def test_a_poisoned_question_costs_no_other_its_answer(box: MakeBox) -> None:
    machine = box("good", LMDEPLOY_STAND_IN_POISON=POISON, **FOUR_GPUS)
    ended = machine.run("--replicas", 4)

    assert ended.code == 4
    machine.check(answered=ALL - 1, failed=1)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.slow
def test_interrupted_nothing_is_left_and_a_resume_asks_the_rest(box: MakeBox, times: int) -> None:
    machine = box("stubborn; leaves a worker; stubborn; silent; good", **FOUR_GPUS)
    process = machine.start("--replicas", 4)
    wait_until(lambda: len(machine.story.lives) == 4)
    wait_until(lambda: len(machine.rows()) >= 4 * MIDWAY)
    for _ in range(times):
        process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130
    machine.check_nothing_is_left()
    before = machine.answered().keys()
    asked = len(machine.story.asked())

    assert machine.run("--resume", machine.run_directory).code == 0

    again = [text for text in machine.story.asked()[asked:] if text != "1"]
    assert len(again) == ALL - len(before)
    machine.check(answered=ALL)


def test_a_rate_for_several_servers_is_refused(box: MakeBox) -> None:
    refused = box("good", **TWO_GPUS).run("--replicas", 2, "--qps", 1)
    assert refused.code == 2
    assert "--qps cannot be kept by several servers together" in refused.said


def test_with_fewer_gpus_than_asked_for_it_begins_with_those(box: MakeBox) -> None:
    machine = box("good", **TWO_GPUS)
    ended = machine.run("--replicas", 3)

    assert ended.code == 0
    assert "2 of 3 servers: GPU 0 is in use" in ended.said
    machine.check(answered=ALL)
