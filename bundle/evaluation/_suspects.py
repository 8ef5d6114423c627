"""Which questions may crash the server."""

from collections import Counter
from collections.abc import Iterable, Sequence

from bundle.tasks.catalog import Question
from bundle.tasks.scores import Key

_DEATHS = 2
"""Once could be chance."""


class Suspects:
    """Finds the questions that crash the server, at no cost to the others.

    All questions in flight at a crash are suspects. Suspects are asked after all others and one at a time, so that the
    next crash has a single suspect. A question that was alone at a crash goes to the end of that queue; the second time
    it is skipped.

    A server that keeps running but fails every request counts as crashed; the suspects are then the questions that were
    in flight when it began to fail.

    If all suspects of a crash have had replies since, the crash had another cause. Each such crash raises the number of
    crashes that it takes to skip a question by one.
    """

    def __init__(self) -> None:
        self._in_flight: dict[Key, Question] = {}
        self._when_failing_began: dict[Key, Question] | None = None
        self._failed_since: set[Key] = set()
        self._deaths: Counter[Key] = Counter()
        self._deaths_alone: Counter[Key] = Counter()
        self._unexplained: list[set[Key]] = []
        self._by_chance = 0

    def begun(self, question: Question) -> None:
        """Note that it is being asked."""
        self._in_flight[question.key] = question

    @property
    def is_failing(self) -> bool:
        """Whether the last thing known about the server is that it failed a request."""
        return self._when_failing_began is not None

    def works(self) -> None:
        """Note that the server is not failing."""
        self._when_failing_began = None
        self._failed_since.clear()

    def failing(self, question: Question) -> None:
        """Note that it got no reply because of the server. To be called before `ended`."""
        if self._when_failing_began is None:
            self._when_failing_began = dict(self._in_flight)
        self._failed_since.add(question.key)

    def ended(self, key: Key, *, replied: bool) -> None:
        """Note that it has a reply, or will have none."""
        self._in_flight.pop(key, None)
        if replied:
            # A question that was in flight when it began to fail may have been computed before that.
            if self._when_failing_began is not None and key not in self._when_failing_began:
                self.works()
            if self._deaths[key]:
                self._clear(key)

    def server_died(self) -> set[Key]:
        """Suspect all questions in flight; return those that failed since the server began to fail."""
        suspects = self._in_flight if self._when_failing_began is None else self._when_failing_began
        self._deaths.update(suspects.keys())
        if len(suspects) == 1:
            self._deaths_alone.update(suspects.keys())
        if suspects:
            self._unexplained.append(set(suspects))
        failed = set(self._failed_since)
        self._in_flight = {}
        self.works()
        return failed

    def to_skip(self, questions: Iterable[Question], *, last_life: bool) -> list[Question]:
        """Those of ``questions`` that should be skipped.

        Args:
            questions: Those without a reply.
            last_life: Whether the server will not be restarted. Then one crash alone is enough.
        """
        deaths = 1 if last_life else _DEATHS + self._by_chance
        return [
            question
            for question in questions
            if self._deaths_alone[question.key] >= deaths and self._deaths[question.key] >= _DEATHS
        ]

    def deaths_with(self, question: Question) -> int:
        """How many times the server crashed while this was in flight."""
        return self._deaths[question.key]

    def apart(self, questions: Iterable[Question]) -> tuple[Sequence[Question], Sequence[Question]]:
        """The questions that can be asked together, and the suspects, to be asked after them one at a time."""
        together: list[Question] = []
        alone: list[Question] = []
        for question in questions:
            (alone if self._deaths[question.key] else together).append(question)
        alone.sort(key=lambda question: self._deaths_alone[question.key])
        return together, alone

    def _clear(self, key: Key) -> None:
        """Clear a suspect that has had a reply."""
        for suspects in self._unexplained:
            suspects.discard(key)
        self._by_chance += self._unexplained.count(set())
        self._unexplained = [suspects for suspects in self._unexplained if suspects]
