"""The rule ``all_options``: every option that a reply chooses."""

import itertools
import re
import unicodedata
from dataclasses import dataclass, field
from typing import ClassVar

from bundle.tasks.answers.pattern import Pattern
from bundle.tasks.answers.rule import AnswerRule, check_options
from bundle.tasks.options import in_order, several

_EMPHASIS = re.compile(r"^[ \t]*[-•·][ \t]+|[*`$]|\\[A-Za-z]+(?=\{)|[{}]", re.MULTILINE)
_LABELS = (
    r"(?:答案|[Aa]nswers?)(?:应该|应|该)?(?:是|为|选| is| are)?[\s:\"'“”(\[]*",
    r"(?<!不)(?<!不应)(?<!不能)选择?[\s:\"'“”(\[]*",
)
_NAMED = re.compile(r"选?项|[Oo]ptions?")
_VERDICT = r"\s*+(?:的?说法)?(?:[都均皆也则是]|明显|显然|is\b|are\b|\s)*+"
_RIGHT = re.compile(rf"{_VERDICT}(?:对|正确|符合|成立|right|correct|true)|\s*+也?是\s*+(?:[,。.;]|$)", re.IGNORECASE)
_WRONG = re.compile(
    rf"{_VERDICT}(?:错|误|非|不(?:[对是属能行]|正确|符合|成立|可以)|wrong|incorrect|false|not\b)", re.IGNORECASE
)
_EXCEPT = re.compile(r"(?:除了?|[不非](?:是|选)?|排除|\bexcept|\bnot)\s*$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class AllOptions(AnswerRule):
    """The options a reply chooses, in the order of the options: "CA", "A、C" and "**AC**" all answer AC.

    Looked for in this order: where ``pattern`` says; a reply of nothing but options; after a label such as "答案是" or
    "故选"; at the beginning; the only options that are named anywhere. What is called wrong right after them is not
    chosen: "AC，B错误" answers AC. A reply that leaves it open, as "A或C" and "A对，B错，C对" do, has no answer.
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
        letter = (
            rf"(?:选项\s*|[Oo]ptions?\s+)?[(\[]?[{self.options}](?=[{self.options}]|[^A-Za-z0-9]|$)[)\]]?(?:\s*选?项)?"
        )
        between = r"[ \t]*+[,、;/|&+]?[ \t]*+(?:和|与|及|以及|或者?|and\b|or\b)?[ \t]*+"
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
        runs = [
            run for run in self._run.finditer(text) if not _EXCEPT.search(text[max(0, run.start() - 9) : run.start()])
        ]
        right = {self._chosen(run) for run in runs if _RIGHT.match(text, run.end())}
        if not re.match(rf"\W*[{self.options}]\s*[.:)]", text) and (found := self._at_the_beginning(text)):
            return found if right <= {found} else ""
        named = {self._chosen(run) for run in runs} - {""} or {self._letters(run[1]) for run in runs} - {""}
        return named.pop() if len(named) == 1 else ""

    def can_find(self, answer: str) -> bool:
        return answer != "" and answer == in_order(answer, self.options)

    def _at_the_beginning(self, text: str) -> str:
        """The options that a text begins with: in lines of nothing else, or in its first line."""
        lines = itertools.takewhile(lambda line: several(line, self.options, ignore_case=False), text.split("\n"))
        if whole := several(" ".join(lines), self.options, ignore_case=False):
            return whole
        match = self._run.match(text.lstrip())
        return self._chosen(match) if match else ""

    def _chosen(self, match: re.Match[str]) -> str:
        """The options in a match that are not called wrong; "" where they are alternatives."""
        run, text = match[1], match.string
        if _WRONG.match(text, match.end()):
            run = run[: max(0, *map(run.rfind, ",;("))]
        return self._letters(run)

    def _letters(self, run: str) -> str:
        return several(_NAMED.sub("", run), self.options)


def _bare(text: str) -> str:
    """Text without emphasis and LaTeX around the letters, and with full-width characters as plain ones."""
    return _EMPHASIS.sub("", unicodedata.normalize("NFKC", text))
