"""The order questions are asked in, so that a server's prefix cache is of use."""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence

from bundle.tasks.catalog import Question

_Beginning = tuple[str, str, int]


class Queue:
    """Hands out questions to whoever is free to ask one. Made for one event loop.

    Args:
        questions: In the order they are asked.
    """

    def __init__(self, questions: Iterable[Question]) -> None:
        self._questions = deque(questions)

    async def next(self) -> Question | None:
        """The next question; None when there are no more."""
        return self._questions.popleft() if self._questions else None

    def begun(self, question: Question) -> None:
        """The server has read the question: its reply has begun, or there will be none."""


class PrefixQueue(Queue):
    """Sends one question of a subject ahead, and the others when its prompt is in the server's prefix cache.

    All questions of a subject begin with the same examples, several thousand characters. Sent together, each would have
    them computed, for none is in the cache before the first has been read; sent after one another, only the first.

    Whoever asks gets a question whose beginning is cached, as long as there is one; else the first of another subject;
    and where all of those are on their way as well, waits for one of them, which takes as long as reading a prompt. So
    no more subjects are open than keep the server busy, and their beginnings stay in a small cache.
    """

    def __init__(self, questions: Sequence[Question]) -> None:
        super().__init__(())
        groups: dict[_Beginning, deque[Question]] = {}
        for question in questions:
            groups.setdefault(_beginning(question), deque()).append(question)
        self._unopened = deque(groups.values())
        self._followers = groups
        self._open: deque[deque[Question]] = deque()
        self._leading: set[_Beginning] = set()
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def next(self) -> Question | None:
        while True:
            while self._open:
                group = self._open[0]
                if group:
                    return group.popleft()
                self._open.popleft()
            if self._unopened:
                group = self._unopened.popleft()
                leader = group.popleft()
                if group:
                    self._leading.add(_beginning(leader))
                return leader
            if not self._leading:
                return None
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn

    def begun(self, question: Question) -> None:
        key = _beginning(question)
        if key not in self._leading:
            return
        self._leading.remove(key)
        self._open.append(self._followers[key])
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)


def _beginning(question: Question) -> _Beginning:
    """Questions of which this is the same begin with the same examples."""
    return question.task, question.subject, question.examples
