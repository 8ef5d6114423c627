"""prompts.jsonl: what was sent, written once and read back."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundle.errors import RunError
from bundle.runs.files import PROMPTS
from bundle.runs.prompts import prompt_lines, read_prompts
from bundle.tasks.catalog import Question, find_task
from bundle.tasks.prompts import Message
from bundle.tasks.scores import Key

# Surrogates are what a broken data file or tokenizer can bring in; newlines and quotes are what JSON has to escape.
TEXTS = st.text(st.characters(codec=None), max_size=12) | st.sampled_from(["a\nb\n", "a\nb\nc", "\n", "\ud800", '"\\'])


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    count = draw(st.integers(0, 4))
    return [{"role": draw(st.sampled_from(("user", "assistant"))), "content": draw(TEXTS)} for _ in range(count)]


@st.composite
def runs(draw: st.DrawFn) -> list[Question]:
    """Questions of which many share a beginning, with other lengths, roles and beginnings between them."""
    beginnings = draw(st.lists(conversations(), min_size=1, max_size=2))
    questions = []
    for number in range(draw(st.integers(0, 8))):
        messages = [*draw(st.sampled_from(beginnings)), *draw(conversations())]
        subject, examples = draw(st.sampled_from(("law", "logic"))), draw(st.integers(0, 1))
        questions.append(Question("t", "val", subject, number, messages, draw(TEXTS), examples))
    return questions


def write(directory: Path, questions: Sequence[Question]) -> bytes:
    content = b"".join(prompt_lines(questions))
    (directory / PROMPTS).write_bytes(content)
    return content


def sample_questions(shape: str, limit: int = 2) -> list[Question]:
    task = find_task("ceval_gen")
    tables = task.load("sample", task.subjects, lambda _: None)
    return list(task.questions(tables, task.subjects, shape=shape, limit=limit))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # a busy machine is slow
@given(runs())
def test_every_conversation_is_read_back_as_it_was_sent(
    tmp_path_factory: pytest.TempPathFactory, questions: list[Question]
) -> None:
    directory = tmp_path_factory.mktemp("run")
    write(directory, questions)
    prompts = read_prompts(directory)
    assert list(prompts) == [(one.task, one.split, one.subject, one.id) for one in questions]
    for question, prompt in zip(questions, prompts.values(), strict=True):
        assert prompt.gold == question.gold
        assert list(prompt.conversation) == list(question.messages)


@pytest.mark.parametrize("shape", ["turns", "flat"])
def test_the_examples_of_a_subject_are_written_once(tmp_path: Path, shape: str) -> None:
    questions = sample_questions(shape)
    content = write(tmp_path, questions)
    rows = [json.loads(line) for line in content.splitlines()]
    assert sum("task" not in row for row in rows) == 52
    prompts = read_prompts(tmp_path)
    assert [list(one.conversation) for one in prompts.values()] == [one.messages for one in questions]
    law = [prompt for key, prompt in prompts.items() if key[2] == "law"]
    assert len(law) == 2
    assert law[0].prefix is law[1].prefix
    assert law[0].prefix_name == law[1].prefix_name
    as_they_are = len(json.dumps([one.messages for one in questions], ensure_ascii=False).encode())
    assert len(content) < 0.7 * as_they_are  # two questions a subject share five examples


def test_a_question_with_other_examples_keeps_the_others_sharing_theirs(tmp_path: Path) -> None:
    first: list[Message] = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "A"}]
    odd: list[Message] = [{"role": "user", "content": "1+2?"}, {"role": "assistant", "content": "A"}]
    questions = [
        Question("t", "val", "sums", number, [*shown, {"role": "user", "content": f"{number}?"}], "A", 1)
        for number, shown in enumerate([first, odd, first])
    ]
    write(tmp_path, questions)
    prompts = list(read_prompts(tmp_path).values())
    assert prompts[0].prefix is prompts[2].prefix
    assert prompts[0].prefix_name is not None
    assert prompts[1].prefix_name is None
    assert list(prompts[1].conversation) == questions[1].messages


def test_a_lone_surrogate_leaves_the_file_utf_8(tmp_path: Path) -> None:
    content = write(tmp_path, [Question("t", "val", "law", 0, [{"role": "user", "content": "题\udcff"}], "A", 0)])
    content.decode("utf-8")
    assert read_prompts(tmp_path)[Key("t", "val", "law", 0)].conversation[0]["content"] == "题\udcff"


def test_a_missing_file_is_an_error_because_the_run_s_questions_are_not_known(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"prompts\.jsonl does not exist"):
        read_prompts(tmp_path)


GOOD = '{"task": "t", "split": "val", "subject": "s", "id": 0, "gold": "A", "prefix": null, "messages": []}'


@pytest.mark.parametrize(
    "damage",
    [
        "not json",
        "[]",
        "{}",
        "{" * 5000,
        GOOD,  # the same question again
        GOOD.replace("0", "true"),
        GOOD.replace("null", '"0000"'),  # a beginning that no row tells
        GOOD.replace('"A"', "1"),
        GOOD.replace("[]", '[{"role": "user"}]'),
        GOOD.replace("[]", '["text"]'),
        '{"prefix": null, "messages": []}',
        GOOD[:-10],
    ],
)
def test_a_damaged_row_is_an_error_that_names_its_line(tmp_path: Path, damage: str) -> None:
    (tmp_path / PROMPTS).write_text(f"{GOOD}\n{damage}\n", encoding="utf-8")
    with pytest.raises(RunError, match=r"prompts\.jsonl, line 2, is damaged"):
        read_prompts(tmp_path)


def test_a_file_that_was_cut_off_is_an_error_because_the_number_of_questions_is_not_known(tmp_path: Path) -> None:
    content = write(tmp_path, sample_questions("turns"))
    (tmp_path / PROMPTS).write_bytes(content[:-20])
    with pytest.raises(RunError, match="is damaged"):
        read_prompts(tmp_path)
