"""Messages, answers and accuracies equal those of OpenCompass 0.3.3, as recorded in ``shared/golden``."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bundle.runs.predictions import Prediction
from bundle.runs.scoring import Tally, score
from bundle.tasks.catalog import find_task

GOLDEN = ("ceval_gen", "demo_cmmlu_chat_gen")


def _recorded(shared: Path, task: str) -> list[dict[str, Any]]:
    lines = (shared / "golden" / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("name", GOLDEN)
def test_messages_are_those_opencompass_sent(shared: Path, name: str) -> None:
    task, recorded = find_task(name), _recorded(shared, name)
    subjects = task.select(sorted({row["subject"] for row in recorded}))
    tables = task.load(str(shared / "data" / task.benchmark.name), subjects, lambda _: None)
    ours = {(question.subject, question.id): question for question in task.questions(tables, subjects)}

    assert len(ours) == len(recorded)
    for row in recorded:
        question = ours[row["subject"], row["id"]]
        assert question.messages == row["messages"]
        assert question.gold == row["gold"]


@pytest.mark.parametrize("name", GOLDEN)
def test_answers_are_those_opencompass_found(shared: Path, name: str) -> None:
    rule = find_task(name).answer_rule
    for row in _recorded(shared, name):
        assert rule.extract(row["reply"]) == row["extracted"]


@pytest.mark.parametrize("name", GOLDEN)
def test_accuracies_are_those_opencompass_printed(shared: Path, name: str) -> None:
    task, recorded = find_task(name), _recorded(shared, name)
    (split,) = task.splits
    printed = json.loads((shared / "golden" / f"{name}.scores.json").read_text())["accuracy"]
    asked = Counter((split, row["subject"]) for row in recorded)
    predictions = [_prediction(name, split, row, task.answer_rule.extract(row["reply"])) for row in recorded]

    scores = score(task, asked, Tally(predictions))

    ours = {subject: scores[task.score_name(split, subject)].accuracy for subject in printed}
    assert ours == pytest.approx(printed)


def _prediction(task: str, split: str, row: dict[str, Any], answer: str) -> Prediction:
    return Prediction(
        task=task,
        split=split,
        subject=row["subject"],
        id=row["id"],
        reply=row["reply"],
        answer=answer,
        gold=row["gold"],
        correct=answer == row["gold"],
        finish_reason="stop",
        decided_early=False,
        prompt_tokens=None,
        completion_tokens=None,
        latency_s=0.0,
        attempts=1,
    )
