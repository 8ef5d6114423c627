"""The health of a measurement: whether a run's score says something about the model, or about how it was asked.

Pure functions from a run's rows to findings. They change no score: a reply without an option is wrong under
OpenCompass's rules, and stays wrong; here it is counted, shown with an example, and a way out is named.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from bundle.runs.cut_prompts import Sent, cut_prompts
from bundle.runs.no_reply import NoReply, reasons
from bundle.runs.predictions import Prediction
from bundle.runs.reply_faults import MEANINGS, Fault
from bundle.runs.statistics import at_most
from bundle.system.text import one_line
from bundle.system.unknown_marks import closing_mark, opening_mark
from bundle.tasks.benchmarks import BENCHMARKS
from bundle.tasks.catalog import Question
from bundle.tasks.options import is_option, word_around

MINOR: Final = 0.01
"""A fault in a smaller share of the replies is mentioned, but does not make the score doubtful."""

_NEARLY_ALL: Final = 0.9
_SOME: Final = 0.05
_FEWEST: Final = 20
"""Replies from which on a share says something."""
_RARE: Final = 0.005
_EXAMPLE_LENGTH: Final = 40
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
    def filled(self) -> dict[str, object]:
        """All that its sentence names."""
        return {"count": self.count, "of": self.of, **self.values}

    @property
    def says(self) -> str:
        """What is wrong, as part of a sentence."""
        return MEANINGS[self.fault][0].format_map(self.filled)

    @property
    def remedy(self) -> str:
        """What to do, as a sentence."""
        return MEANINGS[self.fault][1]

    def to_json(self) -> dict[str, Any]:
        return {
            "fault": self.fault.value,
            "task": self.task,
            "count": self.count,
            "of": self.of,
            "says": self.says,
            "remedy": self.remedy,
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
        options: The options of every task as far as they are known, see `known_options`; by the task's name, in order.
        sent: The messages of every question, to see whether the server has cut any; None for unknown.
    """
    replies: dict[str, list[Prediction]] = {task: [] for task in options}
    predictions = list(predictions)
    for one in predictions:
        if one.error is None:
            replies[one.task].append(one)
    findings: list[Finding] = []
    unparsed = 0
    for task, of_task in replies.items():
        letters = options_of(options[task], of_task)
        found = [one for one in of_task if not is_parsed(one, letters)]
        unparsed += len(found)
        if of_task:
            findings += _findings(task, letters, of_task, found)
            count, most = cut_prompts(of_task, sent or {})
            if count:
                findings.append(Finding(Fault.CUT_PROMPTS, task, count, len(of_task), None, {"most": str(most)}))
    return Health(sum(map(len, replies.values())), unparsed, tuple(findings), reasons(predictions))


def known_options(benchmark: str, rule: Mapping[str, Any]) -> str:
    """The options that a task's questions have, as far as the task says so.

    ``rule`` is the answer rule with its settings, as in ``run.json``. Returns letters or digits; "" if the task does
    not say it.
    """
    return str(rule.get("options") or ("ABCD" if benchmark in BENCHMARKS else ""))


def options_of(known: str, asked: Iterable[Question | Prediction]) -> str:
    """The options of a task: those it names, or else those that its gold answers show; "" for answers of any text."""
    if known:
        return known
    golds = {one.gold for one in asked if one.gold}
    letters = set("".join(golds))
    if not golds or not all("A" <= letter <= "Z" for letter in letters) or any(len(set(g)) < len(g) for g in golds):
        return ""
    # The last options may not be right once, so that a few more are allowed.
    return "".join(chr(code) for code in range(ord("A"), ord(max(letters | {"D"})) + 1))


def is_parsed(prediction: Prediction, options: str) -> bool:
    """Whether a reply's answer is an option, or several, and no letter of a word; whether there is one if not known."""
    answer = prediction.answer or ""
    return is_option(answer, options) and not (options and word_around(answer, prediction.reply or "", options))


def unparsed(known: Mapping[str, str], predictions: Sequence[Prediction]) -> list[Prediction]:
    """The replies of a run whose answer is none of the options."""
    options = {
        task: options_of(letters, [one for one in predictions if one.task == task]) for task, letters in known.items()
    }
    return [one for one in predictions if one.error is None and not is_parsed(one, options[one.task])]


def _findings(
    task: str, options: str, replies: Sequence[Prediction], unparsed: Sequence[Prediction]
) -> Iterable[Finding]:
    lost = {one.key for one in unparsed}
    kinds: dict[Fault, list[Prediction]] = {fault: [] for fault in list(Fault)[:7]}
    stops = any(one.decided_early for one in replies)  # nor would the answers of those that were read on have changed
    for one in replies:
        if (fault := _fault(one, options, is_lost=one.key in lost, stops=stops)) is not None:
            kinds[fault].append(one)
    for fault, found in kinds.items():
        if found:
            # One that is also without an option shows more.
            shown = _first([one for one in found if one.key in lost] or found)
            values = {}
            if fault is Fault.CUT:
                values["unparsed"] = str(sum(one.key in lost for one in found))
            elif fault is Fault.REPEATED:
                values["text"] = _most_common(match[1] for one in found if (match := _repeated(one)))
            elif fault is Fault.NOT_AN_OPTION:
                values["answer"] = _most_common(one.answer or "" for one in found)
            elif fault is Fault.IN_A_WORD:
                words = (word_around(one.answer or "", one.reply or "", options) for one in found)
                values["answer"] = _most_common(words)
            yield Finding(fault, task, len(found), len(replies), _example(shown), values)
    yield from _unknown_mark(task, Fault.UNKNOWN_MARK, replies, ((opening_mark(x.reply or ""), x) for x in replies))
    yield from _unknown_mark(task, Fault.UNKNOWN_END, replies, ((_ends_thinking(x, options), x) for x in replies))
    yield from _models(task, replies)
    yield from _fewer_examples(task, replies)
    if options:
        parsed = [one for one in replies if one.key not in lost]
        if 2 * len(parsed) >= len(replies):
            yield from _one_letter(task, parsed)
        yield from _below_guessing(task, options, replies)


def _fault(one: Prediction, options: str, *, is_lost: bool, stops: bool) -> Fault | None:
    if not (one.reply or "").strip():
        return Fault.UNENDED_THINKING if one.thinking else Fault.EMPTY
    if is_lost and _repeated(one):
        return Fault.REPEATED
    if one.finish_reason == "length" and (is_lost or not stops):
        return Fault.CUT
    if not is_lost:
        return None
    if not one.answer:
        return Fault.NO_OPTION
    return Fault.IN_A_WORD if is_option(one.answer, options) else Fault.NOT_AN_OPTION


def _repeated(one: Prediction) -> re.Match[str] | None:
    """A reply that is one short text over and over."""
    return _REPEATED.fullmatch((one.reply or "").strip())


def _unknown_mark(
    task: str, fault: Fault, replies: Sequence[Prediction], marks: Iterable[tuple[str | None, Prediction]]
) -> Iterable[Finding]:
    marked = [(mark, one) for mark, one in marks if mark is not None]
    if not marked:
        return
    mark, count = Counter(mark for mark, _ in marked).most_common(1)[0]
    if count >= max(min(_FEWEST, len(replies)) / 2, _SOME * len(replies)):
        example = _first([one for found, one in marked if found == mark])
        yield Finding(fault, task, count, len(replies), _example(example), {"mark": _quoted(mark)})


def _ends_thinking(one: Prediction, options: str) -> str | None:
    """A mark that may end thinking which no mark opens; None too if the answer is the first option after it."""
    reply, answer = one.reply or "", one.answer or ""
    if (mark := closing_mark(reply)) is None or opening_mark(reply) is not None:
        return None
    rest = reply[mark.end() :].lstrip()
    begin = next((place for place, letter in enumerate(rest) if letter in options), 0)
    return None if answer and rest.startswith(answer, begin) else mark[0]


def _models(task: str, replies: Sequence[Prediction]) -> Iterable[Finding]:
    """Replies from another model than the one asked for: a server's fallback, or its full name for it."""
    named = Counter(one.model for one in replies)
    if not named.keys() - {None}:
        return
    models = ", ".join(f"{'the one asked for' if n is None else _quoted(n)} ({c})" for n, c in named.most_common())
    if len(named) > 1:
        rest, values = len(replies) - named.most_common(1)[0][1], {"number": str(len(named)), "models": models}
        yield Finding(Fault.SEVERAL_MODELS, task, rest, len(replies), None, values)
    else:
        yield Finding(Fault.OTHER_MODEL, task, len(replies), len(replies), None, {"models": models.rpartition(" ")[0]})


def _fewer_examples(task: str, replies: Sequence[Prediction]) -> Iterable[Finding]:
    dropped = Counter(one.examples_dropped for one in replies if one.examples_dropped)
    if dropped:
        words = ", ".join(f"{count} with {number} fewer" for number, count in sorted(dropped.items()))
        yield Finding(Fault.FEWER_EXAMPLES, task, dropped.total(), len(replies), None, {"dropped": words})


def _one_letter(task: str, parsed: Sequence[Prediction]) -> Iterable[Finding]:
    if len(parsed) < _FEWEST:
        return
    answer, count = Counter(one.answer or "" for one in parsed).most_common(1)[0]
    golds = [one.gold for one in parsed if one.gold]
    is_right = golds and golds.count(answer) > len(golds) / 2
    if count >= _NEARLY_ALL * len(parsed) and not is_right:
        example = _first([one for one in parsed if one.answer == answer])
        yield Finding(Fault.ONE_LETTER, task, count, len(parsed), _example(example), {"answer": _quoted(answer)})


def _below_guessing(task: str, options: str, replies: Sequence[Prediction]) -> Iterable[Finding]:
    scored = [one for one in replies if one.gold]
    if len(options) < 2 or any(len(one.gold) != 1 for one in scored):
        return  # with several right answers, or none known, guessing has no rate that is known here
    right, chance = sum(one.correct is True for one in scored), 1 / len(options)
    if scored and at_most(right, len(scored), chance) < _RARE:
        values = {"percent": f"{100 * right / len(scored):.1f}", "chance": f"{100 * chance:.0f}"}
        yield Finding(Fault.BELOW_GUESSING, task, right, len(scored), None, values)


def _first(found: Sequence[Prediction]) -> Prediction:
    """The same one, in whatever order they were answered."""
    return min(found, key=lambda one: one.key)


def _example(one: Prediction) -> Example:
    text = (one.reply or "").strip() or one.thinking or ""
    return Example(one.split, one.subject, one.id, one_line(text, _EXAMPLE_LENGTH))


def _most_common(texts: Iterable[str]) -> str:
    return _quoted(Counter(texts).most_common(1)[0][0])


def _quoted(text: str) -> str:
    return f'"{one_line(text, 40)}"'
