"""The order questions are asked in, so that a server's prefix cache is of use."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence

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

    Whoever asks gets the first question of another subject as long as the others of those that are open would not keep
    the server busy for another round; else one whose beginning is cached; else waits until a first one has been read,
    which takes as long as reading a prompt. So the next subjects are read while the last ones are asked, and no more
    are open than that takes, for their beginnings must stay in a small cache until they are of no more use.

    Args:
        questions: In the order they are asked.
        width: How many are asked at a time.
    """

    def __init__(self, questions: Sequence[Question], width: Callable[[], int]) -> None:
        super().__init__(())
        groups: dict[_Beginning, deque[Question]] = {}
        for question in questions:
            groups.setdefault(_beginning(question), deque()).append(question)
        self._width = width
        self._usual_size = len(questions) / max(1, len(groups))
        self._unopened = deque(groups.values())
        self._followers = groups
        self._open: deque[deque[Question]] = deque()
        self._ready = 0
        self._leading: set[_Beginning] = set()
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def next(self) -> Question | None:
        while True:
            coming = self._ready + len(self._leading) * self._usual_size
            if self._unopened and coming < self._width():
                group = self._unopened.popleft()
                leader = group.popleft()
                if group:
                    self._leading.add(_beginning(leader))
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
        key = _beginning(question)
        if key not in self._leading:
            return
        self._leading.remove(key)
        self._open.append(self._followers[key])
        self._ready += len(self._followers[key])
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)


def _beginning(question: Question) -> _Beginning:
    """Questions of which this is the same begin with the same examples."""
    return question.task, question.subject, question.examples
