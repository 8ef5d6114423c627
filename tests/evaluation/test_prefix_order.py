"""One question of a subject is sent ahead, and the others when its prompt is in the server's prefix cache."""

import asyncio
import string
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from bundle.evaluation._leases import Pool
from bundle.tasks.catalog import Question
from tests.patience import PATIENCE_S

SUBJECTS = string.ascii_lowercase


def questions(*sizes: int, examples: int = 5) -> list[Question]:
    """So many questions of subjects "a", "b" and so on."""
    return [
        Question("t", "val", subject, number, [{"role": "user", "content": "?"}], "A", examples)
        for subject, size in zip(SUBJECTS, sizes, strict=False)
        for number in range(size)
    ]


class Queue:
    """The questions of one server that is asked so many at once."""

    def __init__(self, width: int, asked: list[Question], *, prefix_order: bool = True) -> None:
        self._width = width
        self._pool = Pool(1)
        self._pool.add(asked, prefix_order=prefix_order)

    async def next(self) -> Question | None:
        return await self._pool.next(0, self._width)

    def read(self, question: Question) -> None:
        self._pool.read(0, question.key)

    def ended(self, question: Question) -> None:
        self._pool.ended(0, question.key)


def name(question: Question | None) -> str:
    return "none" if question is None else f"{question.subject}{question.id}"


async def test_without_an_order_questions_come_as_they_are() -> None:
    queue = Queue(8, asked := questions(1, 2), prefix_order=False)

    assert [name(await queue.next()) for _ in range(3)] == ["a0", "b0", "b1"]
    for question in asked:
        queue.ended(question)
    assert await queue.next() is None


async def test_the_first_question_of_every_subject_comes_before_any_second() -> None:
    queue = Queue(8, questions(3, 3, 3))

    assert [name(await queue.next()) for _ in range(3)] == ["a0", "b0", "c0"]


async def test_the_others_of_a_subject_come_when_its_first_has_been_read() -> None:
    queue = Queue(8, asked := questions(2, 2))
    assert [name(await queue.next()) for _ in range(2)] == ["a0", "b0"]

    waiting = asyncio.create_task(queue.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.read(asked[2])

    assert name(await waiting) == "b1"


async def test_what_is_cached_comes_before_another_subject_is_begun() -> None:
    queue = Queue(2, asked := questions(9, 9))
    await queue.next()
    queue.read(asked[0])

    assert [name(await queue.next()) for _ in range(3)] == ["a1", "a2", "a3"]


async def test_the_next_subject_is_begun_before_the_last_one_is_through() -> None:
    queue = Queue(2, asked := questions(9, 9))
    await queue.next()
    queue.read(asked[0])

    assert [name(await queue.next()) for _ in range(9)] == [*(f"a{number}" for number in range(1, 8)), "b0", "a8"]


async def test_a_question_with_fewer_examples_begins_otherwise() -> None:
    queue = Queue(8, [*questions(2), *questions(4, examples=4)[2:]])

    assert [(await queue.next()).examples for _ in range(2)] == [5, 4]  # type: ignore[union-attr]


@given(sizes=st.lists(st.integers(0, 6), max_size=8), workers=st.integers(1, 9))
def test_every_question_comes_once_however_many_ask(sizes: list[int], workers: int) -> None:
    asked = questions(*sizes)
    seen: Counter[str] = Counter()

    async def work(queue: Queue) -> None:
        while (question := await queue.next()) is not None:
            await asyncio.sleep(0)
            seen[name(question)] += 1
            queue.read(question)
            queue.ended(question)

    async def main() -> None:
        queue = Queue(workers, asked)
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(work(queue) for _ in range(workers)))

    asyncio.run(main())

    assert seen == Counter(name(question) for question in asked)


async def test_no_more_subjects_are_open_than_keep_the_server_busy() -> None:
    queue = Queue(11, asked := questions(*[10] * 8))
    assert [name(await queue.next()) for _ in range(2)] == ["a0", "b0"]
    queue.read(asked[0])

    assert [name(await queue.next()) for _ in range(10)] == [*(f"a{number}" for number in range(1, 10)), "c0"]


async def test_while_all_open_subjects_are_being_read_others_are_opened_up_to_sixteen() -> None:
    queue = Queue(99, questions(*[99] * 20))
    assert [name(await queue.next()) for _ in range(16)] == [f"{subject}0" for subject in SUBJECTS[:16]]

    waiting = asyncio.create_task(queue.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
