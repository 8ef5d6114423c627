"""Whether a server builds prompts as the checkpoint's chat template and tokenizer do, by their numbers of tokens.

A plain prompt knows no template: there the server must make of it the tokens that the tokenizer makes, BOS included.
The replies, of one token each, must be what the model said: a server may take the prompt's end for a part of it.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from bundle.checkpoints import Conversation, RenderedPrompt, token_counter
from bundle.errors import TemplateError
from bundle.runs.record import TemplateRecord
from bundle.system.background import in_thread
from bundle.system.text import one_line
from bundle.tasks.catalog import Question
from bundle.tasks.prompts import trivial
from bundle.tasks.scores import Key

if TYPE_CHECKING:  # slow to import, and the server should start first
    from bundle.client import Client, Reply
    from bundle.evaluation import Evaluation

_MOST_RESTARTS: Final = 8
"""Restarts for which other prompts are kept ready."""
_SHOWN: Final = 300
"""Characters of a prompt's beginning in an error."""
_NO_TOKEN: Final = 20
"""Characters of a question that are more than one token."""


Render = Callable[[Sequence[Conversation]], Awaitable[Sequence[RenderedPrompt]]]
"""Gives what the checkpoint's tokenizer makes of prompts."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the comparison has shown: a note for the user, or why no question should be asked."""

    record: TemplateRecord
    warning: str | None = None
    error: TemplateError | None = None


def choose_prompts(questions: Sequence[Question], times: int) -> list[list[Question]]:
    """Choose prompts that differ: the shortest, the median, the longest and the one with the most turns.

    There are at most ``times`` choices, none with a prompt of another: fewer where there are too few questions.
    """
    by_length = sorted(questions, key=lambda one: sum(len(message["content"]) for message in one.messages))
    choices: list[list[Question]] = []
    while by_length and len(choices) < times:
        turns = max(by_length, key=lambda one: len(one.messages))
        several = (by_length[0], by_length[len(by_length) // 2], by_length[-1], turns)
        choices.append(list({one.key: one for one in several}.values()))
        by_length = [one for one in by_length if one not in choices[-1]]
    return choices


@dataclass(slots=True)
class TemplateProof:
    """Compares, before the first question, what the server counts with what the checkpoint's tokenizer gives.

    Attributes:
        option: The option with which the user chose another template; None if not.
        choices: Prompts for the first server, for the second if the first dies of them, and so on. Once none is left,
            each server is asked one of them.
        rendered: What the checkpoint's tokenizer gives for these.
        trivial: What it gives for the prompt that is compared where the server replies to none of these.
        vocabulary: The directory of that tokenizer.
        date: Today's, if the checkpoint's chat template makes other prompts on other days.
        verdict: None until there is one.
    """

    engine: str
    option: str | None
    choices: list[list[Question]]
    rendered: Mapping[Key, RenderedPrompt]
    trivial: RenderedPrompt
    vocabulary: Path
    date: str | None = None
    verdict: Verdict | None = field(default=None, init=False)
    _tried: list[Question] = field(default_factory=list, init=False)

    @classmethod
    async def of(
        cls,
        questions: Sequence[Question],
        restarts: int,
        render: Render,
        *,
        engine: str,
        option: str | None,
        vocabulary: Path,
    ) -> Self:
        """A proof with some of the questions, enough for so many restarts of the server."""
        choices = choose_prompts(questions, 1 + min(restarts, _MOST_RESTARTS))
        chosen = [question for choice in choices for question in choice]
        prompts = [question.messages for question in chosen]
        *rendered, easy = await render([*prompts, trivial(prompts[0])])
        today = date.today().isoformat() if any(one.dated for one in rendered) else None
        by_key = dict(zip((one.key for one in chosen), rendered, strict=True))
        return cls(engine, option, choices, by_key, easy, vocabulary, today)

    async def prove(self, evaluation: "Evaluation", client: "Client") -> Verdict | None:
        """Ask the server, unless that was done before; None then."""
        if self.verdict is not None:
            return None
        questions = self._next(evaluation.unanswered)
        replies = await evaluation.first_tokens(client, questions)
        while self.choices and not any(replies):  # too long perhaps, or refused
            questions = self._next(evaluation.unanswered)
            replies = await evaluation.first_tokens(client, questions)
        answered = [(one, reply) for one, reply in zip(questions, replies, strict=True) if reply is not None]
        asked = [(_name(one), reply, self.rendered[one.key]) for one, reply in answered]
        if not asked:  # the questions may be asked with fewer examples, and those that are answered count
            asked = [('the prompt "1"', await evaluation.first_token(client), self.trivial)]
        self.verdict = self._judge(asked)
        if self.verdict.error is None and (error := await in_thread(lambda: self._repeated_prompt(answered))):
            self.verdict = replace(self.verdict, error=error)
        return self.verdict

    def _next(self, unanswered: Sequence[Question]) -> Sequence[Question]:
        """Prompts that no server has died of yet; if there are none, another one at a time, to find one it survives."""
        if self.choices:
            self._tried += self.choices[0]
            return self.choices.pop(0)
        left = {question.key for question in unanswered}  # one that is known to crash servers is not among them
        one = next((question for question in self._tried if question.key in left), self._tried[0])
        self._tried.remove(one)
        self._tried.append(one)
        return [one]

    def _repeated_prompt(self, answered: "Sequence[tuple[Question, Reply]]") -> TemplateError | None:
        """What is wrong with replies that begin with text of the prompt; None if none does."""
        found = next((pair for pair in answered if self._repeats_prompt(*pair)), None)
        if found is None:
            return None
        question, reply = found
        return TemplateError(
            f"The {self.engine} server returns text of the prompt as part of the reply: {_name(question)}, asked for "
            f"one token, got {reply.text[:_SHOWN]!r}.",
            remedy="Answers would be read from the prompt. Remove options after -- that change how replies are read; "
            f"if there are none, use another version of {self.engine} or another --engine.",
        )

    def _repeats_prompt(self, question: Question, reply: "Reply") -> bool:
        """Whether a reply begins with text of the prompt: more than the one token that the model has said."""
        text, said, ending = reply.text, reply.completion_tokens or 1, self.rendered[question.key].ending
        asked = question.messages[-1]["content"].strip()
        if said > 2:  # it goes on as long as it likes; some count the end of a reply as well
            return False
        if len(asked) >= _NO_TOKEN and asked in text:
            return True
        taken = max((end for end in range(1, len(text)) if ending.endswith(text[:end])), default=0)
        # White space changes no answer. A part of a character is a token, and shown as more.
        if not text[:taken].strip() or not text[taken:].strip() or "\ufffd" in text:
            return False
        counter = token_counter(self.vocabulary)  # takes part of a second
        if counter is None:
            return False
        before, whole = counter.of_texts(["\n", f"\n{text}"])  # sentencepiece counts a space before a text
        return whole - before > said

    def _judge(self, asked: "Sequence[tuple[str, Reply, RenderedPrompt]]") -> Verdict:
        pairs = [
            (name, reply.prompt_tokens, rendered)
            for name, reply, rendered in asked
            if reply.prompt_tokens is not None and rendered.tokens is not None
        ]
        if not pairs:
            return _unknown([rendered for _, _, rendered in asked])
        different = [pair for pair in pairs if pair[1] not in (pair[2].tokens, pair[2].with_special)]
        if (ended := next((pair for pair in pairs if _is_ended(*pair[1:])), None)) is not None:
            return self._ended(*ended, checked=len(pairs))
        if not different:
            exactly = all(count == rendered.tokens for _, count, rendered in pairs)
            note = None if exactly else "the server adds the tokenizer's special tokens to the template's"
            return Verdict(TemplateRecord(checked=len(pairs), equal=True, note=note))
        name, count, rendered = different[0]
        plain = rendered.bare is not None
        expected = f"{rendered.tokens} by the checkpoint's {'tokenizer' if plain else 'template'}"
        if plain and count == rendered.bare:
            expected += ", which begins a text with a special token that the server leaves out"
        note = f"{name} has {count} tokens on the server, {expected}"
        record = TemplateRecord(checked=len(pairs), equal=False, note=note)
        if self.option is not None:
            return Verdict(record, f"{self.option} gives other prompts than the checkpoint's own chat template: {note}")
        what = (
            "make the checkpoint's tokens of a text" if plain else "build prompts with the checkpoint's chat template"
        )
        gives = "the text begins" if plain else "the checkpoint's template gives"
        return Verdict(
            record,
            error=TemplateError(
                f"The {self.engine} server does not {what}: {note}.",
                remedy="Scores would be those of another prompt. Remove options after -- that change the prompt, such "
                f"as --chat-template; if there are none, use another version of {self.engine} or another --engine.",
                details=[
                    *(f"{one}: {ours} tokens on the server, {own.tokens} expected" for one, ours, own in pairs),
                    f"{gives}: {one_line(rendered.beginning, _SHOWN)}",
                ],
            ),
        )

    def _ended(self, name: str, count: int, rendered: RenderedPrompt, checked: int) -> Verdict:
        mark = one_line(repr(rendered.appended), 60)
        note = f"{name} has {count} tokens on the server, the last of them {mark}"
        return Verdict(
            TemplateRecord(checked=checked, equal=False, note=note),
            error=TemplateError(
                f"The checkpoint's tokenizer puts {mark} after every text, and the {self.engine} server after every "
                f"prompt: {note}.",
                remedy='The model would go on after an end. Set "add_eos_token" to false in tokenizer_config.json; if '
                "tokenizer.json adds it (post_processor), copy that file from the model that this one was made from.",
            ),
        )


def _unknown(rendered: Sequence[RenderedPrompt]) -> Verdict:
    why = "the server does not report prompt token counts"
    if (error := next((one.error for one in rendered if one.error is not None), None)) is not None:
        why = f"it cannot be rendered here ({error})"
    return Verdict(
        TemplateRecord(checked=0, equal=None, note=why),
        f"could not verify that the server builds the checkpoint's own prompts: {why}",
    )


def _is_ended(count: int, rendered: RenderedPrompt) -> bool:
    """Whether a server has put at the prompt's end what the tokenizer puts at that of a text."""
    without = rendered.tokens if rendered.bare is None else rendered.bare
    return bool(rendered.appended) and count == rendered.with_special != without


def _name(question: Question) -> str:
    return f"{question.subject} #{question.id}"
