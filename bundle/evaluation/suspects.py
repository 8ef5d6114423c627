"""Which questions may be what a server dies of."""

from collections import Counter
from collections.abc import Iterable, Sequence

from bundle.tasks.catalog import Question
from bundle.tasks.scores import Key

_DEATHS = 2
"""Once could be chance: a server may die of anything."""


class Suspects:
    """Keeps the questions that were in flight when a server died from being asked among others again.

    Whatever was in flight is suspect. Suspects are asked after all others and one at a time, so that the next death has
    one suspect and costs no other question anything. Who was alone with a dying server goes to the end of that queue;
    who is so again is set aside.

    A server that stays and fails whatever it is asked is as good as dead; then those are suspect that were in flight
    when it began to fail.

    A death whose suspects have all brought replies since was none of theirs: such a server dies of other things too. So
    each of these makes it take one more death to set a question aside.
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
        """It is being asked."""
        self._in_flight[question.key] = question

    @property
    def is_failing(self) -> bool:
        """Whether the last that was heard of the server is that it failed a question."""
        return self._when_failing_began is not None

    def works(self) -> None:
        """It has been seen that the server is not failing."""
        self._when_failing_began = None
        self._failed_since.clear()

    def failing(self, question: Question) -> None:
        """It is given up, for a reason that is the server's and not the question's. To be called before `ended`."""
        if self._when_failing_began is None:
            self._when_failing_began = dict(self._in_flight)
        self._failed_since.add(question.key)

    def ended(self, key: Key, *, replied: bool) -> None:
        """There is a reply, or there will be none."""
        self._in_flight.pop(key, None)
        if replied:
            # What was in flight when failing began may have been computed before.
            if self._when_failing_began is not None and key not in self._when_failing_began:
                self.works()
            if self._deaths[key]:
                self._clear(key)

    def server_died(self) -> set[Key]:
        """Suspect what was in flight; return what it failed since it began to fail."""
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

    def to_set_aside(self, questions: Iterable[Question], *, last_life: bool) -> list[Question]:
        """Those of ``questions`` that are not to be asked again.

        Args:
            questions: Those without a reply.
            last_life: Whether the server is not started again. Then it is enough to have been alone with it once.
        """
        deaths = 1 if last_life else _DEATHS + self._by_chance
        return [
            question
            for question in questions
            if self._deaths_alone[question.key] >= deaths and self._deaths[question.key] >= _DEATHS
        ]

    def deaths_with(self, question: Question) -> int:
        """How often a server died while this was in flight."""
        return self._deaths[question.key]

    def apart(self, questions: Iterable[Question]) -> tuple[Sequence[Question], Sequence[Question]]:
        """The questions that can be asked together, and those to be asked after them and one at a time."""
        together: list[Question] = []
        alone: list[Question] = []
        for question in questions:
            (alone if self._deaths[question.key] else together).append(question)
        alone.sort(key=lambda question: self._deaths_alone[question.key])
        return together, alone

    def _clear(self, key: Key) -> None:
        """It was suspect and has brought a reply."""
        for suspects in self._unexplained:
            suspects.discard(key)
        self._by_chance += self._unexplained.count(set())
        self._unexplained = [suspects for suspects in self._unexplained if suspects]
