"""A task: which questions, which prompt, what counts as the answer."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from bundle.errors import DataError, UsageError
from bundle.system.text import did_you_mean, quoted
from bundle.tasks.answers import AnswerRule, Likeliest
from bundle.tasks.benchmarks import Benchmark, Subject
from bundle.tasks.own_rows import OwnRows
from bundle.tasks.prompts import SHAPES, Message, Prompt
from bundle.tasks.scores import Key, ScoredTask
from bundle.tasks.sources import PackedRows, Row, Tables, load_tables


class Prompts:
    """The prompts of one subject's questions with the same examples; each is made when it is needed.

    A million prompts, most of each the same examples as in the one before, would take gigabytes.
    """

    def __init__(self, task: "Task", shape: str, subject: Subject, shown: Sequence[Row], rows: Sequence[Row]) -> None:
        self._by_likelihood = task.by_likelihood
        self._shape = shape
        self._prompt = task.prompt.about(subject.chinese)
        self._shown = self._prompt.shown(shown)
        self._rows = rows

    def of(self, number: int) -> list[Message]:
        """The messages of the question in this row."""
        asked = self._rows[number] | {"answer": ""}
        if self._by_likelihood:
            return self._prompt.until_answer(self._shown, asked)
        return self._prompt.after(self._shape, self._shown, asked)


@dataclass(frozen=True, slots=True)
class Question:
    """One question, ready to be asked.

    Attributes:
        id: Row number in the split, from 0.
        prompt: Its messages, or what makes them.
        max_reply: Tokens that its prompt leaves for a reply; None where that is enough for the longest one.
        key: Identifies it, and its prediction, within a run.
    """

    task: str
    split: str
    subject: str
    id: int
    prompt: Sequence[Message] | Prompts
    gold: str
    examples: int
    max_reply: int | None = None
    key: Key = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", Key(self.task, self.split, self.subject, self.id))

    @property
    def messages(self) -> Sequence[Message]:
        """What is sent."""
        return self.prompt.of(self.id) if isinstance(self.prompt, Prompts) else self.prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(ScoredTask):
    """A benchmark, or the user's own questions, asked in one way.

    Attributes:
        first: Ask only this many questions of every subject, from the first; None for all.
        shape: The prompt's shape unless another is asked for, one of `SHAPES`.
        max_out_len: Maximum tokens per reply; None leaves it to the model.
    """

    benchmark: Benchmark | OwnRows
    example_split: str
    first: int | None
    columns: tuple[str, ...]
    prompt: Prompt
    shape: str
    answer_rule: AnswerRule
    max_out_len: int | None

    @property
    def examples(self) -> int:
        """How many examples every question has, unless they are too long."""
        return self.prompt.examples

    @property
    def by_likelihood(self) -> bool:
        """Whether the model is asked how likely each option is, not what it replies."""
        return isinstance(self.answer_rule, Likeliest)

    @property
    def requests_each(self) -> int:
        """Requests that a question takes."""
        return len(self.answer_rule.options) if isinstance(self.answer_rule, Likeliest) else 1

    @property
    def default_source(self) -> str:
        """Where the rows come from when no other source is named."""
        return "hub" if isinstance(self.benchmark, Benchmark) else str(self.benchmark.file)

    def select(self, names: Sequence[str] | None) -> tuple[Subject, ...]:
        """The subjects meant by these names, in the task's order; all of them for None.

        Raises UsageError if a name is not known. ``names`` holds a subject's name as in files, on the screen or in
        Chinese, a group's, or a score's ("law", "法学", "stem", "ceval-law"); case does not matter.
        """
        if names is None:
            return self.subjects
        known = self._names()
        chosen: set[str] = set()
        for name in names:
            meant = known.get(_plain(name))
            if meant is None:
                hint = did_you_mean(_plain(name), known, f"`bundle tasks {self.name}` lists the subjects.")
                raise UsageError(f"{self.name} has no subject {name!r}.", remedy=hint)
            chosen |= meant
        return tuple(subject for subject in self.subjects if subject.name in chosen)

    def _names(self) -> dict[str, set[str]]:
        """The names of the subjects meant by every name; what a subject is called goes before what a group is."""
        known: dict[str, set[str]] = {}
        for score, members in self.groups.items():
            short = (score.removeprefix(f"{prefix}-") for prefix in self.splits.values())
            for name in (score, *short):
                known.setdefault(_plain(name), set()).update(subject for _, subject in members)
        for one in self.subjects:
            scores = (self.score_name(split, one.name) for split in self.splits)
            for name in (*scores, one.english, one.chinese, f"{one.english} {one.chinese}"):
                known[_plain(name)] = {one.name}
        return known | {_plain(one.name): {one.name} for one in self.subjects}

    def load(self, source: str, subjects: Sequence[Subject], say: Callable[[str], None]) -> Tables:
        """Load the rows this task needs of these subjects.

        Raises DataError if they cannot be found, downloaded or read, or are fewer than the examples the prompt shows.
        ``source``: where from; `default_source` where the user names none. A task with its own rows takes the path of
        another file with the same columns.
        """
        splits = [self.example_split, *self.splits] if self.examples else list(self.splits)
        wanted = [(subject.name, split) for subject in subjects for split in dict.fromkeys(splits)]
        if isinstance(self.benchmark, Benchmark):
            tables = load_tables(source, self.benchmark, wanted, say)
        else:
            tables = self.benchmark.load(source, wanted)
        for subject in subjects if self.examples else ():
            there = len(tables.rows[subject.name, self.example_split])
            if there < self.examples:
                raise DataError(
                    f"{self.name} shows {self.examples} examples, but {tables.origin} has {there} in the split "
                    f"{self.example_split} of {subject.name}.",
                    remedy="Use complete data, or a task with fewer examples.",
                )
            if isinstance(self.benchmark, OwnRows):
                self._require_others(tables, subject.name)
        columns = tuple(dict.fromkeys((*self.columns, "answer")))
        return replace(tables, rows={pair: PackedRows(rows, columns) for pair, rows in tables.rows.items()})

    def questions(
        self,
        tables: Tables,
        subjects: Sequence[Subject],
        *,
        limit: int | None = None,
        shape: str | None = None,
        fits: Callable[[Sequence[Message]], bool] | None = None,
        left: Callable[[Sequence[Message]], int | None] | None = None,
        sample: int | None = None,
    ) -> Iterator[Question]:
        """The questions of these subjects, split by split and subject by subject.

        Raises UsageError if there is no such shape.

        Args:
            limit: Maximum questions of every subject, the first ones.
            fits: Whether these messages leave room for a reply. Until they do, the last example is left out, and the
                next to last, and so on, as in OpenCompass's ``GenInferencer``; a question without any is asked anyway.
            left: How many tokens they leave for it; None where that is enough for the longest one.
            sample: Maximum questions of every subject, drawn at random but always the same.
        """
        shape = self.shape if shape is None else shape
        if shape not in SHAPES:
            raise UsageError(f"There is no prompt shape {shape!r}.", remedy=f"The shapes are {', '.join(SHAPES)}.")
        count = min((number for number in (self.first, limit) if number is not None), default=None)
        for split in self.splits:
            for subject in subjects:
                rows = tables.rows[subject.name, split]
                shown = self._examples(tables, subject.name)
                prompts = [Prompts(self, shape, subject, shown, rows)]  # with one example fewer each
                size = len(rows) if count is None else min(count, len(rows))
                for number in _drawn(f"{split}/{subject.name}", size, sample):
                    fewer, messages = 0, prompts[0].of(number) if fits or left else None
                    while fits is not None and messages is not None and fewer < len(shown) and not fits(messages):
                        fewer += 1
                        if fewer == len(prompts):
                            prompts.append(Prompts(self, shape, subject, shown[:-fewer], rows))
                        messages = prompts[fewer].of(number)
                    yield Question(
                        *(self.name, split, subject.name, number),
                        prompt=prompts[fewer],
                        gold=rows[number]["answer"],
                        examples=len(shown) - fewer,
                        max_reply=None if left is None or messages is None else left(messages),
                    )

    def with_examples(self, question: Question, examples: int, tables: Tables, shape: str) -> Question:
        """A question of this task with fewer examples, the first ones."""
        if examples == question.examples:
            return question
        subject = next(one for one in self.subjects if one.name == question.subject)
        shown = self._examples(tables, question.subject)[:examples]
        prompts = Prompts(self, shape, subject, shown, tables.rows[question.subject, question.split])
        return replace(question, prompt=prompts, examples=len(shown))

    def _require_others(self, tables: Tables, subject: str) -> None:
        """Check that no question is among the examples, which show its answer. Raises DataError if one is."""
        shown = {_asked(row) for row in self._examples(tables, subject)}
        for row in (row for split in self.splits for row in tables.rows[subject, split]):
            if _asked(row) in shown:
                raise DataError(
                    f"{self.name} asks a question of {subject} that is also one of its examples, which show the "
                    f"answer: {quoted(' '.join(_asked(row)))}.",
                    remedy="Keep examples and questions in different rows.",
                )

    def _examples(self, tables: Tables, subject: str) -> list[Row]:
        rows = tables.rows[subject, self.example_split] if self.examples else []
        return list(rows[: self.examples])


def _asked(row: Row) -> tuple[str, ...]:
    """A row of the user's own without its answer."""
    return tuple(cell.strip() for name, cell in row.items() if name != "answer")


def _drawn(where: str, size: int, sample: int | None) -> Sequence[int]:
    """The numbers of the rows asked: all, or some that a hash draws, so that they are the same everywhere."""
    if sample is None or sample >= size:
        return range(size)
    by_chance = sorted(range(size), key=lambda number: hashlib.sha256(f"{where}/{number}".encode()).digest())
    return sorted(by_chance[:sample])


def _plain(name: str) -> str:
    """A name as it is compared: "Computer Network" is "computer_network", "social_science" is "social-science"."""
    return "-".join(re.split(r"[\s_-]+", name.strip().casefold()))
