"""Whether a reply is read to its end, or only until its answer is certain."""

import enum
import statistics
from collections import deque

from bundle.client.streaming import StreamedReply
from bundle.tasks.answers import AnswerRule

_PROBES = 8
"""Replies that are read to their end before any is not."""

_WORTH_IT_HTTP, _WORTH_IT_HTTPS = 4, 32
"""Tokens that must be saved for a reply to be cut.

To cut a reply is to close its connection, so the next request opens one: about 0.2 ms of CPU on loopback, and two or
three round trips and a handshake's arithmetic with TLS. Streaming itself costs 0.03 ms of CPU an event. A reply of a
letter and an end of turn is cheaper to get whole."""

_LONG = 32
"""Pieces after the answer that show that a reply explains itself, before it is at its end."""

_WINDOW = 32
"""Replies that are looked back at to see whether a model has changed its habits."""


class _Habit(enum.Enum):
    UNKNOWN = "replies are streamed, and read to their end until enough is known"
    EXPLAINS = "much comes after the answer: replies are streamed and cut"
    BRIEF = "nothing comes after the answer that is worth cutting: replies are not streamed"
    THINKS_ALOUD = "text may turn out to be thinking at any time: replies are not streamed"


class EarlyDecisions:
    """Chooses for every request of one task how its reply is read, and learns from every reply.

    Cutting changes no score: a rule only decides when nothing that may still come can change its answer. The one
    exception is text that turns out to be thinking (`ThinkingSplitter`), which depends on the chat template and so
    shows in the first replies. These are therefore read to their end, also when the next ones are cut already. Should
    it show later than that, all that was cut is asked again (`mistaken`), and nothing is cut any more.

    Args:
        rule: What counts as the answer.
        tls: Whether connections are encrypted.
        has_cut: Whether replies were cut before, in the part of the run that is gone on with.

    Attributes:
        mistaken: Whether replies were cut that should not have been; to be set back by who asks them again.
    """

    def __init__(self, rule: AnswerRule, *, tls: bool, has_cut: bool = False) -> None:
        self._rule = rule
        self._worth_it = _WORTH_IT_HTTPS if tls else _WORTH_IT_HTTP
        self._habit = _Habit.UNKNOWN
        self._saved: list[int] = []
        self._brief_length = 0.0
        self._lengths: deque[int] = deque(maxlen=_WINDOW)
        self._cut: deque[bool] = deque(maxlen=_WINDOW)
        self._probes: set[StreamedReply] = set()
        self._has_cut = has_cut
        self.mistaken = False

    def begin(self) -> StreamedReply | None:
        """What takes the next reply's events; None where it is not to be streamed."""
        return StreamedReply(self._rule) if self._habit in (_Habit.UNKNOWN, _Habit.EXPLAINS) else None

    def is_enough(self, reply: StreamedReply) -> bool:
        """Whether a reply of which another piece has come can be cut now."""
        if reply.pieces_to_decide is None or reply.ended:
            return False
        if self._habit is _Habit.UNKNOWN and reply.pieces - reply.pieces_to_decide == _LONG:
            self._probes.add(reply)
            if len(self._probes) >= _PROBES:
                self._habit = _Habit.EXPLAINS
        return self._habit is _Habit.EXPLAINS and reply not in self._probes

    def streamed(self, reply: StreamedReply, *, cut: bool) -> None:
        """Learn from a streamed reply."""
        self._probes.discard(reply)
        self._has_cut |= cut
        if reply.took_text_back:
            self._thinks_aloud()
        elif self._habit is _Habit.UNKNOWN:
            decided = reply.pieces if reply.pieces_to_decide is None else reply.pieces_to_decide
            self._saved.append(reply.pieces - decided)
            self._lengths.append(reply.pieces)
            if len(self._saved) >= _PROBES:
                self._settle()
        elif self._habit is _Habit.EXPLAINS:
            self._cut.append(cut)
            if len(self._cut) == _WINDOW and sum(self._cut) < _WINDOW / 4:
                self._look_again()

    def whole(self, completion_tokens: int | None, *, took_text_back: bool) -> None:
        """Learn from a reply that was not streamed."""
        if took_text_back:
            self._thinks_aloud()
        elif self._habit is _Habit.BRIEF and completion_tokens is not None:
            self._lengths.append(completion_tokens)
            longer = statistics.fmean(self._lengths) - self._brief_length
            if len(self._lengths) == _WINDOW and longer >= self._worth_it:
                self._look_again()

    def _thinks_aloud(self) -> None:
        self._habit = _Habit.THINKS_ALOUD
        self.mistaken |= self._has_cut
        self._has_cut = False

    def _settle(self) -> None:
        saved = statistics.median(self._saved)
        self._habit = _Habit.EXPLAINS if saved >= self._worth_it else _Habit.BRIEF
        # Servers count the end of the turn as a token, and some send two tokens in one event.
        self._brief_length = 2 * statistics.fmean(self._lengths) + 1
        self._saved.clear()
        self._lengths.clear()
        self._cut.clear()

    def _look_again(self) -> None:
        self._habit = _Habit.UNKNOWN
        self._lengths.clear()
        self._cut.clear()
