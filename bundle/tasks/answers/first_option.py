r"""The rule ``first_option``: OpenCompass 0.3.3's ``first_option_postprocess``.

The order and the oddities of its patterns are part of the rule. ``故选?…`` and ``只有…对`` are one pattern, because a
comma is missing between them there. ``(?i)ANSWER`` ignores the case of the options too. ``1.\s?(.*?)$`` matches
whatever follows a "1".

Six of them could take time that grows with the square of the reply's length, which a model that repeats itself would
trigger. These are searched in another way that finds the same.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from bundle.tasks.answers.labelled import FirstMatchReader
from bundle.tasks.answers.rule import AnswerReader, AnswerRule, check_options

_FINAL = r"答案是?\s*([{options}])"
"""The pattern of the highest rank."""

_TO_THE_BOX = "to the box: "
_TO_THE_FULL_STOP = "to the full stop: "

# What stands for the options is written {options}, and a brace is doubled, as for `str.format`.
_PATTERNS = (
    _FINAL,
    r"答案是?\s*：\s*([{options}])",
    r"答案是?\s*:\s*([{options}])",
    r"答案选项应?该?是\s*([{options}])",
    r"答案选项应?该?为\s*([{options}])",
    r"答案应该?是\s*([{options}])",
    r"答案应该?选\s*([{options}])",
    r"答案选项为?\s*：\s*([{options}])",
    r"答案选项是?\s*:\s*([{options}])",
    r"答案为\s*([{options}])",
    r"答案选\s*([{options}])",
    r"选择?\s*([{options}])",
    r"故选?\s*([{options}])只有选?项?\s?([{options}])\s?是?对",
    r"只有选?项?\s?([{options}])\s?是?错",
    r"只有选?项?\s?([{options}])\s?不?正确",
    r"只有选?项?\s?([{options}])\s?错误",
    r"说法不?对选?项?的?是\s?([{options}])",
    r"说法不?正确选?项?的?是\s?([{options}])",
    r"说法错误选?项?的?是\s?([{options}])",
    r"([{options}])\s?是正确的",
    r"([{options}])\s?是正确答案",
    r"选项\s?([{options}])\s?正确",
    r"所以答\s?([{options}])",
    r"所以\s?([{options}][.。$]?$)",
    r"所有\s?([{options}][.。$]?$)",
    r"[\s，：:,]([{options}])[。，,\.]?$",
    r"[\s，,：:][故即]([{options}])[。\.]?$",
    r"[\s，,：:]因此([{options}])[。\.]?$",
    r"[是为。]\s?([{options}])[。\.]?$",
    r"因此\s?([{options}])[。\.]?$",
    r"显然\s?([{options}])[。\.]?$",
    _TO_THE_FULL_STOP + "答案是",
    _TO_THE_FULL_STOP + "答案应该是",
    _TO_THE_FULL_STOP + "答案为",
    r"(?i)ANSWER\s*:\s*([{options}])",
    r"[Tt]he answer is:?\s+\(?([{options}])\)?",
    r"[Tt]he answer is option:?\s+\(?([{options}])\)?",
    r"[Tt]he correct answer is:?\s+\(?([{options}])\)?",
    r"[Tt]he correct answer is option:?\s+\(?([{options}])\)?",
    _TO_THE_BOX + "[Tt]he correct answer is",
    _TO_THE_BOX + "[Tt]he correct option is",
    _TO_THE_BOX + "[Tt]he correct answer option is",
    r"[Tt]he answer to the question is:?\s+\(?([{options}])\)?",
    r"^选项\s?([{options}])",
    r"^([{options}])\s?选?项",
    r"(\s|^)[{options}][\s。，,：:\.$]",
    r"1.\s?(.*?)$",
    r"1.\s?([{options}])[.。$]?$",
    r"([{options}]):",
    r"([{options}])",
)


@dataclass(frozen=True, slots=True)
class FirstOption(AnswerRule):
    """The first option, by the order of the options, in the first of some fifty patterns that finds one.

    OpenCompass's ``first_option_postprocess`` (``opencompass/utils/text_postprocessors.py``) with its patterns, their
    order and its oddities: "The correct answer is: All of … boxed{B}" answers A, because an A is in what was matched.

    Only the first pattern is final: nothing ranks above it, and its match cannot begin earlier when more text comes,
    as no other match of it can contain its label. For any other answer the whole reply must be known, since a pattern
    of higher rank may still match.
    """

    name: ClassVar[str] = "first_option"

    options: str = "ABCD"
    _searches: tuple[Callable[[str], str | None], ...] = field(init=False, repr=False, compare=False)
    _final: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_options(self.options)
        object.__setattr__(self, "_searches", searches(self.options))
        object.__setattr__(self, "_final", re.compile(_FINAL.format(options=self.options)))

    def extract(self, reply: str) -> str:
        text = reply.strip()
        for search in self._searches:
            found = search(text)
            if found is not None:
                for option in self.options:
                    if option in found:
                        return option
        return ""

    def reader(self) -> AnswerReader:
        return FirstMatchReader(self._final, str.isspace, len("答案是"), self.extract)


def searches(options: str) -> tuple[Callable[[str], str | None], ...]:
    """For every pattern, by rank, a function from a reply without white space around it to what it matches there."""
    return tuple(_search(pattern, options) for pattern in _PATTERNS)


def _search(pattern: str, options: str) -> Callable[[str], str | None]:
    if pattern.startswith(_TO_THE_FULL_STOP):
        label = re.compile(pattern.removeprefix(_TO_THE_FULL_STOP) + r"\s?")
        return lambda text: _to_the_full_stop(label, text)
    if pattern.startswith(_TO_THE_BOX):
        label = re.compile(pattern.removeprefix(_TO_THE_BOX) + ":?")
        box = re.compile(f"boxed{{[{options}]}}")
        return lambda text: _to_the_box(label, box, text)
    expression = re.compile(pattern.format(options=options), re.DOTALL)
    return lambda text: match[0] if (match := expression.search(text)) else None


def _to_the_full_stop(label: re.Pattern[str], text: str) -> str | None:
    r"""What LABEL ``\s?(\S+)(?:。|$)`` matches: to the end of the text, or to the last full stop before a space."""
    known_to = 0
    full_stop = -1
    for match in label.finditer(text):
        begin = match.end()
        if begin >= known_to:
            space = _SPACE.search(text, begin)
            if space is None:
                return text[match.start() :] if begin < len(text) else None
            known_to = space.start()
            full_stop = text.rfind("。", begin, known_to)
        if full_stop > begin:
            return text[match.start() : full_stop + 1]
    return None


def _to_the_box(label: re.Pattern[str], box: re.Pattern[str], text: str) -> str | None:
    """What LABEL ``.*?boxed{X}`` matches: where no box follows the first label, none follows a later one."""
    first = label.search(text)
    end = first and box.search(text, first.end())
    return text[first.start() : end.end()] if first and end else None


_SPACE = re.compile(r"\s")
