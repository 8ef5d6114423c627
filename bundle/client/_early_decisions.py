"""Whether a reply is read to its end, or only until its answer is final."""

import enum
import statistics
from collections import Counter, deque
from typing import Any

from bundle.client._error_texts import is_error_text
from bundle.client._replies import Reply
from bundle.client._streamed import StreamedReply
from bundle.client._thinking import KNOWN_MARKS, ThinkingMarks
from bundle.system.unknown_marks import closing_mark, opening_mark
from bundle.tasks.answers import AnswerRule

_PROBES = 8
"""Replies that are read to their end before any is stopped early."""

_WORTH_IT_HTTP, _WORTH_IT_HTTPS = 4, 32
"""Tokens that must be saved for a reply to be stopped early.

Stopping a reply means closing its connection, so the next request opens a new one: about 0.2 ms of CPU on loopback, and
two or three round trips plus a handshake with TLS. Streaming itself costs 0.03 ms of CPU per event. A reply of one
letter and an end of turn is cheaper to read whole."""

_LONG = 8
"""Pieces after the answer that show that a model explains its answers, before the reply is complete; more where more
must be saved. All replies in flight go on until it shows."""

_IN_ONE_PIECE = 32
"""Tokens in a piece from which on a reply does not come token by token."""

_WINDOW = 32
"""How many of the last replies are looked at to see whether a model has changed its habits; and how many long replies
are read whole, at first, after some that came in one piece: a server that is busy with the first prompts of a run sends
nothing of a reply before it is complete, and later sends it token by token."""


class _Habit(enum.Enum):
    UNKNOWN = "streaming replies; none is stopped early until their usual length is known"
    EXPLAINS = "replies go on long after the answer: streaming them and stopping early"
    BRIEF = "replies end soon after the answer: not streaming them"
    IN_ONE_PIECE = "replies are long, but arrive in one piece: not streaming the next ones"
    UNKNOWN_MARK = "replies begin with a mark that may start thinking: not streaming them"
    UNWANTED = "complete replies are wanted: the first were streamed to see when the server begins with them"
    THINKS_ALOUD = "any text may turn out to be thinking: not streaming replies"


class EarlyDecisions:
    """Chooses for every request of one task how its reply is read, and learns from every reply.

    Stopping early changes no score: a rule only decides when nothing that could follow can change its answer. The one
    exception is text that turns out to be thinking (`ThinkingSplitter`), or may be as an unknown mark ends it
    (`closing_mark`); that depends on the chat template, so it shows in the first replies. These are therefore read to
    their end, even once later ones are stopped early. If it shows later all the same, every question that was stopped
    early must be asked again (`mistaken`), and no reply is stopped early any more.

    A reply that begins with a mark that is not known may begin with thinking, and is read to its end. Where the first
    replies all begin with the same one, so are all others. So is one whose answer is not an option, as the T of "The
    answer is B", or begins a word, as in "Answer: B": the whole of it shows what happened, and another rule can read
    it.

    Args:
        rule: What counts as the answer.
        tls: Whether connections are encrypted.
        options: What the answer may be; "" for anything.
        has_cut: Whether replies were stopped early in the part of the run that is being resumed.
        stops: Whether any reply may be stopped early. Otherwise the first ones are streamed all the same, to their end:
            that they have begun to arrive shows how many requests the server works on at once.

    Attributes:
        mistaken: Whether replies were stopped early that should not have been; to be reset by whoever forgets them.
        unknown_mark: What to say of a mark that the first replies all begin with, or half of them contain; None for
            nothing.
    """

    def __init__(
        self, rule: AnswerRule, *, tls: bool, options: str = "", has_cut: bool = False, stops: bool = True
    ) -> None:
        self._rule = rule
        self._options = options
        self._worth_it = _WORTH_IT_HTTPS if tls else _WORTH_IT_HTTP
        self._long = max(_LONG, self._worth_it)
        self._habit = _Habit.UNKNOWN
        self._saved: list[float] = []
        self._tokens_per_piece: list[float] = []
        self._brief_length = 0.0
        self._whole, self._whole_before_next_look = 0, _WINDOW
        self._lengths: deque[int] = deque(maxlen=_WINDOW)
        self._cut: deque[bool] = deque(maxlen=_WINDOW)
        self._probes: set[StreamedReply] = set()
        self._has_cut = has_cut
        self._stops = stops
        self._told = {**rule.to_json(), "of": options}
        self._first_marks: list[str | None] = []
        self._closing_marks: Counter[str] = Counter()
        self.mistaken = False
        self.unknown_mark: str | None = None

    def wants_stream(self) -> bool:
        """Whether the next reply should be streamed."""
        return self._habit in (_Habit.UNKNOWN, _Habit.EXPLAINS)

    def to_json(self) -> dict[str, Any]:
        """The rule and its options, from which another process can make one that starts anew."""
        return self._told

    def is_error(self, text: str) -> bool:
        """Whether the text of a reply, as far as it was read, is an error that came in its place."""
        return is_error_text(text.strip(), self._rule, self._options)

    @property
    def thinks_aloud(self) -> bool:
        """Whether replies are no longer stopped early, since any text may turn out to be thinking."""
        return self._habit is _Habit.THINKS_ALOUD

    def heard(self, reply: Reply) -> None:
        """Learn from a reply that was read elsewhere; all else about it was learned there."""
        self._note(reply.text, cut=reply.decided_early, took_text_back=reply.took_text_back)

    def begin(self, marks: ThinkingMarks = KNOWN_MARKS) -> StreamedReply:
        """What collects the events of the next reply."""
        return StreamedReply(self._rule, marks, self._options)

    def is_enough(self, reply: StreamedReply) -> bool:
        """Whether a reply that has grown by a piece can be stopped now."""
        if not self._stops or reply.pieces_to_decide is None or reply.ended or opening_mark(reply.text) is not None:
            return False
        if self._habit is _Habit.UNKNOWN and reply.pieces - reply.pieces_to_decide == self._long:
            self._probes.add(reply)
            if len(self._probes) >= _PROBES:
                self._habit = _Habit.EXPLAINS
        return self._habit is _Habit.EXPLAINS and reply not in self._probes

    def streamed(self, reply: StreamedReply, *, cut: bool) -> None:
        """Learn from a streamed reply; ``cut`` says whether it was stopped early."""
        self._probes.discard(reply)
        self._note(reply.text, cut=cut, took_text_back=reply.took_text_back)
        if self.thinks_aloud:
            return
        if self.unknown_mark is not None:
            self._habit = _Habit.UNKNOWN_MARK
        elif self._habit is _Habit.UNKNOWN:
            tokens, pieces = reply.completion_tokens, reply.pieces
            decided = pieces if reply.pieces_to_decide is None else reply.pieces_to_decide
            # A busy server sends few pieces of many tokens each: the tokens are what is saved.
            self._tokens_per_piece.append(max(1.0, (tokens or 0) / max(1, pieces)))
            self._saved.append((pieces - decided) * self._tokens_per_piece[-1])
            # Servers count the end of the turn as a token, and some send two tokens in one event.
            self._lengths.append(2 * pieces + 1 if tokens is None else tokens)
            if len(self._saved) >= _PROBES:
                self._settle()
        elif self._habit is _Habit.EXPLAINS:
            self._cut.append(cut)
            if len(self._cut) == _WINDOW and sum(self._cut) < _WINDOW / 4:
                self._look_again()
        elif self._habit is _Habit.BRIEF:
            self._compare_length(reply.pieces)

    def whole(self, completion_tokens: int | None, text: str, *, took_text_back: bool) -> None:
        """Learn from a reply that was not streamed."""
        self._note(text, cut=False, took_text_back=took_text_back)
        if self._habit is _Habit.BRIEF and completion_tokens is not None:
            self._compare_length(completion_tokens)
        elif self._habit is _Habit.IN_ONE_PIECE:
            self._whole += 1
            if self._whole >= self._whole_before_next_look:
                self._whole, self._whole_before_next_look = 0, 2 * self._whole_before_next_look
                self._look_again()

    def _note(self, text: str, *, cut: bool, took_text_back: bool) -> None:
        """Look for thinking in a reply, and for marks of it in one that was read to its end."""
        self._has_cut |= cut
        if not cut and self._stops:
            self._note_marks(text)
        if took_text_back or self.thinks_aloud:
            self._thinks_aloud()

    def _note_marks(self, text: str) -> None:
        closing = closing_mark(text)
        if closing is not None:
            self._thinks_aloud()
        if len(self._first_marks) >= _PROBES:
            return
        self._first_marks.append(opening_mark(text))
        if closing is not None and closing["answer"] is None:
            self._closing_marks[closing[0]] += 1
        if len(self._first_marks) < _PROBES:
            return
        said = (
            "replies {}: generating complete replies; "
            "if it does, declare its start and end marks under [thinking] in a model file"
        )
        opening = self._first_marks[0]
        if opening is not None and len(set(self._first_marks)) == 1:
            self.unknown_mark = said.format(f"begin with {opening}, which may start thinking")
            return
        for mark, count in self._closing_marks.most_common(1):
            if 2 * count >= _PROBES:
                self.unknown_mark = said.format(f"contain {mark}, which may end thinking")

    def _compare_length(self, length: int) -> None:
        self._lengths.append(length)
        longer = statistics.fmean(self._lengths) - self._brief_length
        if len(self._lengths) == _WINDOW and longer >= self._worth_it:
            self._look_again()

    def _thinks_aloud(self) -> None:
        self._habit = _Habit.THINKS_ALOUD
        self.mistaken |= self._has_cut
        self._has_cut = False

    def _settle(self) -> None:
        self._brief_length = statistics.fmean(self._lengths)
        if not self._stops:
            self._habit = _Habit.UNWANTED
        elif statistics.median(self._saved) >= self._worth_it:
            self._habit = _Habit.EXPLAINS
        else:
            in_one_piece = statistics.median(self._tokens_per_piece) >= _IN_ONE_PIECE
            self._habit = _Habit.IN_ONE_PIECE if in_one_piece else _Habit.BRIEF
        self._saved.clear()
        self._tokens_per_piece.clear()
        self._lengths.clear()
        self._cut.clear()

    def _look_again(self) -> None:
        self._habit = _Habit.UNKNOWN
        self._lengths.clear()
        self._cut.clear()
