"""A question that kills the server is found, and costs no other question its answer."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from bundle.evaluation import AskingOptions, Evaluation
from bundle.evaluation._asking import FailingServerError
from bundle.evaluation._suspects import Suspects
from bundle.runs.run import Run
from bundle.tasks.catalog import Question, find_task
from tests.evaluation.asking import client_of
from tests.openai_api import Call, completion, error, loopback_api
from tests.patience import PATIENCE_S

TASK = find_task("ceval_gen")


def questions(count: int) -> list[Question]:
    return [
        Question("ceval_gen", "val", "law", number, [{"role": "user", "content": f"law {number}"}], "A", 0)
        for number in range(count)
    ]


def ids(asked: Sequence[Question]) -> list[int]:
    return [question.id for question in asked]


def test_what_was_in_flight_at_a_death_is_asked_after_the_others_and_alone() -> None:
    suspects = Suspects()
    asked = questions(5)
    for question in asked[:3]:
        suspects.begun(question)
    suspects.ended(asked[1].key, replied=True)
    suspects.server_died()

    together, alone = suspects.apart(asked)
    assert (ids(together), ids(alone)) == ([1, 3, 4], [0, 2])


def test_who_was_alone_with_a_dying_server_comes_last_and_the_second_time_is_set_aside() -> None:
    suspects = Suspects()
    asked = questions(3)
    for question in asked:
        suspects.begun(question)
    suspects.server_died()

    suspects.begun(asked[0])
    suspects.server_died()
    assert suspects.to_skip(asked, last_life=False) == []
    assert ids(suspects.apart(asked)[1]) == [1, 2, 0]

    suspects.begun(asked[0])
    suspects.server_died()
    assert ids(suspects.to_skip(asked, last_life=False)) == [0]


def test_where_the_server_is_not_started_again_two_deaths_one_of_them_alone_are_enough() -> None:
    suspects = Suspects()
    asked = questions(3)
    for question in asked[:2]:
        suspects.begun(question)
    suspects.server_died()
    suspects.begun(asked[0])
    suspects.server_died()
    suspects.begun(asked[2])
    suspects.server_died()

    assert ids(suspects.to_skip(asked, last_life=True)) == [0]


def test_a_server_that_dies_of_other_things_too_must_die_more_often_before_a_question_is_blamed() -> None:
    suspects = Suspects()
    killed_by_somebody, unlucky = questions(2)
    suspects.begun(killed_by_somebody)
    suspects.server_died()
    suspects.begun(killed_by_somebody)
    suspects.ended(killed_by_somebody.key, replied=True)

    for _ in range(2):
        suspects.begun(unlucky)
        suspects.server_died()
    assert suspects.to_skip([unlucky], last_life=False) == []

    suspects.begun(unlucky)
    suspects.server_died()
    assert suspects.to_skip([unlucky], last_life=False) == [unlucky]


def test_of_a_server_that_stays_and_fails_whatever_it_is_asked_those_are_suspect_that_it_began_to_fail_with() -> None:
    suspects = Suspects()
    answered, poison, next_to_it, *later = questions(6)
    for question in (answered, poison, next_to_it):
        suspects.begun(question)
    suspects.failing(poison)
    suspects.ended(poison.key, replied=False)
    suspects.ended(answered.key, replied=True)  # it was computed before
    for question in (next_to_it, *later):
        suspects.begun(question)
        suspects.failing(question)
        suspects.ended(question.key, replied=False)

    assert suspects.server_died() == {question.key for question in (poison, next_to_it, *later)}
    assert suspects.apart([poison, next_to_it, *later]) == (later, [poison, next_to_it])


def test_a_fault_that_passes_makes_nothing_suspect() -> None:
    suspects = Suspects()
    one, other = questions(2)
    suspects.begun(one)
    suspects.failing(one)
    suspects.ended(one.key, replied=False)
    suspects.begun(other)
    suspects.ended(other.key, replied=True)
    suspects.server_died()

    assert suspects.apart([one]) == ([one], [])


@given(poison=st.sets(st.integers(0, 19), max_size=3), width=st.integers(1, 8))
def test_every_other_question_is_answered_and_only_poison_is_set_aside(poison: set[int], width: int) -> None:
    """A server that dies of certain questions, asked ``width`` at a time, and started again as often as it takes."""
    suspects = Suspects()
    open_questions = {question.id: question for question in questions(20)}
    set_aside: set[int] = set()

    def live() -> bool:
        """One life of the server; whether it got to the end."""
        together, alone = suspects.apart(open_questions.values())
        batches = [together[start : start + width] for start in range(0, len(together), width)]
        for batch in [*batches, *([question] for question in alone)]:
            for question in batch:
                suspects.begun(question)
            if poison & {question.id for question in batch}:
                suspects.server_died()
                set_aside.update(ids(suspects.to_skip(open_questions.values(), last_life=False)))
                for number in set_aside:
                    open_questions.pop(number, None)
                return False
            for question in batch:
                suspects.ended(question.key, replied=True)
                del open_questions[question.id]
        return True

    lives = 1
    while not live():
        lives += 1

    assert set_aside == poison
    assert lives <= 1 + 3 * len(poison)


async def test_what_failed_while_the_server_was_failing_is_asked_again_of_the_next(tmp_path: Path) -> None:
    async def failing(call: Call) -> web.Response:
        return completion("A") if call.number <= 5 else error(500, "CUDA error")

    async def well(call: Call) -> web.Response:
        return completion("A")

    options = AskingOptions(4, adaptive=False, full_replies=True, prefix_order=False)
    with Run.create(tmp_path, "r") as run:
        evaluation = Evaluation([TASK], questions(60), run, lambda _: None)
        async with loopback_api(failing) as api, client_of(api.url, retries=0) as client:
            with pytest.raises(FailingServerError, match="CUDA error"):
                await evaluation.ask(client, {"ceval_gen": 8}, options)
        failed = evaluation.results({}).coverage.failed
        set_aside = evaluation.server_lost()
        left = len(evaluation.unanswered)
        async with loopback_api(well) as api, client_of(api.url) as client, asyncio.timeout(PATIENCE_S):
            await evaluation.ask(client, {"ceval_gen": 8}, options)

    results = evaluation.results({})
    assert 32 <= failed < 60
    assert (set_aside, left) == ([], 55)
    assert (results.coverage.answered, results.coverage.failed) == (60, 0)


async def test_a_question_too_long_for_the_model_is_no_sign_of_a_failing_server(tmp_path: Path) -> None:
    async def handler(call: Call) -> web.Response:
        return completion("A") if call.number == 1 else error(400, "too long")

    options = AskingOptions(4, adaptive=False, full_replies=True, prefix_order=False)
    with Run.create(tmp_path, "r") as run:
        evaluation = Evaluation([TASK], questions(60), run, lambda _: None)
        async with loopback_api(handler) as api, client_of(api.url, retries=0) as client:
            await evaluation.ask(client, {"ceval_gen": 8}, options)

    assert evaluation.results({}).coverage.failed == 59
