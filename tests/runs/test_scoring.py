"""From predictions to scores."""

import math
from dataclasses import replace

import pytest

from bundle.runs.predictions import Prediction
from bundle.runs.scoring import Score, Tally, mean, score
from bundle.tasks.catalog import find_task

TASK = find_task("ceval_gen")
HARD = [subject for _, subject in TASK.groups["ceval-hard"]]


def prediction(subject: str, number: int, correct: bool | None) -> Prediction:
    return Prediction(
        task="ceval_gen",
        split="val",
        subject=subject,
        id=number,
        reply=None if correct is None else "A",
        answer=None if correct is None else "A",
        gold="A",
        correct=correct,
        finish_reason="stop",
        decided_early=False,
        prompt_tokens=None,
        completion_tokens=None,
        latency_s=0.0,
        attempts=1,
        error="no reply" if correct is None else None,
    )


def test_a_group_is_the_plain_mean_over_its_subjects_whatever_their_size() -> None:
    asked = {("val", name): 2 if name == HARD[0] else 1 for name in HARD}
    predictions = [prediction(name, 0, name == HARD[0]) for name in HARD] + [prediction(HARD[0], 1, True)]

    scores = score(TASK, asked, Tally(predictions))

    assert scores["ceval-hard"].accuracy == pytest.approx(100 / 8)
    assert (scores["ceval-hard"].n, scores["ceval-hard"].answered) == (9, 9)


def test_a_group_is_scored_only_where_all_its_subjects_were_asked() -> None:
    scores = score(TASK, {("val", "law"): 1}, Tally([prediction("law", 0, True)]))

    assert list(scores) == ["ceval-law"]


def test_a_subject_without_any_reply_has_no_accuracy_and_neither_has_its_group() -> None:
    asked = dict.fromkeys((("val", name) for name in HARD), 1)
    predictions = [prediction(name, 0, None if name == "college_physics" else True) for name in HARD]

    scores = score(TASK, asked, Tally(predictions))

    assert scores["ceval-college_physics"].accuracy is None
    assert scores["ceval-hard"].accuracy is None
    assert scores["ceval-hard"].answered == 7


def test_the_standard_error_is_that_of_a_share() -> None:
    replies = [prediction("law", number, number < 3) for number in range(10)]

    law = score(TASK, {("val", "law"): 10}, Tally(replies))["ceval-law"]

    assert law.stderr == pytest.approx(100 * math.sqrt(0.3 * 0.7 / 9))


def test_the_standard_error_of_a_mean_is_that_of_independent_subjects() -> None:
    names = ("law", "logic")
    replies = [prediction(name, number, number < 5) for name in names for number in range(10)]
    scores = score(TASK, {("val", name): 10 for name in names}, Tally(replies))

    both = mean(scores[f"ceval-{name}"] for name in names)

    single = scores["ceval-law"].stderr
    assert single is not None
    assert both.stderr == pytest.approx(single / math.sqrt(2))


def test_groups_come_first_and_all_58_names_are_those_of_opencompass() -> None:
    asked = {("val", subject.name): 1 for subject in TASK.subjects}
    names = list(score(TASK, asked, Tally(prediction(name, 0, True) for _, name in asked)))

    groups = ["ceval", "ceval-stem", "ceval-social-science", "ceval-humanities", "ceval-other", "ceval-hard"]
    assert names[:6] == groups
    assert len(names) == 58


def test_a_split_whose_answers_are_secret_has_no_accuracy() -> None:
    both = find_task("ceval_gen_2daf24")
    asked = {("val", "law"): 1, ("test", "law"): 1}
    known = replace(prediction("law", 0, True), task=both.name)
    secret = replace(known, split="test", gold="", correct=None)

    scores = score(both, asked, Tally([known, secret]))

    assert scores["ceval-law"].accuracy == 100.0
    assert scores["ceval-test-law"] == Score(None, None, n=1, answered=1)
