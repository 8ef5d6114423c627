"""Run directories for tests of reports, written by the program's own code from outcomes that are chosen here."""

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bundle.evaluation import AskingOptions, Evaluation
from bundle.runs.files import RESULTS
from bundle.runs.predictions import Prediction
from bundle.runs.record import RemoteModelRecord, RequestsRecord, RunRecord, SamplingRecord, Served
from bundle.runs.run import Run
from bundle.runs.task_record import TaskRecord
from bundle.tasks.catalog import Question, Task, find_task
from bundle.tasks.sources import Tables

TIMING = {"start_s": 12.5, "load_s": 0.25, "prove_s": 0.0, "ask_s": 30.0, "stop_s": 1.25, "total_s": 44.0}
LETTERS = "ABCD"
ASKING = AskingOptions(1, adaptive=False, full_replies=True, prefix_order=False)
RIGHT, WRONG, SILENT, FAILED, UNASKED = "1", "0", "-", "x", "."
"""A question's outcome: right, wrong, a reply without an answer, no reply, not asked."""


def write_run(
    directory: Path,
    outcomes: Mapping[str, str],
    *,
    task: Task | str = "ceval_gen",
    model: str = "tiny",
    replies: Mapping[tuple[str, int], str] | None = None,
    results: bool = True,
    limit: int | None = None,
    data: str | None = None,
    record: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run and return its directory.

    Args:
        directory: Where; it is made.
        outcomes: By subject, one character a question, such as ``{"law": "1101", "logic": "0-x."}``; or for a split of
            a task with several, by "SPLIT/SUBJECT".
        task: Its name or itself.
        model: The name it is served under.
        replies: The reply's text of some questions, by subject and row number; elsewhere it is the letter.
        results: Whether there is a results.json.
        limit: What ``--limit`` is said to have been.
        data: The fingerprint of its rows; None for one that depends on its subjects alone.
        record: What run.json says otherwise than it does here.
    """
    task = find_task(task) if isinstance(task, str) else task
    questions, predictions = [], []
    for key, marks in outcomes.items():
        split, _, subject = key.rpartition("/")
        for number, mark in enumerate(marks):
            question = _question(task, split or next(iter(task.splits)), subject, number)
            questions.append(question)
            if mark != UNASKED:
                one = _prediction(question, mark)
                text = (replies or {}).get((subject, number))
                predictions.append(one if text is None else replace(one, reply=text))
    directory.mkdir(parents=True)
    with Run(directory) as run:
        described = describe(task, model, _subjects(task, outcomes), limit, data).to_json() | dict(record or {})
        run.begin(RunRecord.model_validate(described), questions)
        evaluation = Evaluation([task], questions, run, lambda _: None, max_out_len={}, asking=ASKING)
        for one in predictions:
            evaluation.record(one)
        if results:
            run.write(RESULTS, evaluation.results(TIMING).to_json())
    return directory


def random_outcomes(task: Task, share: float, *, seed: int = 0, questions: int = 10) -> dict[str, str]:
    """Outcomes of a model that answers this share of the questions of every subject right."""
    chance = random.Random(seed)
    return {
        subject.name: "".join(RIGHT if chance.random() < share else WRONG for _ in range(questions))
        for subject in task.subjects
    }


def describe(
    task: Task, model: str, subjects: list[str] | None = None, limit: int | None = None, data: str | None = None
) -> RunRecord:
    """A run's record; as with real data, its fingerprint is that of the subjects asked."""
    fingerprint = data or hashlib.sha256(repr(sorted(subjects or ())).encode()).hexdigest()
    tables = Tables("hub", "hub", {}, fingerprint)
    asked = TaskRecord.of(task, shape=task.shape, subjects=subjects, limit=limit, tables=tables)
    return record_of([asked], [tables], model)


def record_of(tasks: Sequence[TaskRecord], tables: Sequence[Tables], model: str) -> RunRecord:
    """The record of a run against a remote model."""
    return RunRecord.of(
        tasks,
        tables,
        Served(
            RemoteModelRecord(name=model, base_url="http://127.0.0.1:23333/v1"),
            requests=RequestsRecord(qps=None, retries=3, timeout_s=600.0),
        ),
        SamplingRecord(temperature=0.0, max_out_len=2048, max_seq_len=None),
        concurrency=8,
        adaptive=True,
        full_replies=False,
        prefix_order=True,
    )


def _subjects(task: Task, outcomes: Mapping[str, str]) -> list[str] | None:
    asked = {key.rpartition("/")[2] for key in outcomes}
    names = [subject.name for subject in task.subjects]
    return None if asked >= set(names) else [name for name in names if name in asked]


def _question(task: Task, split: str, subject: str, number: int) -> Question:
    secret = split in task.secret_splits
    messages = [
        {"role": "user", "content": "例题 1 + 1 = ?\nA. 1\nB. 2\nC. 3\nD. 4\n答案: "},
        {"role": "assistant", "content": "B"},
        {"role": "user", "content": f"{subject} 第 {number} 题 <b>?</b>\nA. 甲\nB. 乙\nC. 丙\nD. 丁\n答案: "},
    ]
    gold = "" if secret else LETTERS[number % len(LETTERS)]
    return Question(task.name, split, subject, number, messages, gold, 1)  # type: ignore[arg-type]


def _prediction(question: Question, mark: str) -> Prediction:
    known = question.gold or "A"
    answer = {RIGHT: known, WRONG: LETTERS[(LETTERS.index(known) + 1) % len(LETTERS)], SILENT: ""}.get(mark)
    return Prediction(
        task=question.task,
        split=question.split,
        subject=question.subject,
        id=question.id,
        reply=answer if answer != "" else "不知道",
        answer=answer,
        gold=question.gold,
        correct=None if mark == FAILED or not question.gold else mark == RIGHT,
        finish_reason=None if mark == FAILED else "stop",
        decided_early=False,
        prompt_tokens=None if mark == FAILED else 460,
        completion_tokens=None if mark == FAILED else 2,
        latency_s=round(0.5 + question.id / 100, 3),
        attempts=4 if mark == FAILED else 1,
        error="HTTP 500: overloaded" if mark == FAILED else None,
        ended_at=None if mark == FAILED else 1_700_000_000.0 + question.id,
    )
