"""Whether replies are requested as streams or whole: which of the two a server takes shows in what it answers."""

import asyncio
import re

from bundle.client._asked import Asked
from bundle.client._early_decisions import EarlyDecisions
from bundle.client._faults import AttemptError, Fate
from bundle.client._replies import Reply
from bundle.client._settings import Streaming

NAMES_STREAM = re.compile(r"(?<![a-z])stream|流式", re.IGNORECASE)  # "upstream timed out" does not
_OF_A_MODE = frozenset({403, 404, 405})
_NOT_IMPLEMENTED = 501
_ENOUGH = 3
"""Faults of whole replies, none of which has come yet, after which one is requested as a stream."""
_MOST_CHECKS = 16
"""Empty replies that are asked for in the other mode, too, while neither mode has brought any text."""
_EMPTY = AttemptError("an empty reply", Fate.AGAIN)


class Modes:
    """Whether a server takes requests for streams, for whole replies, or both.

    A mode that has never brought a reply may be the reason for a fault, so the other one is tried: a 4xx is tried on
    each question that meets it, since it may concern that question alone. What looks like the server's fault (5xx, no
    reply in time, a lost connection) or ends the run (403, 404, 405) is tried on one question at a time, while others
    that meet it wait for what comes of it; after a trial in vain, the next one takes twice as many faults.

    ``wanted`` is what the user says, ``retries`` the number after which a question is given up.

    Attributes:
        only: The one it takes or is to be asked for, True for streams; None if it may take both.
    """

    def __init__(self, wanted: Streaming, retries: int) -> None:
        self.only: bool | None = None if wanted == "auto" else wanted == "always"
        self._is_settled = self.only is not None
        self._retries = retries
        self._has_streamed = False
        self._has_sent_whole = False
        self._has_named_end = False
        self._trial = asyncio.Lock()
        self._faults = 0
        self._next_trial_at: int | None = None
        self._checks_left = _MOST_CHECKS

    def streams(self, reading: EarlyDecisions | None) -> bool:
        """Whether to ask for a stream."""
        return self.only if self.only is not None else reading is not None and reading.wants_stream()

    def has_changed(self, question: Asked) -> bool:
        """Whether it has turned out, since this question was sent, that this server must be asked in the other mode."""
        return question.refusal is None and self.only not in (None, question.streams)

    async def turns(self, question: Asked, fault: AttemptError) -> bool:
        """Whether to ask a question again in the other mode, as its fault may be due to this one.

        Whoever lets it be asked must `end` it.
        """
        if self._is_settled or question.refusal is not None or fault.busy or fault.fate is Fate.KEY_SPENT:
            return False
        if fault.fate is Fate.UNANSWERED:
            others = question.streams or self._has_streamed or NAMES_STREAM.search(fault.reason)
            if self._works(question.streams) or not others:
                return False
            question.refusal, question.streams = fault, not question.streams
            return True
        if not self._may_be_to_blame(question, fault):
            return False
        self._faults += 1
        await self._trial.acquire()
        if self.has_changed(question) or not self._is_due(question, fault):
            self._trial.release()
            return self.has_changed(question)
        question.is_trial = True
        question.refusal, question.streams = fault, not question.streams
        return True

    def doubts(self, question: Asked, reply: Reply) -> bool:
        """Whether to ask a question again in the other mode, as this one brings empty replies only."""
        if question.reading is None or _says_something(reply) or question.refusal is not None:
            return False
        if self.has_changed(question):
            return True
        if self.only is not None or self._works(question.streams):
            return False
        if not self._works(not question.streams):
            self._checks_left -= 1
            if self._checks_left < 0:
                return False
        question.refusal, question.streams = _EMPTY, not question.streams
        return True

    def blamed(self, question: Asked, fault: AttemptError) -> AttemptError:
        """What a question without a reply met: in the other mode, or if that is no better, before it was tried."""
        first = question.refusal
        if first is None or fault.busy or fault.fate is Fate.KEY_SPENT:
            return fault
        if first.fate is Fate.UNANSWERED:
            return first if fault.fate is Fate.UNANSWERED else fault
        question.refusal, question.streams = None, not question.streams
        self.end(question)
        return first

    def require_end(self, question: Asked) -> None:
        """Check that a stream says how its reply ended if others do: gateways also send [DONE] when a server is lost.

        Raises AttemptError if it does not, and the question can be asked again.
        """
        streamed = None if question.receiver is None else question.receiver.reply
        if streamed is None or not streamed.ended:
            return
        self._has_named_end |= streamed.names_end
        if self._has_named_end and not streamed.names_end and question.tries < self._retries:
            raise AttemptError("the reply broke off: [DONE] without a finish_reason, unlike others", Fate.AGAIN)

    def end(self, question: Asked) -> None:
        """Note that a question is not being tried in the other mode any more."""
        if question.is_trial:
            question.is_trial = False
            if self.only is None:
                self._next_trial_at = 2 * self._faults
            self._trial.release()

    def note(self, question: Asked, reply: Reply) -> bool:
        """Learn from a reply; return whether it has settled the mode, since the other one was refused."""
        if self._is_settled:
            return False
        streams, says_something = question.streams, _says_something(reply)
        has_streamed = question.receiver is not None and question.receiver.reply is not None
        settles = question.refusal is not None and self.only is None and not self._works(not streams) and says_something
        if settles:
            self.only = streams
        elif streams and not has_streamed and not self._has_streamed and question.refusal is None:
            self.only = False
        self._has_streamed |= streams and has_streamed and says_something
        self._has_sent_whole |= not streams and says_something
        return settles

    def _works(self, streams: bool) -> bool:
        return self._has_streamed if streams else self._has_sent_whole

    def _may_be_to_blame(self, question: Asked, fault: AttemptError) -> bool:
        if self.only is not None or self._works(question.streams) or not fault.heard:
            return False
        if not question.streams and not self._has_streamed and not NAMES_STREAM.search(fault.reason):
            return False
        return fault.fate is Fate.AGAIN or fault.status in _OF_A_MODE

    def _is_due(self, question: Asked, fault: AttemptError) -> bool:
        if self._works(question.streams):
            return False
        if self._next_trial_at is not None:
            return self._faults >= self._next_trial_at
        if fault.fate is Fate.REFUSED or fault.status == _NOT_IMPLEMENTED or NAMES_STREAM.search(fault.reason):
            return True
        return question.tries >= self._retries or (not question.streams and self._faults >= _ENOUGH)


def _says_something(reply: Reply) -> bool:
    return bool(reply.text.strip() or reply.thinking)
