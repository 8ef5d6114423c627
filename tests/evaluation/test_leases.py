"""Which of several servers is asked which question: nothing lost, nothing twice, and nobody waits for a slow one."""

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from bundle.evaluation._leases import Leases, Pool
from bundle.tasks.catalog import Question
from tests.evaluation.simulated_clock import run_simulated

WIDTH = 4


def questions(*sizes: int) -> list[Question]:
    """Subjects of these sizes."""
    return [
        Question("t", "val", f"s{subject}", number, prompt=[], gold="A", examples=5)
        for subject, size in enumerate(sizes)
        for number in range(size)
    ]


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    servers=st.integers(1, 4),
    steps=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["take", "take", "read", "end", "die"])), max_size=120),
)
def test_whatever_dies_when_every_question_is_handed_out_until_it_has_an_outcome_and_to_one_at_a_time(
    sizes: list[int], servers: int, steps: list[tuple[int, str]]
) -> None:
    everything = questions(*sizes)
    leases = Leases(servers)
    leases.add(everything)
    held: dict[int, dict[object, Question]] = {server: {} for server in range(servers)}
    outcomes: Counter[object] = Counter()

    def take(server: int) -> bool:
        question = leases.next(server, WIDTH)
        if question is None:
            return False
        assert all(question.key not in those for those in held.values())
        assert question.key not in outcomes
        held[server][question.key] = question
        return True

    def end(server: int) -> None:
        key = next(iter(held[server]))
        leases.read(server, held[server][key].key)
        leases.ended(server, held[server].pop(key).key)
        outcomes[key] += 1

    for number, step in steps:
        server = number % servers
        if step == "take":
            take(server)
        elif step == "die":
            lost = leases.lost(server)
            assert {question.key for question in lost} == held[server].keys()
            held[server].clear()
            leases.add(lost)
        elif held[server]:
            if step == "read":
                leases.read(server, next(iter(held[server].values())).key)
            else:
                end(server)

    while leases.left:
        taken = [take(server) for server in range(servers)]
        busy = [server for server in range(servers) if held[server]]
        assert any(taken) or busy, "everybody waits for ever"
        for server in busy:
            end(server)
    assert outcomes == Counter(question.key for question in everything)


def test_a_subject_stays_with_who_opened_it_and_the_largest_comes_first() -> None:
    leases = Leases(2)
    leases.add(questions(3, 9, 5))

    first = leases.next(0, 1)
    second = leases.next(1, 1)
    assert first is not None
    assert second is not None
    assert (first.subject, second.subject) == ("s1", "s2")
    assert leases.next(0, 1) is None, "the others wait until the examples have been read"
    leases.read(0, first.key)
    following = leases.next(0, 1)
    assert following is not None
    assert following.subject == "s1"


def test_who_has_nothing_left_takes_half_of_the_largest_rest() -> None:
    leases = Leases(2)
    leases.add(questions(9))
    leader = leases.next(0, 8)
    assert leader is not None

    taken = leases.next(1, 8)
    assert taken is not None
    assert taken.id == 5
    assert leases.left == 9


class Servers:
    """Servers that take so long for a reply, on a simulated clock."""

    def __init__(self, pool: Pool, latencies: list[float], width: int) -> None:
        self._pool = pool
        self._latencies = latencies
        self._width = width
        self._replies: dict[tuple[int, object], asyncio.Event] = {}
        self.asked: Counter[object] = Counter()
        self.outcomes: Counter[object] = Counter()
        self.by_server: Counter[int] = Counter()

    async def run(self) -> float:
        """Answer everything; return when the last reply came."""
        async with asyncio.TaskGroup() as group:
            for server in range(len(self._latencies)):
                for _ in range(self._width):
                    group.create_task(self._work(server))
        return asyncio.get_running_loop().time()

    async def _work(self, server: int) -> None:
        self._pool.when_called_off(server, lambda key: self._replies.pop((server, key)).set())
        while (question := await self._pool.next(server, self._width)) is not None:
            self.asked[question.key] += 1
            self.by_server[server] += 1
            self._pool.read(server, question.key)
            called_off = self._replies[server, question.key] = asyncio.Event()
            try:
                async with asyncio.timeout(self._latencies[server]):
                    await called_off.wait()
            except TimeoutError:
                del self._replies[server, question.key]
                self.outcomes[question.key] += 1
                self._pool.ended(server, question.key)


def test_a_server_four_times_slower_costs_less_than_a_fifth_of_the_time() -> None:
    everything = questions(*[26] * 51, 20)
    latencies, width = [1.0, 1.0, 1.0, 4.0], 16

    async def main() -> tuple[float, Servers]:
        pool = Pool(4)
        pool.add(everything)
        servers = Servers(pool, latencies, width)
        return await servers.run(), servers

    last_s, servers = run_simulated(main())

    ideal_s = len(everything) / sum(width / latency for latency in latencies)
    assert last_s <= 1.2 * ideal_s
    assert servers.asked == Counter(question.key for question in everything)


def test_alone_it_asks_everything_too() -> None:
    async def main() -> Servers:
        pool = Pool(2)
        pool.add(questions(7, 3))
        servers = Servers(pool, [1.0], 4)
        await servers.run()
        return servers

    assert run_simulated(main()).asked.total() == 10


def test_what_a_silent_server_holds_is_asked_once_more_by_one_that_has_nothing_to_do() -> None:
    leases = Leases(3)
    leases.add(questions(1, 1, 1))
    stopped, busy, free = (leases.next(server, 1) for server in range(3))
    assert stopped is not None
    assert busy is not None
    assert free is not None
    assert leases.next(1, 2, silent=[0]) is None, "it has something of its own"
    leases.ended(2, free.key)
    assert leases.next(2, 2, silent=[]) is None
    assert leases.next(2, 2, silent=[2]) is None, "not its own"

    assert leases.next(2, 2, silent=[0]) == stopped
    leases.ended(1, busy.key)
    assert leases.next(1, 2, silent=[0]) is None, "it may be what hangs every server that is asked it"
    assert leases.ended(2, stopped.key) == [0]
    assert leases.ended(0, stopped.key) == []
    assert leases.left == 0


def test_what_two_hold_is_lost_with_the_second() -> None:
    leases = Leases(2)
    leases.add(questions(1))
    question = leases.next(0, 1)
    assert question is not None
    assert leases.next(1, 1, silent=[0]) == question

    assert leases.lost(0) == []
    assert leases.left == 1
    assert leases.lost(1) == [question]
    assert leases.left == 0


def test_a_stopped_server_holds_nobody_up() -> None:
    """What it holds is asked elsewhere once all else has been, and its requests are called off."""
    everything = questions(9, 9, 9)

    async def main() -> Servers:
        pool = Pool(2)
        pool.add(everything)
        servers = Servers(pool, [1.0, 1e9], 4)
        await servers.run()
        return servers

    servers = run_simulated(main())

    assert servers.outcomes == Counter(question.key for question in everything)
    assert servers.by_server[1] == 4
