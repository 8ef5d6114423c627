"""What will be asked, and how: command line, task file, model file and defaults, in this order."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bundle.checkpoints import MARKS_PER_MESSAGE
from bundle.config.model_files import ModelFile
from bundle.errors import UsageError
from bundle.pipeline.options import EvaluationOptions
from bundle.runs.prompts import prompt_lines
from bundle.runs.record import SamplingRecord, TaskRecord
from bundle.tasks.benchmarks import Subject
from bundle.tasks.catalog import Question, Task, find_task
from bundle.tasks.own_rows import OwnRows
from bundle.tasks.prompts import Message
from bundle.tasks.sources import Tables

_MAX_OUT_LEN = 2048
"""What OpenCompass's model configs for this family of models say, where neither task nor model file does."""

_QUICK = 260
"""Questions of a task with ``--quick``, about: five of each of C-Eval's subjects, which narrows its score to some 5
points. A mean over subjects is best known when each has the same number of questions."""

CountTokens = Callable[[Sequence[Message]], int]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is asked.

    Attributes:
        tables: The rows, one for each task.
        questions: The questions of all tasks.
        prompts: The content of ``prompts.jsonl``.
    """

    tables: Sequence[Tables]
    questions: Sequence[Question]
    prompts: bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be asked.

    Attributes:
        tasks: In the order they are asked and shown.
        subjects: The subjects asked, by task name.
        shapes: The prompt's shape, by task name.
        max_out_len: Maximum tokens per reply, by task name.
        temperature: 0 is greedy.
        max_seq_len: Maximum tokens of a prompt and its reply together; None for no limit of ours.
        extra_body: Further fields of every request, from the model file.
        options: What the user asked for.
        samples: Questions drawn from every subject, by task name; none for all questions.
    """

    tasks: tuple[Task, ...]
    subjects: dict[str, tuple[Subject, ...]]
    shapes: dict[str, str]
    max_out_len: dict[str, int]
    temperature: float
    max_seq_len: int | None
    extra_body: dict[str, Any]
    options: EvaluationOptions
    samples: dict[str, int]

    @property
    def label(self) -> str:
        """A name for the run's directory."""
        return "+".join(task.name for task in self.tasks)

    def sources(self) -> list[str]:
        """Where the questions come from, one source per task."""
        return [self._source(task) for task in self.tasks]

    def load(self, say: Callable[[str], None], count_tokens: Callable[[], CountTokens | None]) -> Loaded:
        """Load the rows and make the questions of all tasks.

        Args:
            say: Shows the user a line.
            count_tokens: Makes the function that counts a prompt's tokens; called only if there is a limit.

        Raises:
            DataError: The rows cannot be found, downloaded or read.
        """
        count = count_tokens() if self.max_seq_len is not None else None
        tables: list[Tables] = []
        questions: list[Question] = []
        for task in self.tasks:
            subjects = self.subjects[task.name]
            tables.append(task.load(self._source(task), subjects, say))
            questions += task.questions(
                tables[-1],
                subjects,
                limit=self.options.limit,
                shape=self.shapes[task.name],
                sample=self.samples.get(task.name),
                fits=None if count is None else self._fits(count, self.max_out_len[task.name]),
            )
        return Loaded(tables, questions, "".join(prompt_lines(questions)).encode())

    def shortened(self, questions: Sequence[Question]) -> int:
        """How many questions have fewer examples than their task asks for, because all of them would not fit."""
        examples = {task.name: task.examples for task in self.tasks}
        return sum(question.examples < examples[question.task] for question in questions)

    def sampling(self, extra_body: Mapping[str, Any]) -> SamplingRecord:
        """How replies are generated, for the run's record.

        Args:
            extra_body: What the target adds to every request by itself.
        """
        lengths = set(self.max_out_len.values())
        return SamplingRecord(
            temperature=self.temperature,
            max_out_len=lengths.pop() if len(lengths) == 1 else dict(self.max_out_len),
            max_seq_len=self.max_seq_len,
            extra_body={**extra_body, **self.extra_body},
        )

    def task_records(self, tables: Sequence[Tables] = ()) -> list[TaskRecord]:
        """What is asked, for the run's record.

        Args:
            tables: The rows of every task; none while they are not loaded yet.
        """
        return [
            TaskRecord.of(
                task,
                shape=self.shapes[task.name],
                subjects=self.options.subjects and [subject.name for subject in self.subjects[task.name]],
                limit=self.options.limit,
                tables=rows,
                sample=self.samples.get(task.name),
            )
            for task, rows in itertools.zip_longest(self.tasks, tables)
        ]

    def _source(self, task: Task) -> str:
        if isinstance(task.benchmark, OwnRows):  # its file names its rows; only alone can it be given others
            return (self.options.data.get("") if len(self.tasks) == 1 else None) or task.default_source
        return self.options.data.get(task.benchmark.name) or self.options.data.get("") or task.default_source

    def _fits(self, count: CountTokens, max_out_len: int) -> Callable[[Sequence[Message]], bool]:
        assert self.max_seq_len is not None
        limit = self.max_seq_len - max_out_len

        def fits(messages: Sequence[Message]) -> bool:
            # No tokenizer makes more tokens of a text than it has bytes: most prompts need not be counted.
            at_most = sum(len(message["content"].encode()) + MARKS_PER_MESSAGE for message in messages)
            return at_most <= limit or count(messages) <= limit

        return fits


def plan_tasks(options: EvaluationOptions, model: ModelFile) -> Plan:
    """Decide what will be asked, and how.

    Raises:
        ConfigError: A task is unknown, or its file cannot be used.
        UsageError: A subject is unknown, or a task is named twice.
    """
    if options.quick and options.limit is not None:
        raise UsageError("--quick and --limit exclude each other.", remedy="Leave one of them out.")
    tasks = tuple(find_task(name) for name in options.tasks)
    for name, times in Counter(task.name for task in tasks).items():
        if times > 1:
            raise UsageError(f"--task names {name} {times} times.", remedy="Name each task once.")
    sampling = model.sampling
    subjects = {task.name: task.select(options.subjects) for task in tasks}
    return Plan(
        tasks=tasks,
        subjects=subjects,
        shapes={task.name: options.prompt_shape or model.prompt_shape or task.shape for task in tasks},
        max_out_len={
            task.name: options.max_out_len or task.max_out_len or sampling.max_out_len or _MAX_OUT_LEN for task in tasks
        },
        temperature=sampling.temperature if options.temperature is None else options.temperature,
        max_seq_len=options.max_seq_len or sampling.max_seq_len,
        extra_body=sampling.fields,
        options=options,
        samples={task.name: math.ceil(_QUICK / (len(subjects[task.name]) * len(task.splits))) for task in tasks}
        if options.quick
        else {},
    )
