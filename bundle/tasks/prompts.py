"""From rows to messages, character by character as OpenCompass 0.3.3 does it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypedDict

SHAPES = ("turns", "flat", "plain")
"""``turns``: every example is two turns of the conversation. ``flat``: everything is one user message. ``plain``: the
same text, as it stands, for a base model to continue."""


_HERE = "\0"
"""Stands where an option is to follow; no question holds it."""


class Message(TypedDict):
    """One message of a chat completion request, or, with the role ``text``, all of a text completion's prompt."""

    role: Literal["user", "assistant", "text"]
    content: str


def is_plain(messages: Sequence[Message]) -> bool:
    """Whether this is a text to be continued as it stands, not a conversation."""
    return messages[0]["role"] == "text"


def trivial(like: Sequence[Message]) -> list[Message]:
    """What every model can reply to, as a conversation or a text as this one is."""
    return [{"role": like[0]["role"], "content": "1"}]


@dataclass(frozen=True, slots=True)
class Prompt:
    """How a question is asked.

    Attributes:
        user: Template of what the user says: ``{subject}`` is the subject's name, any other ``{column}`` a cell.
        place_for_examples: Whether OpenCompass's template has a place for examples. Where none are put there, it
            leaves an empty line at the beginning of a flat prompt.
        may_be_absent: Columns of options that a row may do without: what would show an empty one, and every one after
            it is empty too, is left out. None in OpenCompass's tasks.
        verbatim: Whether cells are shown as they are, unlike in OpenCompass's tasks (`fill`): the bold A of a user's
            own ``\\mathbf{A}`` is not the place for option A.
    """

    user: str
    assistant: str
    examples: int
    place_for_examples: bool
    may_be_absent: tuple[str, ...] = ()
    verbatim: bool = False

    def about(self, subject: str) -> "Prompt":
        """The prompt for one subject, by the name it has in prompts."""
        return replace(
            self, user=self.user.replace("{subject}", subject), assistant=self.assistant.replace("{subject}", subject)
        )

    def shown(self, examples: Sequence[Mapping[str, str]]) -> list[Message]:
        """The examples, as far as they are the same before every question."""
        turns: list[Message] = []
        for row in examples:
            turns.append({"role": "user", "content": self._filled(self._for(row), row)})
            turns.append({"role": "assistant", "content": self._filled(self.assistant, row)})
        return turns

    def after(self, shape: str, shown: Sequence[Message], question: Mapping[str, str]) -> list[Message]:
        """What is sent, with examples as `shown` has them; those that are sent as they are stay the same objects.

        The question's cells are put into the examples as well, where a ``{column}`` is still left in these: OpenCompass
        fills the examples first and then the whole conversation (``PromptTemplate.generate_item``).
        """
        turns: list[Message] = [
            {**turn, "content": self._completed(turn, question)} if "{" in turn["content"] else turn for turn in shown
        ]
        asked: Message = {"role": "user", "content": self._filled(self._for(question), question)}
        if shape == "turns":
            return [*turns, asked]
        # OpenCompass sends what comes before the answer too, such as "答案是: ".
        parts = [turn["content"] for turn in (*turns, asked)] + [self._filled(self.assistant, question)]
        if self.place_for_examples and not shown:
            parts.insert(0, "")
        return [{"role": "text" if shape == "plain" else "user", "content": _joined(parts)}]

    def until_answer(self, shown: Sequence[Message], question: Mapping[str, str]) -> list[Message]:
        """The plain text in which an option is to follow, for the model to say how likely that is.

        OpenCompass's templates with a branch for every label: its ``BaseRetriever.generate_ice`` puts a line end after
        every example and after the last one another, each on a line of its own. Examples are as `shown` has them.
        """
        parts: list[str] = []
        for place, turn in enumerate(shown):
            parts += (self._completed(turn, question), *(("\n",) if place % 2 else ()))
        before, _, _ = self._filled(self.assistant, {**question, "answer": _HERE}).partition(_HERE)
        text = _joined([*parts, "\n", self._filled(self._for(question), question), before + _HERE])
        return [{"role": "text", "content": text.removesuffix(_HERE)}]

    def _filled(self, template: str, row: Mapping[str, str]) -> str:
        if self.verbatim:
            return re.sub(r"\{(\w+)\}", lambda place: row.get(place[1], place[0]), template)
        return fill(template, row)

    def _completed(self, turn: Message, question: Mapping[str, str]) -> str:
        """A turn of an example before a question."""
        return turn["content"] if self.verbatim else fill(turn["content"], question)

    def _for(self, row: Mapping[str, str]) -> str:
        """What the user says, without the options that this row does not have."""
        template = self.user
        for column in reversed(self.may_be_absent):
            if row.get(column, "").strip():
                break
            template = "\n".join(
                _without(line, column)
                for line in template.split("\n")
                if re.findall(r"\{\w+\}", line) != [f"{{{column}}}"]  # then the line shows nothing else
            )
        return template


def _without(line: str, column: str) -> str:
    """A line without a column and its letter: "A. {A}  B. {B}" without B is "A. {A}"."""
    return re.sub(rf"\s*[(（\[]?(?:{column}[)）\].．、:：]*)?\s*\{{{column}\}}", "", line)


def fill(template: str, row: Mapping[str, str]) -> str:
    """Put a row's cells in the place of ``{column}``.

    The columns are replaced one after the other, in text that an earlier one brought in too: a question that holds
    ``{A}``, as LaTeX often does, has its option A put there. This is what OpenCompass does
    (``opencompass/utils/prompt.py``, ``safe_format``), and scores would differ from its otherwise.
    """
    for column, cell in row.items():
        if "{" not in template:
            break
        template = template.replace(f"{{{column}}}", cell)
    return template


def cut(template: str, text: str) -> list[tuple[str, str]]:
    """Find the cells again that `fill` put into a template, which has at least one ``{column}``: to show them.

    ``text`` ends with the filled template; examples may stand before it, and a few words after it. Returns all of it in
    pieces, each with its column's name ("" between cells). A column that is not found, as an option that a row does not
    have, has no piece.
    """
    pieces = re.split(r"\{(\w+)\}", template)
    end = text.rfind(pieces[-1])
    if end < 0:
        return [("", text)]
    found, literal_end = [("", text[end:])], end
    # From the right, so that what an earlier example holds is never taken for the question.
    for column, literal in zip(pieces[-2::-2], pieces[-3::-2], strict=True):
        start = text.rfind(literal, 0, literal_end) if literal else 0
        if start < 0:
            continue
        cell = start + len(literal)
        found += [(column, text[cell:literal_end]), ("", text[start:cell])]
        literal_end = start
    found.append(("", text[:literal_end]))
    return [piece for piece in reversed(found) if piece[1]]


def _joined(parts: Sequence[str]) -> str:
    """The parts on lines of their own; an empty one is left out, but the line end after it stays if it is the first.

    OpenCompass's ``APITemplateParser.parse_template`` without a meta template (``opencompass/models/base_api.py``), and
    for base models its ``LMTemplateParser`` (``opencompass/models/base.py``).
    """
    return "".join(f"\n{part}" if number else part for number, part in enumerate(parts) if part)
