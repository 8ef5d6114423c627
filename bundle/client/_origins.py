"""Whether a reply was made for the question that was asked."""

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from bundle.client._connections import Answer
from bundle.client._faults import AttemptError, Fate
from bundle.client._replies import Reply

_MOST = 20_000
"""Replies that are remembered."""
_ENOUGH = 16
"""Different ids that show that a server's ids mean something."""
_BEGINNING = 200


class Origins:
    """Notices a reply that was made for another question.

    A cache that looks for a similar question answers in the model's place, and with their common examples all questions
    of a subject are similar. Its replies have id, time and text of those they repeat. Where an id stands for different
    replies, ids mean nothing, and nothing is noticed any more.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[object, str, int | None, int]] | None = {}

    def require_own(self, named: object, created: object, reply: Reply, question: bytes) -> None:
        """Check a reply to a question. Raises AttemptError if it was made for another one."""
        if self._seen is None or not isinstance(named, str) or not named:
            return
        asked = hash(question)
        before = self._seen.get(named)
        if before is None:
            if len(self._seen) < _MOST:
                self._seen[named] = created, reply.text[:_BEGINNING], reply.prompt_tokens, asked
            return
        shorter, longer = sorted((before[1], reply.text[:_BEGINNING]), key=len)  # one may have been stopped early
        counts = {before[2], reply.prompt_tokens} - {None}
        if created != before[0] or not longer.startswith(shorter) or len(counts) > 1:
            self._seen = None
        elif asked != before[3] and len(self._seen) >= _ENOUGH:
            reason = (
                "the reply is another question's, word for word and with its id: a cache answers in the model's place"
            )
            raise AttemptError(
                reason, Fate.AGAIN, remedy="Turn the cache off at the server or at the gateway before it."
            )


class Repeats:
    """Notices an answer that comes twice over a connection, so that the second seems to be that to the next request.

    It is the id of a reply that shows this. Where a question that was asked again for this reason gets the same id, or
    two different replies have one, ids mean nothing, and nothing is noticed any more.
    """

    def __init__(self) -> None:
        self._latest: WeakKeyDictionary[Any, Mapping[str, Any]] = WeakKeyDictionary()
        self._doubted: set[str] = set()
        self._ids_differ = True

    def has_come_before(self, answer: Answer, body: object) -> bool:
        """Whether an answer, or the first event of one, is the one before over its connection, which is closed then."""
        named = body.get("id") if isinstance(body, Mapping) else None
        if not (self._ids_differ and isinstance(body, Mapping) and isinstance(named, str) and named):
            return False
        before = self._latest.get(answer.connection, {})
        self._latest[answer.connection] = body
        self._ids_differ = named not in self._doubted and (before.get("id") != named or before == body)
        if not self._ids_differ or before.get("id") != named:
            return False
        self._doubted.add(named)
        answer.connection.close()
        return True
