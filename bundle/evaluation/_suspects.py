"""Which questions crash the server, and how often it may be restarted to find out."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bundle.tasks.catalog import Question
from bundle.tasks.scores import Key

_PARTS = 16
"""A restart takes a minute and a round of replies seconds: one crash finds the guilty part of 16, or of 2."""

_DEATHS = 2
"""Once could be chance."""
_DOUBT = 1e-3
"""The probability below which so many crashes during one question are not chance."""
_DOUBT_AT_THE_END = 0.05
"""The same when no restart is left to make sure."""
_LONG_REPLY = 2.0
"""How much longer than the mean a reply may take that chance hits."""
_MOST_GUILTY = 16
"""More set-aside questions than this say more about the server than about them: they earn no further restarts."""


@dataclass(slots=True)
class _Group:
    """Suspects that are asked together, apart from all other questions.

    One that is ``narrowed`` is a part of a group that was asked apart when the server crashed again.
    """

    keys: set[Key]
    narrowed: bool


@dataclass(slots=True)
class _Death:
    """A crash.

    Attributes:
        suspects: The questions that were in flight, without those that have had a reply since. If none is left, it was
            chance.
        count: How many there were; 0 for a crash that says nothing about chance.
        counts: Whether it counts against the maximum number of restarts.
        replies: How many replies there had been.
    """

    suspects: set[Key]
    count: int
    counts: bool
    replies: int


@dataclass(frozen=True, slots=True)
class Loss:
    """What follows from a crash.

    Attributes:
        failed: Questions that failed since the server began to fail.
        guilty: Questions that crash the server, to be asked no more, and how often each has.
        goes_on: Whether the server may be restarted.
        counted: The number of that restart among those that are limited; None if it is not, because the suspects have
            become fewer.
    """

    failed: frozenset[Key]
    guilty: Mapping[Key, int]
    goes_on: bool
    counted: int | None


class Suspects:
    """Finds the questions that crash the server, at little cost to the others.

    All questions in flight at a crash are suspects. They are asked again after all others, together: most crashes are
    chance, and then they are all answered at once. If the server crashes again, they are asked in up to 16 parts, one
    after the other, and so on: a crash has only the part that was being asked as its suspects, and whatever gets a
    reply is cleared. Of 300 suspects a guilty one is alone at the fifth crash. If it is alone with a second one (if no
    restart is left, with one), it is guilty, and the others are asked together again.

    Unless crashes are frequent: those that no question explains show at which rate one meets a crash by chance. It is
    guilty only if that hardly explains the crashes it was alone with.

    A server that keeps running but fails every request counts as crashed; the suspects are then the questions that were
    in flight when it began to fail.

    Restarts are limited, but a crash that narrows suspects down does not count, up to log2 of their number; nor do,
    afterwards, those that a guilty question explains.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._in_flight: dict[Key, tuple[Question, float]] = {}
        self._when_failing_began: dict[Key, tuple[Question, float]] | None = None
        self._failed_since: set[Key] = set()
        self._groups: list[_Group] = []
        self._deaths: list[_Death] = []
        self._alone: Counter[Key] = Counter()
        self._guilty = 0
        self._free = 0
        self._replies = 0
        self._in_flight_s = 0.0
        self._alive_s = 0.0
        self._life_began: float | None = None
        self._last_reply_at = 0.0

    def begun(self, question: Question) -> None:
        """Note that it is being asked."""
        now = self._clock()
        if self._life_began is None:
            self._life_began = self._last_reply_at = now
        self._in_flight[question.key] = question, now

    @property
    def in_flight(self) -> int:
        """How many questions wait for their reply."""
        return len(self._in_flight)

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
        begun = self._in_flight.pop(key, None)
        if not replied:
            return
        self._replies += 1
        if begun is not None:
            self._last_reply_at = self._clock()
            self._in_flight_s += self._last_reply_at - begun[1]
        # A question that was in flight when it began to fail may have been computed before that.
        if self._when_failing_began is not None and key not in self._when_failing_began:
            self.works()
        if self._deaths:
            for death in self._deaths:
                death.suspects.discard(key)
            self._alone.pop(key, None)
            self._forget(key)

    def server_died(self, max_restarts: int) -> Loss:
        """Suspect all questions in flight.

        At most ``max_restarts`` crashes without an explanation may be followed by a restart.
        """
        in_flight = self._in_flight if self._when_failing_began is None else self._when_failing_began
        failed = frozenset(self._failed_since)
        if self._life_began is not None:
            self._alive_s += self._last_reply_at - self._life_began
        suspects = list(in_flight)
        if len(suspects) == 1:
            self._alone[suspects[0]] += 1
        narrows = self._narrow(suspects)
        counts = not (narrows and self._free > 0)
        self._free = _restarts_to_find_one_of(len(suspects)) if counts else self._free - 1
        self._deaths.append(_Death(set(suspects), len(suspects), counts, self._replies))
        self._in_flight = {}
        self._life_began = None
        self.works()
        guilty = {}
        if len(suspects) == 1 and self._is_guilty(suspects[0], max_restarts):
            guilty[suspects[0]] = self._deaths_with(suspects[0])
            self._set_aside(suspects[0])
        return Loss(failed, guilty, goes_on=self.counted <= max_restarts, counted=self.counted if counts else None)

    @property
    def counted(self) -> int:
        """How many crashes count against the maximum number of restarts."""
        return sum(death.counts for death in self._deaths)

    def _deaths_with(self, key: Key) -> int:
        return sum(key in death.suspects for death in self._deaths)

    def _deaths_without(self, key: Key) -> int:
        """Those that neither it nor a question that is as suspicious explains."""
        suspicious = {other for other, times in self._alone.items() if times >= _DEATHS} | {key}
        return sum(death.count > 0 and suspicious.isdisjoint(death.suspects) for death in self._deaths)

    def suspect(self, keys: Iterable[Key]) -> None:
        """Suspect what was in flight at the crash of another server, asked apart from the others from now on."""
        known = {key for group in self._groups for key in group.keys}
        if new := set(keys) - known:
            self._groups.append(_Group(new, narrowed=False))

    def apart(self, questions: Iterable[Question]) -> tuple[Sequence[Question], Sequence[Sequence[Question]]]:
        """The questions that nothing is known against, and the groups of suspects to be asked after them, in order.

        First come those that are asked together again, then the smallest parts, at last what chance may have hit alone.
        """
        groups = sorted(self._groups, key=self._rank)
        place = {key: number for number, group in enumerate(groups) for key in group.keys}
        together: list[Question] = []
        apart: list[list[Question]] = [[] for _ in groups]
        for question in questions:
            number = place.get(question.key)
            (together if number is None else apart[number]).append(question)
        return together, [group for group in apart if group]

    @property
    def is_narrowing(self) -> bool:
        """Whether the server has crashed again on questions that were asked apart."""
        return any(group.narrowed for group in self._groups)

    def _rank(self, group: _Group) -> tuple[int, int, int]:
        alone = sum(self._alone[key] for key in group.keys)
        doubtful = sum(self._alone[key] for key in group.keys if self._alone[key] and self._deaths_without(key))
        return doubtful, len(group.keys) if group.narrowed else 0, alone

    def _narrow(self, suspects: Sequence[Key]) -> bool:
        """Regroup after a crash with these in flight; return whether they are fewer than were known before."""
        new = set(suspects)
        narrows = False
        for group in tuple(self._groups):
            hit = [key for key in suspects if key in group.keys]
            if not hit:
                continue
            new.difference_update(hit)
            group.keys.difference_update(hit)
            # What was alone with a crash before cannot be narrowed down.
            narrows |= group.narrowed and all(self._alone[key] <= 1 for key in hit)
            size = math.ceil(len(hit) / _PARTS)
            self._groups += (_Group(set(hit[i : i + size]), narrowed=True) for i in range(0, len(hit), size))
        if new:
            self._groups.append(_Group(new, narrowed=False))
        self._groups = [group for group in self._groups if group.keys]
        return narrows

    def _is_guilty(self, key: Key, max_restarts: int) -> bool:
        at_the_end = self.counted > max_restarts
        if self._deaths_with(key) < _DEATHS or self._alone[key] < (1 if at_the_end else _DEATHS):
            return False
        others = self._deaths_without(key)
        if not others or not self._replies:
            return not others
        mean_reply_s = self._in_flight_s / self._replies
        # Not the time it took to crash: among crashes by chance, too, some come early. And what crashes by chance hit
        # again and again is more likely to be one of those that take longer than most.
        chance = -math.expm1(-others / self._alive_s * mean_reply_s * _LONG_REPLY)
        return chance ** self._alone[key] <= (_DOUBT_AT_THE_END if at_the_end else _DOUBT)

    def _set_aside(self, key: Key) -> None:
        """Take back what a guilty question has cost."""
        mine = [death for death in self._deaths if key in death.suspects]
        count, suspects = mine[0].count, set[Key]().union(*(death.suspects for death in mine))
        self._guilty += 1
        # Whether it or the server is to blame is only certain if another question has had a reply meanwhile.
        is_certain = self._replies > mine[0].replies and self._guilty <= _MOST_GUILTY
        if is_certain and self._alone[key] >= _DEATHS:
            self._deaths = [death for death in self._deaths if key not in death.suspects]
        else:
            for death in mine:
                death.suspects, death.count = set(), 0
        if is_certain:
            # The others are suspects no more than before: together again, but another crash would narrow them down.
            self._free = max(self._free, _restarts_to_find_one_of(count))
            for group in self._groups:
                group.keys -= suspects
            for other in suspects:
                self._alone.pop(other, None)
            self._groups.append(_Group(suspects - {key}, narrowed=True))
        self._forget(key)

    def _forget(self, key: Key) -> None:
        for group in self._groups:
            group.keys.discard(key)
        self._groups = [group for group in self._groups if group.keys]


def _restarts_to_find_one_of(count: int) -> int:
    return math.ceil(math.log2(count + 1))
