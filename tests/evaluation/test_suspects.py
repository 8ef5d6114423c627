"""A question that kills the server is found, and costs no other question its answer."""

import asyncio
import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import example, given
from hypothesis import strategies as st

from bundle.evaluation import AskingOptions, Evaluation
from bundle.evaluation._asking import FailingServerError
from bundle.evaluation._suspects import Loss, Suspects
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


class Trial:
    """Suspects with a clock of their own, under a server that may be restarted often."""

    def __init__(self, max_restarts: int = 1000) -> None:
        self.now = 0.0
        self.max_restarts = max_restarts
        self.suspects = Suspects(lambda: self.now)

    def died_with(self, *asked: Question, after_s: float = 1.0) -> Loss:
        for question in asked:
            self.suspects.begun(question)
        self.now += after_s
        return self.suspects.server_died(self.max_restarts)

    def answered(self, *asked: Question, after_s: float = 1.0) -> None:
        for question in asked:
            self.suspects.begun(question)
        self.now += after_s
        for question in asked:
            self.suspects.ended(question.key, replied=True)

    def groups(self, asked: Sequence[Question]) -> list[list[int]]:
        return [ids(group) for group in self.suspects.apart(asked)[1]]


def test_what_was_in_flight_at_a_crash_is_asked_again_together_after_the_others() -> None:
    trial = Trial()
    asked = questions(5)
    for question in asked[:3]:
        trial.suspects.begun(question)
    trial.suspects.ended(asked[1].key, replied=True)
    trial.died_with()

    together, groups = trial.suspects.apart(asked)
    assert (ids(together), [ids(group) for group in groups]) == ([1, 3, 4], [[0, 2]])


def test_only_a_second_crash_divides_them_and_whatever_has_had_a_reply_is_cleared() -> None:
    trial = Trial()
    asked = questions(340)
    trial.died_with(*asked[:330])
    assert [len(group) for group in trial.groups(asked)] == [330]

    trial.answered(*asked[:10])
    trial.died_with(*asked[10:330])
    assert [len(group) for group in trial.groups(asked)] == [20] * 16

    trial.died_with(*asked[10:26])
    assert [len(group) for group in trial.groups(asked)] == [1] * 16 + [4] + [20] * 15


def test_a_question_alone_with_two_crashes_is_guilty() -> None:
    trial = Trial()
    asked = questions(3)
    trial.died_with(*asked)
    trial.died_with(*asked)
    assert trial.died_with(asked[0]).guilty == {}
    assert trial.groups(asked) == [[1], [2], [0]]

    trial.answered(*asked[1:])
    assert trial.died_with(asked[0]).guilty == {asked[0].key: 4}
    assert trial.groups(asked) == []


def test_where_no_restart_is_left_once_alone_is_enough() -> None:
    trial = Trial(max_restarts=1)
    one, other = questions(2)
    trial.died_with(one, other)
    trial.answered(other)

    loss = trial.died_with(one)
    assert (loss.guilty, loss.goes_on) == ({one.key: 2}, False)


def test_crashes_that_narrow_suspects_down_do_not_count_but_are_limited() -> None:
    trial = Trial(max_restarts=2)
    asked = questions(300)
    assert trial.died_with(*asked).counted is not None
    assert trial.died_with(*asked).counted is not None
    counts = []
    for _ in range(10):
        group = trial.suspects.apart(asked)[1][0]
        counts.append(trial.died_with(*group).counted is not None)
    assert counts == [False] * 9 + [True]


def test_a_server_that_crashes_on_everything_is_soon_given_up() -> None:
    trial = Trial(max_restarts=2)
    asked = questions(300)
    deaths = 1
    while (loss := trial.died_with(*(next(iter(trial.suspects.apart(asked)[1]), asked)))).goes_on:
        asked = [question for question in asked if question.key not in loss.guilty]
        deaths += 1
    assert deaths <= 12


def test_a_guilty_question_explains_its_crashes_and_so_they_count_no_more() -> None:
    trial = Trial(max_restarts=2)
    guilty, innocent = questions(2)
    trial.died_with(guilty, innocent)
    trial.died_with(guilty, innocent)
    trial.answered(innocent)
    trial.died_with(guilty)
    assert trial.suspects.counted == 2

    assert trial.died_with(guilty).guilty
    assert trial.suspects.counted == 0


@pytest.mark.parametrize(("crash_every_s", "is_guilty"), [(1000.0, True), (1.0, False)])
def test_two_crashes_are_not_guilt_where_crashes_are_frequent(crash_every_s: float, is_guilty: bool) -> None:
    trial = Trial()
    unlucky, *others = questions(40)
    for other, bystander in itertools.pairwise(others):
        for _ in range(int(crash_every_s)):
            trial.answered(bystander)
        trial.died_with(other)
        trial.answered(other)

    trial.died_with(unlucky)
    assert bool(trial.died_with(unlucky).guilty) is is_guilty


def test_two_that_crash_it_in_turn_do_not_excuse_each_other() -> None:
    trial = Trial()
    one, other, *rest = questions(40)
    trial.answered(*rest, after_s=0.1)  # a short life: if crashes came by chance, they would be frequent

    assert not trial.died_with(one).guilty
    assert not trial.died_with(other).guilty
    assert not trial.died_with(one).guilty  # the other was alone with one crash, which could be chance
    assert set(trial.died_with(other).guilty) == {other.key}
    assert set(trial.died_with(one).guilty) == {one.key}


def test_of_a_server_that_stays_and_fails_whatever_it_is_asked_those_are_suspect_that_it_began_to_fail_with() -> None:
    trial = Trial()
    suspects = trial.suspects
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

    assert trial.died_with().failed == {question.key for question in (poison, next_to_it, *later)}
    assert suspects.apart([poison, next_to_it, *later]) == (later, [[poison, next_to_it]])


def test_a_fault_that_passes_makes_nothing_suspect() -> None:
    trial = Trial()
    one, other = questions(2)
    trial.suspects.begun(one)
    trial.suspects.failing(one)
    trial.suspects.ended(one.key, replied=False)
    trial.answered(other)
    trial.died_with()

    assert trial.suspects.apart([one]) == ([one], [])


class Simulated:
    """A server that takes a second for a reply, crashes of certain questions and is killed at certain moments.

    Attributes:
        answered: How often each question had a reply.
        set_aside: The questions found guilty.
        died_of: What was in flight at each crash.
    """

    def __init__(self, count: int, guilty: set[int], width: int, kills: Iterator[float], max_restarts: int) -> None:
        self.now = 0.0
        self.suspects = Suspects(lambda: self.now)
        self.open = {question.id: question for question in questions(count)}
        self.guilty, self.width, self.kills = guilty, width, kills
        self.next_kill = next(kills, math.inf)
        self.max_restarts = max_restarts
        self.answered: Counter[int] = Counter()
        self.set_aside: set[int] = set()
        self.died_of: list[set[int]] = []

    def run(self) -> bool:
        """Whether every question was answered or set aside."""
        while self.open:
            if self._live():
                continue
            loss = self.suspects.server_died(self.max_restarts)
            for key in loss.guilty:
                self.set_aside.add(key[-1])
                del self.open[key[-1]]
            if not loss.goes_on:
                return not self.open
        return True

    def _live(self) -> bool:
        self.next_kill = max(self.next_kill, self.now)
        together, groups = self.suspects.apart(self.open.values())
        for group in (together, *groups):
            for start in range(0, len(group), self.width):
                if not self._ask(group[start : start + self.width]):
                    return False
        return True

    def _ask(self, batch: Sequence[Question]) -> bool:
        for question in batch:
            self.suspects.begun(question)
        dies_at = self.now + 0.05 if self.guilty & set(ids(batch)) else math.inf
        for place, question in enumerate(batch):  # replies arrive one after the other
            replies_at = self.now + 1.0 / len(batch)
            if min(dies_at, self.next_kill) < replies_at or question.id in self.guilty:
                self.now = max(self.now, min(dies_at, self.next_kill, replies_at))
                if self.next_kill <= self.now:
                    self.next_kill = self.now + next(self.kills, math.inf)
                self.died_of.append(set(ids(batch[place:])))
                return False
            self.now = replies_at
            self.suspects.ended(question.key, replied=True)
            self.answered[question.id] += 1
            del self.open[question.id]
        return True


def kills_every(mean_s: float, seed: int) -> Iterator[float]:
    """Seconds from one to the next, for ever."""
    lot = random.Random(seed)
    while True:
        yield lot.expovariate(1 / mean_s)


@given(
    count=st.integers(1, 300),
    guilty=st.sets(st.integers(0, 299), max_size=3),
    width=st.sampled_from([1, 4, 16, 64, 300]),
    max_restarts=st.integers(2, 4),
)
@example(count=300, guilty={0}, width=300, max_restarts=2)
@example(count=300, guilty={299}, width=300, max_restarts=2)
@example(count=300, guilty={0, 1, 2}, width=300, max_restarts=2)
@example(count=300, guilty={0, 150, 299}, width=300, max_restarts=3)
def test_every_innocent_question_is_answered_once_and_the_guilty_are_found_within_few_crashes(
    count: int, guilty: set[int], width: int, max_restarts: int
) -> None:
    guilty = {number for number in guilty if number < count}
    server = Simulated(count, guilty, width, iter(()), max_restarts)

    finished = server.run()
    assert server.set_aside <= guilty
    assert set(server.answered.values()) <= {1}
    if len(guilty) <= 1:
        assert finished
        assert len(server.died_of) <= 6 * len(guilty) <= 9
    if finished:
        assert server.set_aside == guilty
        assert len(server.answered) == count - len(guilty)
    assert len(server.died_of) <= 1 + max_restarts + 9 * len(guilty)


@given(guilty=st.sets(st.integers(0, 299), min_size=2, max_size=3), width=st.sampled_from([16, 64, 300]))
def test_several_guilty_ones_are_all_found_if_enough_restarts_are_allowed(guilty: set[int], width: int) -> None:
    server = Simulated(300, guilty, width, iter(()), 3 * len(guilty))

    assert server.run()
    assert server.set_aside == guilty
    assert len(server.answered) == 300 - len(guilty)


def test_random_kills_lose_nothing_and_hardly_ever_make_an_innocent_question_guilty() -> None:
    """Kills come every 3 s on average, for ever; a reply takes a second."""
    blamed = 0
    for seed in range(12):
        guilty = {seed} if seed % 2 else set()
        server = Simulated(200, guilty, 32, kills_every(3.0, seed), 1000)

        assert server.run()
        assert guilty <= server.set_aside
        assert set(server.answered) | server.set_aside == set(range(200))
        assert set(server.answered.values()) == {1}
        assert len(server.died_of) <= 60
        blamed += len(server.set_aside - guilty)
    assert blamed <= 1  # of 2,400


@given(seed=st.integers(0, 1 << 32), max_restarts=st.integers(0, 5))
def test_random_kills_are_followed_by_few_restarts_more_than_are_allowed(seed: int, max_restarts: int) -> None:
    server = Simulated(300, set(), 300, kills_every(0.5, seed), max_restarts)

    server.run()
    assert len(server.died_of) <= (1 + max_restarts) * 10


async def test_what_failed_while_the_server_was_failing_is_asked_again_of_the_next(tmp_path: Path) -> None:
    async def failing(call: Call) -> web.Response:
        return completion("A") if call.number <= 5 else error(500, "CUDA error")

    async def well(call: Call) -> web.Response:
        return completion("A")

    options = AskingOptions(4, adaptive=False, full_replies=True, prefix_order=False)
    with Run.create(tmp_path, "r") as run:
        evaluation = Evaluation(
            [TASK], questions(60), run, lambda _: None, max_out_len={"ceval_gen": 8}, asking=options
        )
        async with loopback_api(failing) as api, client_of(api.url, retries=0) as client:
            with pytest.raises(FailingServerError, match="CUDA error"):
                await evaluation.ask(client)
        failed = evaluation.results({}).coverage.failed
        loss = evaluation.server_lost(max_restarts=1)
        left = len(evaluation.unanswered)
        async with loopback_api(well) as api, client_of(api.url) as client, asyncio.timeout(PATIENCE_S):
            await evaluation.ask(client)

    results = evaluation.results({})
    assert 32 <= failed < 60
    assert (loss.guilty, left) == ({}, 55)
    assert (results.coverage.answered, results.coverage.failed) == (60, 0)


async def test_a_question_too_long_for_the_model_is_no_sign_of_a_failing_server(tmp_path: Path) -> None:
    async def handler(call: Call) -> web.Response:
        return completion("A") if call.number == 1 else error(400, "too long")

    options = AskingOptions(4, adaptive=False, full_replies=True, prefix_order=False)
    with Run.create(tmp_path, "r") as run:
        evaluation = Evaluation(
            [TASK], questions(60), run, lambda _: None, max_out_len={"ceval_gen": 8}, asking=options
        )
        async with loopback_api(handler) as api, client_of(api.url, retries=0) as client:
            await evaluation.ask(client)

    assert evaluation.results({}).coverage.failed == 59
