"""The health of a measurement: whether a run's score says something about the model, or about how it was asked.

Pure functions from a run's rows to findings. They change no score: a reply without an option is wrong under
OpenCompass's rules, and stays wrong; here it is counted, shown with an example, and a way out is named.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any, Final

from bundle.runs.cut_prompts import CountedPrompts, Sent
from bundle.runs.no_reply import NoReply, reasons
from bundle.runs.predictions import Prediction
from bundle.runs.reply_faults import Fault
from bundle.runs.statistics import at_most
from bundle.system.text import one_line
from bundle.system.unknown_marks import closing_mark, opening_mark
from bundle.tasks.options import is_answer, is_option, word_around
from bundle.tasks.scores import Key

MINOR: Final = 0.01
"""A fault in a smaller share of the replies is mentioned, but does not make the score doubtful."""

_NEARLY_ALL: Final = 0.9
_SOME: Final = 0.05
_FEWEST: Final = 20
"""Replies from which on a share says something."""
_RARE: Final = 0.005
_EXAMPLE_LENGTH: Final = 40
_WIDE: Final = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: " ", ord("−"): "-"}
_MARKS: Final = ' *_`$"“”「」'
_NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")
_REPEATED: Final = re.compile(r"(\S.{0,11}?)\s*(?:\1\s*){3,}", re.DOTALL)
"""What a server generates from logits that are not finite: one token, mostly the vocabulary's first."""


@dataclass(frozen=True, slots=True)
class Example:
    """A reply that shows a fault.

    ``text`` is the beginning of the reply, or of the thinking where there is nothing else; printable.
    """

    split: str
    subject: str
    id: int
    text: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault of the replies to a task.

    Attributes:
        count: Replies that have it; for a score below guessing the correct ones.
        of: Replies considered.
        example: One of them; None where a single reply shows nothing.
        values: What else its sentence names.
    """

    fault: Fault
    task: str
    count: int
    of: int
    example: Example | None = None
    values: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_minor(self) -> bool:
        """Whether it is too rare to doubt the score, or in the nature of the model."""
        if self.fault in (Fault.FEWER_EXAMPLES, Fault.OTHER_MODEL):
            return True
        return self.fault not in (Fault.BELOW_GUESSING, Fault.CUT_PROMPTS) and self.count < MINOR * self.of

    @property
    def filled(self) -> dict[str, str]:
        """All that its sentence names."""
        return {"count": f"{self.count:,}", "of": f"{self.of:,}", **self.values}

    @property
    def says(self) -> str:
        """What is wrong, as part of a sentence."""
        return self.fault.says.format_map(self.filled)

    def to_json(self) -> dict[str, Any]:
        return {
            "fault": self.fault.value,
            "task": self.task,
            "count": self.count,
            "of": self.of,
            "says": self.says,
            "remedy": self.fault.remedy,
            "example": None if self.example is None else asdict(self.example),
        }


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of a run's measurement.

    Attributes:
        unparsed: Replies whose answer is none of the options.
    """

    replies: int
    unparsed: int
    findings: tuple[Finding, ...]
    no_reply: tuple[NoReply, ...] = ()

    @property
    def grave(self) -> list[Finding]:
        """The findings that are a reason to doubt the score."""
        return [one for one in self.findings if not one.is_minor]

    @property
    def is_ok(self) -> bool:
        """Whether there is none."""
        return not self.grave

    @property
    def unparsed_percent(self) -> float:
        return 100 * self.unparsed / self.replies if self.replies else 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.is_ok,
            "replies": self.replies,
            "unparsed": self.unparsed,
            "unparsed_percent": round(self.unparsed_percent, 2),
            "findings": [one.to_json() for one in self.findings],
            "no_reply": [one.to_json() for one in self.no_reply],
        }


def examine(options: Mapping[str, str], predictions: Iterable[Prediction], sent: Sent | None = None) -> Health:
    """Examine the replies of a run.

    Args:
        options: The options of every task, see `bundle.tasks.options.options_of`; by the task's name, in order.
        sent: Gives the messages of every question, to see whether the server has cut any; None for unknown.
    """
    examination = Examination(options)
    for one in predictions:
        examination.add(one)
    return examination.health(sent)


class Examination:
    """Examines the replies of a run one by one, and keeps none of them.

    Args:
        options: The options of every task, see `bundle.tasks.options.options_of`; by the task's name, in order.
    """

    def __init__(self, options: Mapping[str, str]) -> None:
        self._tasks = {task: _Replies(task, letters) for task, letters in options.items()}
        self._failed: list[Prediction] = []

    def add(self, one: Prediction) -> None:
        """Examine an outcome; there is one a question."""
        if one.error is None:
            self._tasks[one.task].add(one)
        else:
            self._failed.append(one)

    def health(self, sent: Sent | None) -> Health:
        """What was found out. Args: as `examine`."""
        tasks = self._tasks.values()
        findings = tuple(finding for one in tasks for finding in one.findings(sent))
        return Health(sum(one.count for one in tasks), sum(one.lost for one in tasks), findings, reasons(self._failed))


def is_parsed(one: Prediction, options: str) -> bool:
    """Whether a reply's answer is an option, or several, and no letter of a word; whether there is one if not known."""
    return is_answer(one.answer or "", one.reply or "", options)


class _Found:
    """Replies that share something, and the one to show: the same in whatever order they were answered."""

    def __init__(self) -> None:
        self.count = self.lost = 0
        self.texts: Counter[str] = Counter()
        self._shown: Prediction | None = None
        self._rank: tuple[bool, Key] | None = None

    def add(self, one: Prediction, text: str = "", *, is_lost: bool = False) -> None:
        self.count += 1
        self.lost += is_lost
        self.texts[text] += 1
        rank = (not is_lost, one.key)  # one that is also without an option shows more
        if self._rank is None or rank < self._rank:
            self._shown, self._rank = one, rank

    @property
    def example(self) -> Example | None:
        if self._shown is None:
            return None
        text = (self._shown.reply or "").strip() or self._shown.thinking or ""
        return Example(self._shown.split, self._shown.subject, self._shown.id, one_line(text, _EXAMPLE_LENGTH))


class _Replies:
    """The replies to one task."""

    def __init__(self, task: str, options: str) -> None:
        self._task = task
        self._options = options
        self.count = self.lost = 0
        self._stops = False  # then an answer found in one that ended at its limit would not have changed either
        self._faults = defaultdict[Fault, _Found](_Found)  # of a reply by itself
        self._opening = defaultdict[str, _Found](_Found)
        self._ending = defaultdict[str, _Found](_Found)
        self._models: Counter[str | None] = Counter()
        self._dropped: Counter[int] = Counter()
        self._parsed = defaultdict[str, _Found](_Found)
        self._golds: Counter[str] = Counter()
        self._parsed_golds: Counter[str] = Counter()
        self._right = 0
        self._counted = CountedPrompts()

    def add(self, one: Prediction) -> None:
        is_lost = not is_parsed(one, self._options)
        self.count += 1
        self.lost += is_lost
        self._stops |= one.decided_early
        if (found := self._fault(one, is_lost=is_lost)) is not None:
            fault, text = found
            self._faults[fault].add(one, text, is_lost=is_lost)
        reply = one.reply or ""
        if not self._options and one.correct is False and _bare(one.answer or "") == _bare(one.gold) != "":
            self._faults[Fault.WRITTEN_OTHERWISE].add(one, f"{_quoted(one.answer or '')} ≠ {_quoted(one.gold)}")
        if (mark := opening_mark(reply)) is not None:
            self._opening[mark].add(one)
        if (mark := _ends_thinking(one, self._options)) is not None:
            self._ending[mark].add(one)
        self._models[one.model] += 1
        if one.examples_dropped:
            self._dropped[one.examples_dropped] += 1
        if self._options:
            if one.gold:
                self._golds[one.gold] += 1
                self._right += one.correct is True
            if not is_lost:
                self._parsed[one.answer or ""].add(one)
                self._parsed_golds[one.gold] += 1
        self._counted.add(one)

    def findings(self, sent: Sent | None) -> Iterator[Finding]:
        if not self.count:
            return
        for fault in [one for one in Fault if one in self._faults]:
            found = self._faults[fault]
            named = min(found.texts, key=lambda text: (-found.texts[text], text))
            values = {"unparsed": str(found.lost)} if fault is Fault.CUT else {"answer": named}
            if count := found.lost if fault is Fault.CUT and self._stops else found.count:
                yield self._finding(fault, count, found.example, **values)
        yield from self._unknown_mark(Fault.UNKNOWN_MARK, self._opening)
        yield from self._unknown_mark(Fault.UNKNOWN_END, self._ending)
        yield from self._other_models()
        if self._dropped:
            words = ", ".join(f"{count} with {number} fewer" for number, count in sorted(self._dropped.items()))
            yield self._finding(Fault.FEWER_EXAMPLES, self._dropped.total(), dropped=words)
        if self._options:
            if 2 * (self.count - self.lost) >= self.count:
                yield from self._one_letter()
            yield from self._below_guessing()
            if len(self._golds) == 1 and self._golds.total() >= _FEWEST:
                yield self._finding(Fault.ONE_GOLD, self._golds.total(), answer=_quoted(*self._golds))
        if sent is not None:
            count, most = self._counted.cut(sent)
            if count:
                yield self._finding(Fault.CUT_PROMPTS, count, most=str(most))

    def _finding(
        self, fault: Fault, count: int, example: Example | None = None, of: int | None = None, /, **values: str
    ) -> Finding:
        return Finding(fault, self._task, count, self.count if of is None else of, example, values)

    def _fault(self, one: Prediction, *, is_lost: bool) -> tuple[Fault, str] | None:
        """What is wrong with a reply by itself, and the text that its sentence may name."""
        if not (one.reply or "").strip():
            return Fault.UNENDED_THINKING if one.thinking else Fault.EMPTY, ""
        if is_lost and (match := _REPEATED.fullmatch((one.reply or "").strip())):
            return Fault.REPEATED, _quoted(match[1])
        if one.finish_reason == "length":
            return Fault.CUT, ""
        if not is_lost:
            return None
        if not one.answer:
            return Fault.NO_OPTION, ""
        if is_option(one.answer, self._options):
            return Fault.IN_A_WORD, _quoted(word_around(one.answer, one.reply or "", self._options))
        return Fault.NOT_AN_OPTION, _quoted(one.answer)

    def _unknown_mark(self, fault: Fault, marked: Mapping[str, _Found]) -> Iterator[Finding]:
        mark, found = max(marked.items(), key=lambda one: one[1].count, default=("", _Found()))
        if found.count >= max(min(_FEWEST, self.count) / 2, _SOME * self.count):
            yield self._finding(fault, found.count, found.example, mark=_quoted(mark))

    def _other_models(self) -> Iterator[Finding]:
        """Replies from another model than the one asked for: a server's fallback, or its full name for it."""
        named = self._models.most_common()
        if named == [(None, self.count)]:
            return
        models = ", ".join(f"{'the one asked for' if n is None else _quoted(n)} ({c})" for n, c in named)
        if len(named) > 1:
            others = self.count - named[0][1]
            yield self._finding(Fault.SEVERAL_MODELS, others, number=str(len(named)), models=models)
        else:
            yield self._finding(Fault.OTHER_MODEL, self.count, models=models.rpartition(" ")[0])

    def _one_letter(self) -> Iterator[Finding]:
        parsed = self.count - self.lost
        if parsed < _FEWEST:
            return
        answer, found = max(self._parsed.items(), key=lambda one: one[1].count)
        known = self._parsed_golds.total() - self._parsed_golds[""]
        is_right = known and self._parsed_golds[answer] > known / 2
        if found.count >= _NEARLY_ALL * parsed and not is_right:
            yield self._finding(Fault.ONE_LETTER, found.count, found.example, parsed, answer=_quoted(answer))

    def _below_guessing(self) -> Iterator[Finding]:
        scored = self._golds.total()
        if len(self._options) < 2 or any(len(gold) != 1 for gold in self._golds):
            return  # with several right answers, or none known, guessing has no rate that is known here
        chance = 1 / len(self._options)
        if scored and at_most(self._right, scored, chance) < _RARE:
            percent, guessed = f"{100 * self._right / scored:.1f}", f"{100 * chance:.0f}"
            yield self._finding(Fault.BELOW_GUESSING, self._right, None, scored, percent=percent, chance=guessed)


def _ends_thinking(one: Prediction, options: str) -> str | None:
    """A mark that may end thinking which no mark opens; None too if the answer is the first option after it."""
    reply, answer = one.reply or "", one.answer or ""
    if (mark := closing_mark(reply)) is None or opening_mark(reply) is not None:
        return None
    rest = reply[mark.end() :].lstrip()
    begin = next((place for place, letter in enumerate(rest) if letter in options), 0)
    return None if answer and rest.startswith(answer, begin) else mark[0]


def _bare(text: str) -> str | Decimal:
    """What an answer says, however it is written: "3.0", "3.", "**3**" and "３" are the same.

    Signs that may be part of what it says, as in "x<3", "[0,1)" and "10²", stay.
    """
    plain = re.sub(r"\s+", " ", text.translate(_WIDE).casefold()).lstrip(_MARKS).rstrip(f"{_MARKS}.,;:。、")
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))| (?!\w)|(?<!\w) ", "", plain)
    return Decimal(plain) if _NUMBER.fullmatch(plain) else plain


def _quoted(text: str) -> str:
    return f'"{one_line(text, 40)}"'
