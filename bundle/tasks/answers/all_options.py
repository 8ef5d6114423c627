"""The rule ``all_options``: every option that a reply chooses."""

import re
import unicodedata
from dataclasses import dataclass, field
from typing import ClassVar

from bundle.tasks.answers.pattern import Pattern
from bundle.tasks.answers.rule import AnswerRule, check_options
from bundle.tasks.options import in_order, several

_EMPHASIS = re.compile(r"[*`$]|\\[A-Za-z]+(?=\{)|[{}]")
_LABELS = (
    r"(?:答案|[Aa]nswers?)(?:应该|应|该)?(?:是|为|选| is| are)?[\s:\"'“”(\[]*",
    r"(?<!不)(?<!不应)(?<!不能)选择?[\s:\"'“”(\[]*",
)


@dataclass(frozen=True, slots=True)
class AllOptions(AnswerRule):
    """The options a reply chooses, in the order of the options: "CA", "A、C" and "**AC**" all answer AC.

    Looked for in this order: where ``pattern`` says; a reply of nothing but options; after a label such as "答案是" or
    "故选"; at the beginning; the only options that are named anywhere. A reply that leaves it open has no answer.
    ``pattern`` is a regular expression whose first group is where the answer begins; "" for none.
    """

    name: ClassVar[str] = "all_options"

    options: str = "ABCD"
    pattern: str = ""
    _pattern: Pattern | None = field(init=False, repr=False, compare=False)
    _run: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _labelled: tuple[re.Pattern[str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_options(self.options)
        object.__setattr__(self, "_pattern", Pattern(self.pattern) if self.pattern else None)
        letter = rf"[(\[]?[{self.options}](?=[{self.options}]|[^A-Za-z0-9]|$)[)\]]?"
        between = r"(?:[ \t]*(?:[,、;/|&+]|和|与|及|以及|and\b)[ \t]*)?"
        run = rf"(?<![A-Za-z0-9])({letter}(?:{between}{letter})*)"
        object.__setattr__(self, "_run", re.compile(run))
        object.__setattr__(self, "_labelled", tuple(re.compile(label + run) for label in _LABELS))

    def extract(self, reply: str) -> str:
        text = reply.strip()
        if self._pattern is not None:
            for one in (text, _bare(text)):
                if (begin := self._pattern.begin(one)) is not None:
                    return self._at_the_beginning(_bare(one[begin:]))
        text = _bare(text)
        if whole := several(text, self.options):
            return whole
        if self._pattern is not None:
            return ""
        for label in self._labelled:
            if match := label.search(text):
                return self._at_the_beginning(text[match.start(1) :])
        if not re.match(rf"\W*[{self.options}]\s*[.:)]", text) and (found := self._at_the_beginning(text)):
            return found
        named = {several(match[1], self.options) for match in self._run.finditer(text)}
        return named.pop() if len(named) == 1 else ""

    def can_find(self, answer: str) -> bool:
        return answer != "" and answer == in_order(answer, self.options)

    def _at_the_beginning(self, text: str) -> str:
        line = text.split("\n", 1)[0]
        if whole := several(line, self.options, ignore_case=False):
            return whole
        match = self._run.match(line.lstrip())
        return several(match[1], self.options) if match else ""


def _bare(text: str) -> str:
    """Text without emphasis and LaTeX around the letters, and with full-width characters as plain ones."""
    return _EMPHASIS.sub("", unicodedata.normalize("NFKC", text))
