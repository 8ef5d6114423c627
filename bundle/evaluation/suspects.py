"""Which questions may be what a server dies of."""

from collections import Counter
from collections.abc import Iterable, Sequence

from bundle.predictions import Key
from bundle.tasks.catalog import Question

_DEATHS_ALONE = 2


class Suspects:
    """Keeps the questions that were in flight when a server died from being asked among others again.

    Whatever was in flight is suspect. Suspects are asked after all others and one at a time, so that the next death has
    one suspect and costs no other question anything. Who was alone with a dying server goes to the end of that queue;
    who is so again is set aside. Once could be chance: a server may die of anything.
    """

    def __init__(self) -> None:
        self._in_flight: dict[Key, Question] = {}
        self._deaths: Counter[Key] = Counter()
        self._deaths_alone: Counter[Key] = Counter()

    def begun(self, question: Question) -> None:
        """It is being asked."""
        self._in_flight[question.key] = question

    def ended(self, key: Key) -> None:
        """There is a reply, or there will be none."""
        self._in_flight.pop(key, None)

    def server_died(self) -> list[Question]:
        """Suspect what was in flight; return what is to be set aside."""
        alone = len(self._in_flight) == 1
        for key in self._in_flight:
            self._deaths[key] += 1
            self._deaths_alone[key] += alone
        set_aside = [question for key, question in self._in_flight.items() if self._deaths_alone[key] >= _DEATHS_ALONE]
        self._in_flight.clear()
        return set_aside

    def apart(self, questions: Iterable[Question]) -> tuple[Sequence[Question], Sequence[Question]]:
        """The questions that can be asked together, and those to be asked after them and one at a time."""
        together: list[Question] = []
        alone: list[Question] = []
        for question in questions:
            (alone if self._deaths[question.key] else together).append(question)
        alone.sort(key=lambda question: self._deaths_alone[question.key])
        return together, alone
