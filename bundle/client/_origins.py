"""Whether a reply was made for the question that was asked."""

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
