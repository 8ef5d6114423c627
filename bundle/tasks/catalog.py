"""Tasks by name: which questions, which prompt, what counts as the answer."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bundle.errors import ConfigError, DataError, UsageError
from bundle.task_files import task_file
from bundle.tasks import ceval
from bundle.tasks.answers import ANSWER_RULES
from bundle.tasks.prompts import Message, chat_turns
from bundle.tasks.sources import Benchmark, Row, Tables, load_tables
from bundle.tasks.subjects import Subject


@dataclass(frozen=True, slots=True)
class Question:
    """One question, ready to be asked.

    Attributes:
        subject: The subject's name.
        id: Row number in the split, from 0.
        messages: What is sent.
        gold: The right answer.
    """

    subject: str
    id: int
    messages: Sequence[Message]
    gold: str


@dataclass(frozen=True, slots=True)
class Task:
    """A benchmark, asked in one way.

    Attributes:
        name: As in ``--task``.
        description: One line for people.
        benchmark: Where the rows come from.
        split: The rows asked.
        example_split: The rows the examples are taken from.
        subjects: In the order they are shown.
        groups: Subject names of every group, by score name ("ceval-stem"), the group of all subjects first.
        user: Template of what the user says, the subject's name still to be put in.
        assistant: Template of an example's reply.
        examples: How many examples every question has.
        answer_rule: Name of the rule that finds the answer in a reply.
        max_out_len: Most tokens a reply may have.
    """

    name: str
    description: str
    benchmark: Benchmark
    split: str
    example_split: str
    subjects: tuple[Subject, ...]
    groups: Mapping[str, tuple[str, ...]]
    user: str
    assistant: str
    examples: int
    answer_rule: str
    max_out_len: int

    def score_name(self, subject: str) -> str:
        """The name of a subject's score, as OpenCompass writes it."""
        return f"{self.benchmark.name}-{subject}"

    def to_json(self) -> dict[str, Any]:
        """What makes it this task, for a run's record."""
        return {
            "name": self.name,
            "benchmark": self.benchmark.name,
            "split": self.split,
            "example_split": self.example_split,
            "examples": self.examples,
            "user": self.user,
            "assistant": self.assistant,
            "answer_rule": self.answer_rule,
        }

    def select(self, names: Sequence[str] | None) -> tuple[Subject, ...]:
        """The subjects of these names, in the task's order; all of them for None.

        Raises:
            UsageError: A name is no subject of this task.
        """
        if names is None:
            return self.subjects
        known = [subject.name for subject in self.subjects]
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"Did you mean {near[0]}?" if near else f"See `bundle tasks {self.name}` for the subjects."
                raise UsageError(f"{self.name} has no subject {name!r}.", remedy=hint)
        return tuple(subject for subject in self.subjects if subject.name in names)

    def load(self, source: str, subjects: Sequence[Subject], say: Callable[[str], None]) -> Tables:
        """Load the rows this task needs of these subjects.

        Raises:
            DataError: They cannot be found, fetched or read.
        """
        splits = [self.example_split, self.split] if self.examples else [self.split]
        return load_tables(
            source, self.benchmark, [(subject.name, split) for subject in subjects for split in splits], say
        )

    def questions(self, tables: Tables, subjects: Sequence[Subject], limit: int | None = None) -> Iterator[Question]:
        """The questions of these subjects, subject by subject; with ``limit`` only the first ones of each.

        Raises:
            DataError: There are fewer example rows than the prompt shows.
        """
        for subject in subjects:
            user = self.user.replace("{subject}", subject.chinese)
            shown = tables.rows[subject.name, self.example_split][: self.examples] if self.examples else []
            if len(shown) < self.examples:
                raise DataError(
                    f"{self.name} shows {self.examples} examples, and {tables.origin} has {len(shown)} in the split "
                    f"{self.example_split} of {subject.name}.",
                    remedy="Use complete data, or a task with fewer examples.",
                )
            for number, row in enumerate(tables.rows[subject.name, self.split][:limit]):
                asked: Row = {**row, "answer": ""}
                yield Question(subject.name, number, chat_turns(user, self.assistant, shown, asked), row["answer"])


def find_task(name: str) -> Task:
    """The task of this name in ``configs/``, or written in the file at this path.

    Raises:
        ConfigError: There is none, or its file cannot be used as written.
    """
    file = task_file(name)
    benchmark = ceval.BENCHMARK
    for split in (file.split, file.example_split):
        if split not in benchmark.splits:
            raise ConfigError(
                f"Task {name}: {benchmark.name} has no split {split!r}.",
                remedy=f"It has {', '.join(benchmark.splits)}.",
            )
    if file.answer_rule not in ANSWER_RULES:
        raise ConfigError(
            f"Task {name}: there is no answer rule {file.answer_rule!r}.",
            remedy=f"There are {', '.join(sorted(ANSWER_RULES))}.",
        )
    groups = {benchmark.name: tuple(subject.name for subject in ceval.SUBJECTS)}
    groups |= {f"{benchmark.name}-{group}": names for group, names in ceval.GROUPS.items()}
    return Task(
        name=name.rpartition("/")[2].removesuffix(".toml"),
        description=file.description,
        benchmark=benchmark,
        split=file.split,
        example_split=file.example_split,
        subjects=ceval.SUBJECTS,
        groups=groups,
        user=file.prompt.user,
        assistant=file.prompt.assistant,
        examples=file.prompt.examples,
        answer_rule=file.answer_rule,
        max_out_len=file.max_out_len,
    )
