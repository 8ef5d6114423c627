"""Replies that break off, are none, are far too long or never end; servers that answer nothing but errors."""

from pathlib import Path

import pytest

from tests.faults.box import ALL, MIDWAY, Box
from tests.faults.conftest import MakeBox

Hit = dict[str, list[dict[str, object]]]


def hit_by(machine: Box) -> Hit:
    """The rows of the questions that each fault was the answer to."""
    faults = {event["of"]: event["fault"] for event in machine.story.events if "fault" in event}
    texts = machine.texts()
    found: Hit = {}
    for row in machine.rows():
        if (fault := faults.get(texts[row["subject"], row["id"]])) is not None:
            found.setdefault(fault, []).append(row)
    return found


@pytest.fixture(scope="module")
def passing(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Box:
    """A run in which a quarter of the questions meet a fault the first time they are asked."""
    machine = Box(tmp_path_factory.mktemp("passing"), tiny, "passing faults")
    assert machine.run().code == 0
    machine.check(answered=ALL)
    return machine


@pytest.mark.parametrize("fault", ["reset", "cut", "hang_up", "half_json", "server_error", "too_many"])
def test_a_passing_fault_costs_one_more_attempt_and_nothing_else(passing: Box, fault: str) -> None:
    rows = hit_by(passing)[fault]
    assert rows
    assert {row["attempts"] for row in rows} == {2}
    assert passing.restarts == 0


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Box:
    """A run in which some questions meet a fault each time they are asked."""
    machine = Box(tmp_path_factory.mktemp("lasting"), tiny, "lasting faults")
    ended = machine.run("--request-timeout", 8, "--retries", 1)
    failed = sum("error" in row for row in machine.rows())
    assert ended.code == 4
    assert f"{ALL - failed} of {ALL} questions answered, {failed} without a reply" in ended.shown
    machine.check(answered=ALL - failed, failed=failed)
    return machine


@pytest.mark.parametrize(
    ("fault", "error", "attempts"),
    [
        ("huge", "the response is longer than 16 MB: not a chat completion", 1),
        ("endless", "no reply within 8 s", 2),
        ("trickle", "no reply within 8 s", 2),
    ],
)
@pytest.mark.slow
def test_an_impossible_reply_leaves_its_question_without_one(
    lasting: Box, fault: str, error: str, attempts: int
) -> None:
    rows = hit_by(lasting)[fault]
    assert rows
    assert {(row["error"], row["attempts"], row["correct"]) for row in rows} == {(error, attempts, None)}


def test_a_server_that_fails_every_request_is_restarted(box: MakeBox) -> None:
    machine = box("fails everything; good")
    ended = machine.run("--retries", 0)

    assert ended.code == 0
    assert "questions got no reply: HTTP 500" in ended.said
    assert machine.restarts == 1
    machine.check(answered=ALL)


@pytest.mark.slow
def test_a_server_that_fails_every_request_after_each_restart_ends_the_run(box: MakeBox) -> None:
    machine = box("fails everything")
    ended = machine.run("--retries", 0, "--max-restarts", 1)

    assert ended.code == 3
    assert "HTTP 500: CUDA error: an illegal memory access" in ended.said.partition("error: ")[2]
    assert len(machine.story.lives) == 2
    coverage = machine.results["coverage"]
    assert coverage["answered"] == len(machine.answered()) >= MIDWAY
    machine.check(answered=coverage["answered"], failed=coverage["failed"])


def test_another_model_answers(box: MakeBox) -> None:
    machine = box("another model")
    ended = machine.run()

    assert ended.code == 3
    assert "the reply is from another model, 'another'" in ended.said.partition("error: ")[2]
    assert "Another server may have taken the port" in ended.said
    assert {row["reply"] for row in machine.answered().values()} <= set("ABCD")
    coverage = machine.results["coverage"]
    # A right reply may still be on its way when the first foreign one ends the run.
    assert 0 < coverage["answered"] <= MIDWAY
    machine.check(answered=coverage["answered"], failed=coverage["failed"])
