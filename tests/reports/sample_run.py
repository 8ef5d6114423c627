"""A run of the sample questions, all of them answered by a function of what was asked: the same replies that the other
programs got of which specimens are kept here."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from bundle.evaluation import Evaluation
from bundle.runs.files import RESULTS
from bundle.runs.predictions import Prediction
from bundle.runs.recorded_run import RecordedRun, read_recorded_run
from bundle.runs.run import Run
from bundle.runs.task_record import TaskRecord
from bundle.tasks.catalog import Question, Task, find_task
from tests.reports.agreed_replies import reply_to
from tests.reports.run_directories import ASKING, record_of

Outcome = Callable[[Prediction], Prediction | None]
"""What becomes of an answered question: it, another outcome, or none."""


def sample_run(
    directory: Path,
    task_names: Sequence[str] = ("ceval_gen",),
    *,
    subjects: Sequence[str] | None = None,
    shape: str = "turns",
    source: str = "sample",
    outcome: Outcome = lambda one: one,
    model: str = "simulated",
) -> RecordedRun:
    """Write a run and read it as reports do.

    Args:
        directory: Where; its name says when the run was begun.
        task_names: The tasks.
        subjects: Those asked; None for all.
        shape: The prompts' shape.
        source: Where the run says that its questions are from.
        outcome: What becomes of each question.
        model: The name it is served under.
    """
    tasks = [find_task(name) for name in task_names]
    tables = [task.load("sample", task.select(subjects), lambda _: None) for task in tasks]
    questions = [
        question
        for task, one in zip(tasks, tables, strict=True)
        for question in task.questions(one, task.select(subjects), shape=shape)
    ]
    named = [replace(one, source=source) for one in tables]
    directory.mkdir(parents=True)
    with Run(directory) as run:
        described = [
            TaskRecord.of(task, shape=shape, subjects=subjects, tables=one, source=one.source)
            for task, one in zip(tasks, named, strict=True)
        ]
        run.begin(record_of(described, named, model), questions)
        evaluation = Evaluation(tasks, questions, run, lambda _: None, max_out_len={}, asking=ASKING)
        by_name = {task.name: task for task in tasks}
        for question in questions:
            if (one := outcome(_answered(by_name[question.task], question))) is not None:
                evaluation.record(one)
        run.write(RESULTS, evaluation.results({"ask_s": 2.0, "total_s": 3.5}).to_json())
    return read_recorded_run(directory)


def without_reply(one: Prediction) -> Prediction:
    """The same question, asked in vain."""
    return replace(one, reply=None, answer=None, correct=None, finish_reason=None, error="HTTP 500: overloaded")


def _answered(task: Task, question: Question) -> Prediction:
    reply = reply_to(question.messages[-1]["content"])
    answer = task.answer_rule.extract(reply)
    return Prediction(
        task=question.task,
        split=question.split,
        subject=question.subject,
        id=question.id,
        reply=reply,
        answer=answer,
        gold=question.gold,
        correct=answer == question.gold,
        finish_reason="stop",
        decided_early=False,
        prompt_tokens=10,
        completion_tokens=1,
        latency_s=0.02,
        attempts=1,
        ended_at=1_700_000_000 + question.id / 100,
    )
