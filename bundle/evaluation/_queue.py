"""The order in which questions are asked, so that a server's prefix cache helps."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from bundle.evaluation._window import Window
from bundle.tasks.catalog import Question

_Prefix = tuple[str, str, int]


class Queue:
    """Hands out questions in order, to workers of one event loop."""

    def __init__(self, questions: Iterable[Question]) -> None:
        self._questions = deque(questions)

    async def next(self) -> Question | None:
        """The next question; None at the end."""
        return self._questions.popleft() if self._questions else None

    def begun(self, question: Question) -> None:
        """Note that the server has read the question: its reply has started, or it will have none."""


class PrefixQueue(Queue):
    """Sends one question of a subject ahead, and the others once its prompt is in the server's prefix cache.

    All questions of a subject start with the same examples, several thousand characters. If they were sent together,
    the server would compute the examples for each, as they enter the cache only once the first question has been read.

    A worker gets the first question of the next subject if the open subjects could not keep the server busy for another
    round; else a question whose prefix is cached; else it waits until a first question has been read, which takes as
    long as reading a prompt. So the next subjects are read while the last ones are asked, and no more are open than
    that takes, because their prefixes must stay in a cache that may be small.
    """

    def __init__(self, questions: Sequence[Question], width: Callable[[], int]) -> None:
        super().__init__(())
        groups: dict[_Prefix, deque[Question]] = {}
        for question in questions:
            groups.setdefault(prefix(question), deque()).append(question)
        self._width = width
        self._usual_size = len(questions) / max(1, len(groups))
        self._unopened = deque(groups.values())
        self._followers = groups
        self._open: deque[deque[Question]] = deque()
        self._ready = 0
        self._leading: set[_Prefix] = set()
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def next(self) -> Question | None:
        while True:
            coming = self._ready + len(self._leading) * self._usual_size
            if self._unopened and coming < self._width():
                group = self._unopened.popleft()
                leader = group.popleft()
                if group:
                    self._leading.add(prefix(leader))
                return leader
            if self._open:
                group = self._open[0]
                follower = group.popleft()
                self._ready -= 1
                if not group:
                    self._open.popleft()
                return follower
            if not self._leading:
                return None
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn

    def begun(self, question: Question) -> None:
        key = prefix(question)
        if key not in self._leading:
            return
        self._leading.remove(key)
        self._open.append(self._followers[key])
        self._ready += len(self._followers[key])
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)


def make_queue(questions: Sequence[Question], window: Window, *, prefix_order: bool) -> Queue:
    """The questions in the order for a prefix cache, or as they are."""
    return PrefixQueue(questions, lambda: window.limit) if prefix_order else Queue(questions)


def prefix(question: Question) -> _Prefix:
    """The same for all questions that start with the same examples."""
    return question.task, question.subject, question.examples
