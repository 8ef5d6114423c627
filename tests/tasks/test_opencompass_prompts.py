"""For every task, shape and subject: all messages are those that OpenCompass's own code makes of the same data."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bundle.tasks.answers import Likeliest
from bundle.tasks.catalog import Question, Task, find_task
from bundle.tasks.prompts import Message
from tests.tasks.opencompass_digests import SHORT, TASKS, digest

RECORDED: dict[str, dict[str, str]] = json.loads(
    Path(__file__).with_name("opencompass_digests.json").read_text(encoding="utf-8")
)


def _is_short(messages: Sequence[Message]) -> bool:
    return sum(len(message["content"]) for message in messages) <= SHORT


def _texts(task: Task, question: Question) -> list[Message]:
    """The texts whose losses are compared."""
    assert isinstance(task.answer_rule, Likeliest)
    (message,) = question.messages
    return [{"role": "text", "content": message["content"] + option} for option in task.answer_rule.options]


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.slow
def test_every_message_of_every_subject_is_opencompass_s(shared: Path, name: str) -> None:
    task = find_task(name)
    tables = task.load(str(shared / "data" / task.benchmark.name), task.subjects, lambda _: None)
    compared = {key: digests for key, digests in RECORDED.items() if key.startswith(f"{name}, ")}
    assert len(compared) >= (1 if task.by_likelihood else 3)
    for key, digests in compared.items():
        _, shape, *short = key.split(", ")
        messages: dict[str, list[Any]] = defaultdict(list)
        shown = set()
        for question in task.questions(tables, task.subjects, shape=shape, fits=_is_short if short else None):
            sent = _texts(task, question) if task.by_likelihood else question.messages
            messages[task.score_name(question.split, question.subject)].append(sent)
            shown.add(question.examples)
        assert {subject: digest(sent) for subject, sent in messages.items()} == digests, key
        assert shown == (set(range(6)) if short else {task.examples}), key
