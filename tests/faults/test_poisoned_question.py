"""A question that the server dies of is found, set aside and named; all others are answered."""

import pytest

from bundle.runs.record import RunRecord, TemplateRecord
from tests.faults.box import ALL
from tests.faults.conftest import MakeBox

POISON, ANOTHER = "快速排序", "类Unix系统"


def test_it_crashes_the_server_every_time(box: MakeBox) -> None:
    machine = box("good", LMDEPLOY_STAND_IN_POISON=POISON)
    ended = machine.run("--concurrency", 16)

    (poison,) = {text for text in machine.story.asked() if POISON in text}
    assert ended.code == 4
    crashes = machine.story.asked().count(poison)
    lives = len(machine.story.lives)
    assert 2 <= crashes <= 4  # fewer where others in flight have had their replies by then
    assert lives in (crashes, crashes + 1)
    (failed,) = (row for row in machine.rows() if "error" in row)
    assert failed["error"] == f"the server crashed on it {crashes} times"
    assert f"skipping {failed['subject']} #{failed['id']}: it keeps crashing the server" in ended.said
    assert f"{ALL - 1} of {ALL} questions answered, 1 without a reply" in ended.shown
    assert machine.restarts == lives - 1
    machine.check(answered=ALL - 1, failed=1)

    del machine.environment["LMDEPLOY_STAND_IN_POISON"]
    cured = machine.run("--resume", machine.run_directory)

    assert cured.code == 0
    assert machine.story.asked(life=lives + 1) == [poison]
    machine.check(answered=ALL)


@pytest.mark.slow
def test_the_server_survives_and_fails_every_request_from_then_on(box: MakeBox) -> None:
    machine = box("sickens of poison", LMDEPLOY_STAND_IN_POISON=POISON)
    ended = machine.run("--retries", 0)

    assert ended.code == 4
    assert "questions got no reply: HTTP 500" in ended.said
    assert "Every request failed: HTTP 500: CUDA error: an illegal memory access" in ended.said
    asked = machine.story.asked()
    assert asked[max(place for place, text in enumerate(asked) if POISON in text) + 1] == "1"  # a trivial question
    assert "HTTP 500: CUDA error: an illegal memory access" in {row.get("error") for row in machine.rows()}
    machine.check(answered=ALL - 1, failed=1)


def test_it_is_found_among_all_within_six_crashes_although_two_restarts_are_allowed(box: MakeBox) -> None:
    machine = box("good", LMDEPLOY_STAND_IN_POISON=POISON)
    ended = machine.run("--concurrency", ALL)

    assert ended.code == 4
    lives = len(machine.story.lives)
    assert lives <= 7
    # On a busy machine most have their replies before the first crash, and few are left to search among.
    assert lives <= 3 or "restarting the server (to find the question that crashes it)" in ended.said
    machine.check(answered=ALL - 1, failed=1)


@pytest.mark.slow
def test_two_of_them_cost_no_other_question_its_answer(box: MakeBox) -> None:
    machine = box("good", LMDEPLOY_STAND_IN_POISON=f"{POISON}; {ANOTHER}")
    ended = machine.run("--concurrency", ALL, "--max-restarts", 9)

    assert ended.code == 4, ended.said
    assert ended.said.count("it keeps crashing the server") == 2
    machine.check(answered=ALL - 2, failed=2)


def test_among_two_questions_it_does_not_keep_the_server_from_being_proved(box: MakeBox) -> None:
    machine = box("dies of a token", LMDEPLOY_STAND_IN_POISON=POISON)
    ended = machine.run("--subjects", "college_programming")

    assert ended.code == 4, ended.said
    assert "1 of 2 questions answered, 1 without a reply" in ended.shown
    assert RunRecord.read(machine.run_directory).template == TemplateRecord(checked=1, equal=True)


def test_a_server_that_dies_of_every_prompt_is_never_proved_and_gives_no_score(box: MakeBox) -> None:
    machine = box("dies of a token", LMDEPLOY_STAND_IN_POISON="单项选择题")
    ended = machine.run("--subjects", "college_programming")

    assert ended.code == 3, ended.said
    assert machine.rows() == []
    assert "could not verify" not in ended.said
