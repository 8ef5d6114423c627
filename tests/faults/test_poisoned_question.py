"""A question that the server dies of is found, set aside and named; all others are answered."""

from tests.faults.box import ALL
from tests.faults.conftest import MakeBox

POISON, ANOTHER = "快速排序", "类Unix系统"


def test_it_crashes_the_server_every_time(box: MakeBox) -> None:
    machine = box("good", LMDEPLOY_STAND_IN_POISON=POISON)
    ended = machine.run()

    (poison,) = {text for text in machine.story.asked() if POISON in text}
    assert ended.code == 4
    assert len(machine.story.lives) == 3
    (failed,) = (row for row in machine.rows() if "error" in row)
    assert failed["error"] == "the server crashed on it 3 times"
    assert f"skipping {failed['subject']} #{failed['id']}: it keeps crashing the server" in ended.said
    assert f"{ALL - 1} of {ALL} questions answered, 1 without a reply" in ended.shown
    assert machine.restarts == 2
    assert machine.story.asked().count(poison) == 3
    machine.check(answered=ALL - 1, failed=1)

    del machine.environment["LMDEPLOY_STAND_IN_POISON"]
    cured = machine.run("--resume", machine.run_directory)

    assert cured.code == 0
    assert machine.story.asked(life=4) == [poison]
    machine.check(answered=ALL)


def test_the_server_survives_and_fails_every_request_from_then_on(box: MakeBox) -> None:
    machine = box("sickens of poison", LMDEPLOY_STAND_IN_POISON=POISON)
    ended = machine.run("--retries", 0)

    assert ended.code == 4
    assert "questions got no reply: HTTP 500" in ended.said
    assert "The server fails every request: HTTP 500: CUDA error: an illegal memory access" in ended.said
    assert POISON in machine.story.asked()[-1] or POISON in machine.story.asked()[-2]  # after that, a trivial question
    assert machine.rows()[-1]["error"] == "HTTP 500: CUDA error: an illegal memory access"
    machine.check(answered=ALL - 1, failed=1)


def test_two_of_them_cost_no_other_question_its_answer(box: MakeBox) -> None:
    machine = box("good", LMDEPLOY_STAND_IN_POISON=f"{POISON}; {ANOTHER}")
    ended = machine.run("--concurrency", ALL, "--max-restarts", 5)

    assert ended.code == 4
    assert ended.said.count("it keeps crashing the server") == 2
    machine.check(answered=ALL - 2, failed=2)
