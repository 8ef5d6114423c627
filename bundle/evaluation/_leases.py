"""Which server is asked which question, in an order that helps the prefix caches.

All questions of a subject start with the same examples, several thousand characters. If they were sent together, the
server would compute the examples for each, as they enter the cache only once the first question has been read. So one
is sent ahead, and the others once its prompt is in the cache. The next subject is opened if the open ones could not
keep the server busy for another round: it is read while the last ones are asked, and few more are open than that takes,
because their prefixes must stay in a cache that may be small. While every open one is still being read, up to 16 are
opened: a server with nothing to do costs more than a few examples that are computed twice.

A subject stays with the server that opened it. Of several servers, the largest subjects are opened first; once all are
open, a server that has nothing left takes over half of the largest rest; and none has more in flight than its share of
what is left, so that the last replies do not wait for a slow one.

When all have been sent, what a silent server holds is sent to one that has nothing to do, once: the server may hang or
have been stopped, which is only certain much later. The first outcome counts, and the other request is called off.
"""

import asyncio
import math
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from itertools import chain

from bundle.tasks.catalog import Question
from bundle.tasks.scores import Key

_MOST_BEING_READ = 16
_LOOK_EVERY_S = 1.0
_SILENT_S = 10.0
_SILENT_LATENCIES = 3.0
"""A server is silent after so many seconds, and so many times the longest that a reply has taken, without a reply."""


@dataclass(slots=True)
class _Subject:
    """Questions with the same examples.

    Attributes:
        leader: The one that was sent ahead, until the server has read it; None afterwards.
        rest: Those that have not been sent.
    """

    rest: deque[Question]
    leader: Key | None = None


class Leases:
    """Hands out questions to servers numbered from 0. Does nothing else: no clock, no tasks.

    Attributes:
        left: Questions that have not been asked, and those in flight.
    """

    def __init__(self, servers: int) -> None:
        self.left = 0
        self._servers = servers
        self._unopened: deque[_Subject] = deque()
        self._open: dict[int, list[_Subject]] = {server: [] for server in range(servers)}
        self._in_flight: dict[int, dict[Key, Question]] = {server: {} for server in range(servers)}
        self._copied: set[Key] = set()
        self._usual_size = 1.0
        self._most_being_read = 1

    def add(self, questions: Iterable[Question], *, prefix_order: bool = True) -> None:
        """Take in questions; those that are here already are passed over.

        In ``prefix_order`` those of a subject belong together; otherwise they are handed out in this order.
        """
        subjects: dict[object, deque[Question]] = defaultdict(deque)
        known = self._here() if self.left else ()
        for question in questions:
            if not known or question.key not in known:
                self.left += 1
                begins = (question.task, question.subject, question.examples)
                subjects[begins if prefix_order else question.key].append(question)
        if subjects:
            self._usual_size = sum(map(len, subjects.values())) / len(subjects)
        self._unopened += (_Subject(rest) for rest in subjects.values())
        self._most_being_read = min(_MOST_BEING_READ, len(self._unopened) // self._servers)
        if self._servers > 1:
            self._unopened = deque(sorted(self._unopened, key=lambda subject: -len(subject.rest)))

    def _here(self) -> set[Key]:
        rest = (subject.rest for subjects in (self._unopened, *self._open.values()) for subject in subjects)
        in_flight = (held.values() for held in self._in_flight.values())
        return {question.key for question in chain.from_iterable((*rest, *in_flight))}

    def next(self, server: int, width: int, silent: Collection[int] = ()) -> Question | None:
        """The next question for a server, which may have ``width`` in flight; None if there is none for it at present.

        From the ``silent`` servers nothing comes.
        """
        if len(self._in_flight[server]) >= max(1, math.ceil(self.left / self._servers)):
            return None
        mine = self._open[server]
        ready = [subject for subject in mine if subject.leader is None]
        coming = sum(len(subject.rest) for subject in ready) + (len(mine) - len(ready)) * self._usual_size
        has_nothing_to_do = not ready and len(mine) < self._most_being_read
        if self._unopened and (coming < width or has_nothing_to_do):
            return self._lead(server, self._unopened.popleft())
        if ready:
            question = ready[0].rest.popleft()
            self._in_flight[server][question.key] = question
            if not ready[0].rest:
                mine.remove(ready[0])
            return question
        if mine:
            return None
        others = [subject for other, subjects in self._open.items() if other != server for subject in subjects]
        largest = max(others, key=lambda subject: len(subject.rest), default=None)
        if largest is None or not largest.rest:
            return self._copy(server, silent)
        half = [largest.rest.pop() for _ in range(math.ceil(len(largest.rest) / 2))]
        self._forget_empty()
        return self._lead(server, _Subject(deque(reversed(half))))

    def read(self, server: int, key: Key) -> None:
        """Note that a server has read a question: it will have a reply, or none."""
        for subject in self._open[server]:
            if subject.leader == key:
                subject.leader = None
                self._forget_empty()
                return

    def ended(self, server: int, key: Key) -> list[int]:
        """Note that a question has an outcome; return the other servers that were asked it and need not answer."""
        if self._in_flight[server].pop(key, None) is None:
            return []
        others = self.others_asked(server, key)
        for other in others:
            del self._in_flight[other][key]
        self.left -= 1
        self._copied.discard(key)
        return others

    def others_asked(self, server: int, key: Key) -> list[int]:
        """The other servers that have a question in flight."""
        if key not in self._copied:
            return []
        return [other for other, held in self._in_flight.items() if other != server and key in held]

    def dropped(self, server: int, key: Key) -> None:
        """Note that a server has no reply to a question that another one still has in flight."""
        self._in_flight[server].pop(key, None)

    def lost(self, server: int) -> list[Question]:
        """Take back all that a server had; return what only it had in flight, which is handed out no more."""
        held = self._in_flight[server]
        in_flight = [question for key, question in held.items() if not self.others_asked(server, key)]
        held.clear()
        self._copied.difference_update(question.key for question in in_flight)
        self.left -= len(in_flight)
        for subject in self._open[server]:
            if subject.rest:
                self._unopened.appendleft(_Subject(subject.rest))
        self._open[server] = []
        return in_flight

    def _copy(self, server: int, silent: Collection[int]) -> Question | None:
        """What a silent server holds, for one that has nothing of its own."""
        if not silent or not self._copied.issuperset(self._in_flight[server]):
            return None
        for other in silent:
            for key, question in self._in_flight[other].items() if other != server else ():
                if key not in self._copied:
                    self._copied.add(key)
                    self._in_flight[server][key] = question
                    return question
        return None

    def _lead(self, server: int, subject: _Subject) -> Question:
        leader = subject.rest.popleft()
        self._in_flight[server][leader.key] = leader
        if subject.rest:
            subject.leader = leader.key
            self._open[server].append(subject)
        return leader

    def _forget_empty(self) -> None:
        for subjects in self._open.values():
            subjects[:] = [subject for subject in subjects if subject.rest]


class Pool:
    """Leases that the workers of one event loop wait for.

    Attributes:
        has_work: Set while there are questions.
        is_drained: Set when there is nothing left.
    """

    def __init__(self, servers: int) -> None:
        self._leases = Leases(servers)
        self._waiting: dict[int, deque[asyncio.Future[None]]] = {server: deque() for server in range(servers)}
        self._called_off: dict[int, Callable[[Key], None]] = {}
        self._began: dict[tuple[int, Key], float] = {}
        self._longest_s = 0.0
        self._silence_s = dict.fromkeys(range(servers), 0.0)
        self._is_looking = self._is_one_silent = False
        self.has_work = asyncio.Event()
        self.is_drained = asyncio.Event()

    def add(self, questions: Iterable[Question], *, prefix_order: bool = True) -> None:
        """Take in questions, as `Leases.add`."""
        self._leases.add(questions, prefix_order=prefix_order)
        self._changed()

    def ended(self, server: int, key: Key) -> None:
        """Note that a question has an outcome."""
        self._heard(server)
        if (began := self._began.pop((server, key), None)) is not None:
            self._longest_s = max(self._longest_s, asyncio.get_running_loop().time() - began)
        for other in self._leases.ended(server, key):
            self._began.pop((other, key), None)
            self._called_off[other](key)
        self._changed()

    def is_asked_elsewhere(self, server: int, key: Key) -> bool:
        """Whether another server has the question in flight. If so, this one's failure does not count."""
        if not self._leases.others_asked(server, key):
            return False
        self._began.pop((server, key), None)
        self._leases.dropped(server, key)
        return True

    def when_called_off(self, server: int, do: Callable[[Key], None]) -> None:
        """Have ``do`` called with each question that another server has answered before this one."""
        self._called_off[server] = do

    def lost(self, server: int) -> list[Question]:
        """Have the others asked what a server has not been; return what it had in flight."""
        in_flight = self._leases.lost(server)
        self._waiting[server].clear()
        self._began = {key: began for key, began in self._began.items() if key[0] != server}
        self._heard(server)
        self._changed()
        return in_flight

    def _changed(self) -> None:
        if self._leases.left:
            self.has_work.set()
            self.is_drained.clear()
        else:
            self.has_work.clear()
            self.is_drained.set()
        for server, waiting in self._waiting.items():
            if waiting:
                self._wake(server, all_of_them=not self._leases.left)

    def _wake(self, server: int, *, all_of_them: bool = False) -> None:
        waiting = self._waiting[server]
        while waiting:
            turn = waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                if not all_of_them:
                    return

    async def next(self, server: int, width: int) -> Question | None:
        """The next question for a server; None when nothing is left for any server."""
        while self._leases.left:
            silent = self._silent if self._is_one_silent else ()
            if (question := self._leases.next(server, width, silent)) is not None:
                self._heard(server)
                if len(self._waiting) > 1:
                    self._began[server, question.key] = asyncio.get_running_loop().time()
                self._wake(server)  # there may be more
                return question
            turn = asyncio.get_running_loop().create_future()
            self._waiting[server].append(turn)
            self._look_later()
            await turn
        return None

    def read(self, server: int, key: Key) -> None:
        """Note that a server has read a question: its reply has started, or it will have none."""
        self._leases.read(server, key)
        self._heard(server)
        self._wake(server)

    def _heard(self, server: int) -> None:
        self._silence_s[server] = 0.0

    @property
    def _silent(self) -> Collection[int]:
        limit_s = max(_SILENT_S, _SILENT_LATENCIES * self._longest_s)
        return [server for server, silence_s in self._silence_s.items() if silence_s >= limit_s]

    def _look_later(self) -> None:
        if not self._is_looking and len(self._waiting) > 1:
            self._is_looking = True
            asyncio.get_running_loop().call_later(_LOOK_EVERY_S, self._look)

    def _look(self) -> None:
        """Count how long nothing has come, in looks and not by the clock: this program may have been stopped."""
        self._is_looking = False
        if not self._leases.left or not any(self._waiting.values()):
            return
        for server in self._silence_s:
            self._silence_s[server] += _LOOK_EVERY_S
        self._is_one_silent = bool(self._silent)
        if self._is_one_silent:
            for server in self._waiting:
                self._wake(server)
        self._look_later()
