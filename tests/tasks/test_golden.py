"""Messages, answers and accuracies equal those of OpenCompass 0.3.3, as recorded in ``shared/golden``."""

import json
from pathlib import Path
from typing import Any

import pytest

from bundle.evaluation.scoring import score
from bundle.runs import Prediction
from bundle.tasks.answers import extract
from bundle.tasks.catalog import find_task


def _recorded(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def recorded(shared: Path) -> list[dict[str, Any]]:
    return _recorded(shared / "golden" / "ceval_gen.jsonl")


def test_messages_are_those_opencompass_sent(shared: Path, recorded: list[dict[str, Any]]) -> None:
    task = find_task("ceval_gen")
    subjects = task.select(sorted({row["subject"] for row in recorded}))
    tables = task.load(str(shared / "data" / "ceval"), subjects, lambda _: None)
    ours = {(question.subject, question.id): question for question in task.questions(tables, subjects)}

    assert len(ours) == len(recorded)
    for row in recorded:
        question = ours[row["subject"], row["id"]]
        assert question.messages == row["messages"]
        assert question.gold == row["gold"]


def test_answers_are_those_opencompass_found(recorded: list[dict[str, Any]]) -> None:
    for row in recorded:
        assert extract("first_capital", row["reply"]) == row["extracted"]


def test_accuracies_are_those_opencompass_printed(shared: Path, recorded: list[dict[str, Any]]) -> None:
    task = find_task("ceval_gen")
    printed = json.loads((shared / "golden" / "ceval_gen.scores.json").read_text())["accuracy"]
    predictions = []
    asked: dict[str, int] = {}
    for row in recorded:
        answer = extract(task.answer_rule, row["reply"])
        asked[row["subject"]] = asked.get(row["subject"], 0) + 1
        predictions.append(_prediction(row, answer))

    scores = score(task, asked, predictions)

    assert {name: scores[f"ceval-{name}"].accuracy for name in printed} == pytest.approx(printed)


def _prediction(row: dict[str, Any], answer: str) -> Prediction:
    return Prediction(
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
