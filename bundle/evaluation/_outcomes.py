"""Which questions of a run have an outcome, and which row of its file holds it."""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import compress, repeat

from bundle.runs.predictions import Prediction
from bundle.tasks.catalog import Question
from bundle.tasks.scores import Key, Part

_NOWHERE = -1
_NONE, _FAILED, _ANSWERED, _STOPPED = range(4)


class Outcomes:
    """Keeps some twenty bytes a question, however long its reply: a run may have a million.

    ``questions`` are all that the run has. Each may be replaced by another with the same key.

    Attributes:
        asked: How many questions every part has.
        known: How many have an outcome.
        answered: How many have a reply.
        new_answers: How many have one of this session, and had none before.
    """

    def __init__(self, questions: Sequence[Question]) -> None:
        self.known = self.answered = self.new_answers = 0
        self.asked = Counter(question.key.part for question in questions)
        self._questions = questions
        self._places: dict[Part, array[int]] = {}
        for place, question in enumerate(questions):
            of_part = self._places.setdefault(question.key.part, array("q"))
            of_part.extend(repeat(_NOWHERE, question.id + 1 - len(of_part)))
            of_part[question.id] = place
        self._rows = array("q", [0]) * len(questions)
        self._kinds = bytearray(len(questions))
        self._attempts = array("L", [0]) * len(questions)
        self._is_old = bytearray(len(questions))
        self._servers = array("h", [_NOWHERE]) * len(questions)
        self._is_correct = bytearray(len(questions))
        self._prompt_tokens = self._cached_tokens = self._count_cached = 0

    def place(self, key: Key) -> int | None:
        """Where among the questions this one is; None if it is not."""
        of_part = self._places.get(key.part, ())
        place = of_part[key.id] if key.id < len(of_part) else _NOWHERE
        return None if place == _NOWHERE else place

    def __contains__(self, key: Key) -> bool:
        """Whether a question has an outcome."""
        place = self.place(key)
        return place is not None and self._kinds[place] != _NONE

    def add(self, key: Key, one: Prediction, row: int, server: int | None = 0) -> None:
        """Note the outcome of a question, in the row of this number; it takes the place of an earlier one.

        ``server`` is the number of the one that was asked; None for an outcome of the session before.
        """
        place = self.place(key)
        assert place is not None
        self._forget(place)
        self._rows[place] = row
        self._attempts[place] = one.attempts
        self._kinds[place] = _FAILED if one.error is not None else _STOPPED if one.decided_early else _ANSWERED
        self._is_old[place] |= server is None
        self._servers[place] = _NOWHERE if server is None else server
        self._is_correct[place] = one.correct is True
        self._count(place, 1)
        if one.cached_tokens is not None:
            self._count_cached += 1
            self._cached_tokens += one.cached_tokens
            self._prompt_tokens += one.prompt_tokens or 0

    def forget(self, keys: Iterable[Key]) -> None:
        """Take these questions for such as have no outcome."""
        for key in keys:
            if (place := self.place(key)) is not None:
                self._forget(place)

    def _forget(self, place: int) -> None:
        if self._kinds[place] != _NONE:
            self._count(place, -1)
            self._kinds[place] = _NONE

    def _count(self, place: int, by: int) -> None:
        self.known += by
        if self._kinds[place] != _FAILED:
            self.answered += by
            self.new_answers += 0 if self._is_old[place] else by

    @property
    def without(self) -> list[Question]:
        """The questions without an outcome."""
        return [question for question, kind in zip(self._questions, self._kinds, strict=True) if kind == _NONE]

    def failed(self, keys: Iterable[Key]) -> list[Key]:
        """Those of these questions whose outcome is that they have no reply."""
        places = [(key, self.place(key)) for key in keys]
        return [key for key, place in places if place is not None and self._kinds[place] == _FAILED]

    def with_reply(self) -> Iterator[Question]:
        """The questions that have one."""
        return compress(self._questions, (kind > _FAILED for kind in self._kinds))

    def stopped(self, task: str) -> Iterator[tuple[Question, int]]:
        """A task's questions whose reply was stopped early, and how many times each was sent."""
        for place, question in enumerate(self._questions):
            if self._kinds[place] == _STOPPED and question.task == task:
                yield question, self._attempts[place]

    def by_server(self, servers: int) -> list[dict[str, int]]:
        """How many replies of this session came from each of so many servers, and how many of them were correct."""
        counts = [{"answered": 0, "correct": 0} for _ in range(servers)]
        for kind, server, is_correct in zip(self._kinds, self._servers, self._is_correct, strict=True):
            if kind > _FAILED and server != _NOWHERE:
                counts[server]["answered"] += 1
                counts[server]["correct"] += is_correct
        return counts

    def rows(self, keys: Iterable[Key] | None = None) -> Callable[[int], object]:
        """Decides by a row's number whether it holds the outcome of a question, or of one of these."""
        places = range(len(self._rows)) if keys is None else map(self.place, keys)
        wanted = bytearray(1 + max(self._rows, default=0))
        for place in places:
            if place is not None and self._kinds[place] != _NONE:
                wanted[self._rows[place]] = True
        return lambda row: row < len(wanted) and wanted[row]

    @property
    def share_of_cached(self) -> float | None:
        """The share of prompt tokens that came from the server's prefix cache; None if too few replies say so.

        Replies that were stopped early do not, and those read to their end at first are the first of their subjects.
        """
        if not self._prompt_tokens or 2 * self._count_cached < self.known:
            return None
        return self._cached_tokens / self._prompt_tokens
