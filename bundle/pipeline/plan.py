"""What will be asked, and how: command line, task file, model file and defaults, in this order."""

import itertools
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from bundle.checkpoints import TokenCounter
from bundle.client import ClientSettings
from bundle.config.model_files import ModelFile
from bundle.errors import UsageError
from bundle.pipeline.context import ContextLimit, Fit
from bundle.pipeline.options import EvaluationOptions
from bundle.runs.record import SamplingRecord
from bundle.runs.run import require_writable
from bundle.runs.task_record import TaskRecord
from bundle.tasks.benchmarks import Subject
from bundle.tasks.catalog import Question, Task, find_task
from bundle.tasks.own_rows import OwnRows
from bundle.tasks.sources import Tables, require_source

_TIMEOUT_S, _RETRIES = 600.0, 3
_MAX_OUT_LEN, _MAX_OUT_LEN_PLAIN = 2048, 1024
"""What OpenCompass's model configs for this family of models say, chat and base, where neither task nor model file
does."""

_QUICK = 260
"""Questions of a task with ``--quick``, about: five of each of C-Eval's subjects, which narrows its score to some 5
points. A mean over subjects is best known when each has the same number of questions."""

FewerExamples = Callable[[Question, int], Question]
"""Makes a question with so many examples."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is asked.

    Attributes:
        tables: The rows, one for each task.
        context: What prompts and replies must fit; None where no limit is known.
    """

    tables: Sequence[Tables]
    questions: Sequence[Question]
    context: Fit | None
    fewer_examples: FewerExamples


@dataclass(frozen=True, slots=True)
class Requests:
    """What is the same in every request.

    Attributes:
        plain: Whether no prompt is a chat's: all are text for the model to continue.
        scores: Whether it is asked how likely texts are.
        longest_reply: Maximum tokens.
        settings: How the model is asked, but for what its target adds.
    """

    plain: bool
    scores: bool
    longest_reply: int
    settings: ClientSettings


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """How a task is asked.

    Attributes:
        source: Where its questions come from.
        shape: Its prompts' shape.
        max_out_len: Maximum tokens per reply.
        sample: Questions drawn from every subject; None for all.
    """

    task: Task
    subjects: tuple[Subject, ...]
    source: str
    shape: str
    max_out_len: int
    limit: int | None
    sample: int | None

    def load(self, say: Callable[[str], None]) -> Tables:
        return self.task.load(self.source, self.subjects, say)

    def questions(self, tables: Tables, fit: Fit | None) -> list[Question]:
        """Its questions, with as many examples as fit."""
        while True:
            questions = list(
                self.task.questions(
                    tables,
                    self.subjects,
                    limit=self.limit,
                    shape=self.shape,
                    sample=self.sample,
                    fits=None if fit is None else partial(fit.fits, max_out_len=self.max_out_len),
                    left=None if fit is None else partial(fit.left, max_out_len=self.max_out_len),
                )
            )
            if fit is None or not fit.count_unknown():
                return questions


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be asked.

    Attributes:
        planned: In the order they are asked and shown.
        limits: Maximum tokens of a prompt and its reply together, as the command line and the model file say.
    """

    planned: tuple[PlannedTask, ...]
    limits: tuple[ContextLimit, ...]
    options: EvaluationOptions
    requests: Requests

    @property
    def tasks(self) -> list[Task]:
        return [one.task for one in self.planned]

    @property
    def sources(self) -> list[str]:
        """Where the questions come from, one source per task."""
        return [one.source for one in self.planned]

    @property
    def max_out_len(self) -> dict[str, int]:
        """Maximum tokens per reply, by task."""
        return {one.task.name: one.max_out_len for one in self.planned}

    @property
    def label(self) -> str:
        """A name for the run's directory."""
        return "+".join(task.name for task in self.tasks)

    def load(
        self,
        say: Callable[[str], None],
        make_counter: Callable[[], TokenCounter | None],
        limits: Sequence[ContextLimit] = (),
    ) -> Loaded:
        """Load the rows and make the questions of all tasks.

        Raises DataError if the rows cannot be found, downloaded or read; UsageError if ``--max-out-len`` leaves no room
        for a prompt.

        Args:
            make_counter: Makes what counts a prompt's tokens; called only if a prompt may be too long.
            limits: What prompts and replies must fit besides `limits`, as the server and the checkpoint say.
        """
        limits = (*self.limits, *limits)
        fit = Fit(limits, make_counter) if limits else None
        if fit is not None and self.options.max_out_len is not None:
            fit.require_room(self.requests.longest_reply)
        loaded: dict[str, tuple[PlannedTask, Tables]] = {}
        questions: list[Question] = []
        for one in self.planned:
            tables = one.load(say)
            loaded[one.task.name] = one, tables
            questions += one.questions(tables, fit)

        def fewer_examples(question: Question, examples: int) -> Question:
            planned, tables = loaded[question.task]
            return planned.task.with_examples(question, examples, tables, planned.shape)

        return Loaded([tables for _, tables in loaded.values()], questions, fit, fewer_examples)

    def shortened(self, questions: Sequence[Question]) -> int:
        """How many questions have fewer examples than their task asks for, because all of them would not fit."""
        examples = {task.name: task.examples for task in self.tasks}
        return sum(question.examples < examples[question.task] for question in questions)

    def sampling(self, extra_body: Mapping[str, Any], prompt_date: str | None = None) -> SamplingRecord:
        """How replies are generated, for the run's record; ``extra_body`` is what the target adds to every request."""
        how, lengths = self.requests.settings, set(self.max_out_len.values())
        return SamplingRecord(
            temperature=how.temperature,
            max_out_len=lengths.pop() if len(lengths) == 1 else self.max_out_len,
            max_seq_len=min(self.limits).tokens if self.limits else None,
            thinking=how.thinking,
            extra_body={**extra_body, **how.extra_body},
            prompt_date=prompt_date,
        )

    def task_records(self, tables: Sequence[Tables] = ()) -> list[TaskRecord]:
        """What is asked, for the run's record; with the rows of every task once they are loaded."""
        return [
            TaskRecord.of(
                one.task,
                shape=one.shape,
                subjects=self.options.subjects and [subject.name for subject in one.subjects],
                limit=one.limit,
                tables=rows,
                sample=one.sample,
                source=one.source,
            )
            for one, rows in itertools.zip_longest(self.planned, tables)
        ]


def require_usable(options: EvaluationOptions) -> None:
    """Check what the options name, before anything is started for it.

    Raises BundleError if there is no such source of questions or tracker, no run can be created, or there
    is no current directory.
    """
    try:
        os.getcwd()  # noqa: PTH109 - only whether there is one
    except OSError:
        raise UsageError("The current directory was removed.", remedy="Change to another one with cd.") from None
    if options.resume is None:
        require_writable(options.out)
    for source in options.data.values():
        require_source(source)
    if options.log:
        from bundle.reports import trackers  # imported late: few runs need it

        trackers.require(options.log)


def plan_tasks(options: EvaluationOptions, model: ModelFile) -> Plan:
    """Decide what will be asked, and how.

    Raises ConfigError if a task is unknown, or its file cannot be used; UsageError if a subject is unknown, or a task
    is named twice.
    """
    if options.quick and options.limit is not None:
        raise UsageError("--quick and --limit exclude each other.", remedy="Leave one of them out.")
    if options.dry_run and options.resume is not None:
        raise UsageError("--dry-run and --resume exclude each other.", remedy="Leave one of them out.")
    tasks = tuple(find_task(name) for name in options.tasks)
    for name, times in Counter(task.name for task in tasks).items():
        if times > 1:
            raise UsageError(f"--task names {name} {times} times.", remedy="Name each task once.")
    planned = tuple(_plan_task(task, options, model, alone=len(tasks) == 1) for task in tasks)
    sampling = model.sampling
    limits = (options.max_seq_len, "--max-seq-len"), (sampling.max_seq_len, "model file")
    return Plan(
        planned=planned,
        limits=tuple(ContextLimit(tokens, source) for tokens, source in limits if tokens is not None),
        options=options,
        requests=Requests(
            plain=all(one.shape == "plain" for one in planned),
            scores=any(task.by_likelihood for task in tasks),
            longest_reply=max(one.max_out_len for one in planned),
            settings=ClientSettings(
                temperature=sampling.temperature if options.temperature is None else options.temperature,
                timeout_s=options.request_timeout or _TIMEOUT_S,
                retries=_RETRIES if options.retries is None else options.retries,
                qps=options.qps,
                stream=options.stream,
                extra_body=sampling.fields,
                answer_from_thinking=options.answer_from_thinking,
                thinking=None if model.thinking is None else (model.thinking.open, model.thinking.close),
            ),
        ),
    )


def _plan_task(task: Task, options: EvaluationOptions, model: ModelFile, *, alone: bool) -> PlannedTask:
    subjects = task.select(options.subjects)
    shape, longest = task.shape, 1
    if not task.by_likelihood:
        shape = options.prompt_shape or model.prompt_shape or task.shape
        usual = _MAX_OUT_LEN_PLAIN if shape == "plain" else _MAX_OUT_LEN
        longest = options.max_out_len or task.max_out_len or model.sampling.max_out_len or usual
    given = options.data.get("")
    if isinstance(task.benchmark, OwnRows):  # its file names its rows; only alone can it be given others
        given = given if alone else None
    else:
        given = options.data.get(task.benchmark.name) or given
    return PlannedTask(
        task=task,
        subjects=subjects,
        source=given or task.default_source,
        shape=shape,
        max_out_len=longest,
        limit=options.limit,
        sample=math.ceil(_QUICK / (len(subjects) * len(task.splits))) if options.quick else None,
    )
