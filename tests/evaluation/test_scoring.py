"""From predictions to scores."""

import math

import pytest

from bundle.evaluation.scoring import mean, score
from bundle.runs import Prediction
from bundle.tasks.catalog import find_task

TASK = find_task("ceval_gen")


def prediction(subject: str, number: int, correct: bool | None) -> Prediction:
    return Prediction(
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
    hard = TASK.groups["ceval-hard"]
    asked = {name: 2 if name == hard[0] else 1 for name in hard}
    predictions = [prediction(name, 0, name == hard[0]) for name in hard] + [prediction(hard[0], 1, True)]

    scores = score(TASK, asked, predictions)

    assert scores["ceval-hard"].accuracy == pytest.approx(100 / 8)
    assert (scores["ceval-hard"].n, scores["ceval-hard"].answered) == (9, 9)


def test_a_group_is_scored_only_where_all_its_subjects_were_asked() -> None:
    scores = score(TASK, {"law": 1}, [prediction("law", 0, True)])

    assert list(scores) == ["ceval-law"]


def test_a_subject_without_any_reply_has_no_accuracy_and_neither_has_its_group() -> None:
    asked = dict.fromkeys(TASK.groups["ceval-hard"], 1)
    predictions = [prediction(name, 0, None if name == "college_physics" else True) for name in asked]

    scores = score(TASK, asked, predictions)

    assert scores["ceval-college_physics"].accuracy is None
    assert scores["ceval-hard"].accuracy is None
    assert scores["ceval-hard"].answered == 7


def test_the_standard_error_is_that_of_a_share() -> None:
    replies = [prediction("law", number, number < 3) for number in range(10)]

    law = score(TASK, {"law": 10}, replies)["ceval-law"]

    assert law.stderr == pytest.approx(100 * math.sqrt(0.3 * 0.7 / 9))


def test_the_standard_error_of_a_mean_is_that_of_independent_subjects() -> None:
    names = ("law", "logic")
    replies = [prediction(name, number, number < 5) for name in names for number in range(10)]
    scores = score(TASK, dict.fromkeys(names, 10), replies)

    both = mean(scores[f"ceval-{name}"] for name in names)

    single = scores["ceval-law"].stderr
    assert single is not None
    assert both.stderr == pytest.approx(single / math.sqrt(2))


def test_groups_come_first_and_all_58_names_are_those_of_opencompass() -> None:
    asked = {subject.name: 1 for subject in TASK.subjects}
    names = list(score(TASK, asked, [prediction(name, 0, True) for name in asked]))

    groups = ["ceval", "ceval-stem", "ceval-social-science", "ceval-humanities", "ceval-other", "ceval-hard"]
    assert names[:6] == groups
    assert len(names) == 58
