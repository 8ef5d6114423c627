"""Two runs laid side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bundle.errors import RunError
from bundle.reports.comparison import Comparison, Row, Standing, compare, verdict
from bundle.reports.comparison.wording import left_out, p_value, points, settings
from bundle.runs.recorded_run import read_recorded_run
from bundle.runs.statistics import Pairs, difference_interval, holm, mcnemar
from bundle.tasks.catalog import find_task
from tests.reports.run_directories import describe, random_outcomes, write_run

ADDED = "the server adds the tokenizer's special tokens to the template's"
HARD = [subject for _, subject in find_task("ceval_gen").groups["ceval-hard"]]


def compared(
    folder: Path, base: Mapping[str, str], new: Mapping[str, str], *, common: bool = False, **how: Any
) -> Comparison:
    """A comparison of two runs with these outcomes; ``how`` is told of the new one."""
    one = read_recorded_run(write_run(folder / "base", base, model="base"))
    other = read_recorded_run(write_run(folder / "new", new, model="new", **how))
    return compare(one, other, common=common)


def row(comparison: Comparison, name: str) -> Row:
    (found,) = (one for one in comparison.rows if one.name == name and one.kind != "overall")
    return found


# What is counted


def test_a_subjects_difference_its_flips_and_its_test(tmp_path: Path) -> None:
    comparison = compared(
        tmp_path, {"law": "1111100000", "logic": "1111100000"}, {"law": "1110011110", "logic": "1111100000"}
    )

    law = row(comparison, "ceval-law")
    assert (law.base, law.new, law.questions, law.lost, law.won) == (50, 70, 10, 2, 4)
    assert law.difference == pytest.approx(20)
    assert law.interval == difference_interval([Pairs(10, 2, 4)]) * 100
    assert law.p == mcnemar(2, 4)
    assert [one.key.id for one in comparison.flips] == [3, 4, 5, 6, 7, 8]
    assert [one.lost for one in comparison.flips] == [True, True, False, False, False, False]


def test_subjects_are_corrected_for_their_number_and_groups_are_not(tmp_path: Path) -> None:
    new = {"law": "0" * 6 + "1" * 4, "logic": "1" * 9 + "0", "physician": "1" * 10}
    comparison = compared(tmp_path, dict.fromkeys(new, "1" * 10), new)

    subjects = [one for one in comparison.rows if one.kind == "subject"]
    assert [one.corrected_p for one in subjects] == holm([one.p for one in subjects])
    assert row(comparison, "ceval-law").p < 0.05
    assert row(comparison, "ceval-law").standing is Standing.CHANCE
    assert [one.corrected_p for one in comparison.overall] == [None]


def test_a_group_is_the_mean_over_its_subjects_whatever_their_size(tmp_path: Path) -> None:
    base = dict.fromkeys(HARD, "1100") | {HARD[0]: "10" * 20}
    new = dict.fromkeys(HARD, "1100") | {HARD[0]: "11" * 20}
    comparison = compared(tmp_path, base, new)

    hard = row(comparison, "ceval-hard")
    assert hard.difference == pytest.approx(50 / 8)
    assert (hard.won, hard.lost, hard.questions) == (20, 0, 68)
    assert hard.interval == difference_interval([Pairs(40, 0, 20)] + [Pairs(4, 0, 0)] * 7) * 100


def test_a_run_of_all_subjects_is_known_by_the_groups_name_and_one_of_some_by_their_number(tmp_path: Path) -> None:
    whole = random_outcomes(find_task("ceval_gen"), 0.5, questions=2)
    assert compared(tmp_path / "a", whole, whole).overall[0].name == "ceval"
    assert compared(tmp_path / "b", {"law": "1", "logic": "1"}, {"law": "1", "logic": "0"}).overall[0].name == (
        "mean of 2 subjects"
    )
    assert compared(tmp_path / "c", {"law": "1"}, {"law": "1"}).overall[0].name == "ceval-law"


def test_only_questions_answered_in_both_count_and_the_others_are_told(tmp_path: Path) -> None:
    comparison = compared(tmp_path, {"law": "11x1.."}, {"law": "1x00.1"})

    law = row(comparison, "ceval-law")
    assert (law.questions, law.lost, law.won, law.base) == (2, 1, 0, 100)
    assert (comparison.only_base, comparison.only_new, comparison.neither) == (1, 2, 1)
    assert list(left_out(comparison)) == [
        "Questions excluded because not answered in both runs: 4 (1 answered only in the base, 2 only in the new run, "
        "1 in neither)."
    ]


def test_a_reply_without_an_answer_is_wrong_and_shown_as_such(tmp_path: Path) -> None:
    (flip,) = compared(tmp_path, {"law": "1"}, {"law": "-"}).flips

    assert (flip.base, flip.new, flip.lost) == ("A", "", True)
    assert flip.new_reply == "不知道"


def test_a_setting_that_differs_is_told(tmp_path: Path) -> None:
    sampling = {"temperature": 0.7, "max_out_len": 2048, "max_seq_len": None}

    comparison = compared(tmp_path, {"law": "1"}, {"law": "1"}, record={"sampling": sampling})

    assert [(one.name, one.base, one.new) for one in comparison.settings] == [
        ("model.name", "base", "new"),
        ("sampling.temperature", 0.0, 0.7),
    ]


def test_runs_that_computed_in_different_dtypes_say_so(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [
        {"engine": {"name": "transformers", "version": "5.23.0", "arguments": [], "dtype": dtype}}
        for dtype in ("float32", "bfloat16")
    ]
    runs = [
        read_recorded_run(write_run(tmp_path / str(number), {"law": "1"}, model="m", record=record))
        for number, record in enumerate(records)
    ]
    found = compare(*runs).settings
    assert ("engine.dtype", "float32", "bfloat16") in [(one.name, one.base, one.new) for one in found]


@pytest.mark.parametrize(
    ("base", "new", "shown"),
    [
        ({"checked": 3, "equal": True}, {"checked": 3, "equal": True, "note": ADDED}, [("–", ADDED)]),
        ({"checked": 3, "equal": True, "note": ADDED}, None, [(ADDED, "–")]),
        ({"checked": 3, "equal": True, "note": ADDED}, {"checked": 2, "equal": True, "note": ADDED}, []),
        (None, {"checked": 3, "equal": True}, []),
        (None, None, []),
    ],
)
def test_runs_whose_prompts_began_with_other_special_tokens_say_so(
    base: Any, new: Any, shown: list[Any], tmp_path: Path
) -> None:
    one, other = (
        read_recorded_run(write_run(tmp_path / name, {"law": "1"}, model="m", record={"template": template}))
        for name, template in (("a", base), ("b", new))
    )
    assert list(settings(compare(one, other))) == [("setting.template.note", "", *values) for values in shown]


# What it means


@pytest.mark.parametrize(
    ("base", "new", "standing", "said"),
    [
        ("1" * 20 + "0" * 30, "1" * 35 + "0" * 15, Standing.BETTER, "30.00 points better, 40.00 → 70.00"),
        ("1" * 35 + "0" * 15, "1" * 20 + "0" * 30, Standing.WORSE, "30.00 points worse, 70.00 → 40.00"),
        ("1" * 20 + "0" * 30, "1" * 22 + "0" * 28, Standing.CHANCE, "may be due to chance"),
        ("1" * 20 + "0" * 30, "0" + "1" * 20 + "0" * 29, Standing.CHANCE, "the same score, 40.00"),
        ("10", "10", Standing.CHANCE, "No difference"),
    ],
)
def test_a_sentence_says_whether_it_is_more_than_chance(
    tmp_path: Path, base: str, new: str, standing: Standing, said: str
) -> None:
    (overall,) = compared(tmp_path, {"law": base}, {"law": new}).overall

    assert overall.standing is standing
    assert said in verdict(overall)
    assert ("Statistically significant" in verdict(overall)) == (standing in (Standing.BETTER, Standing.WORSE))


def test_a_test_and_an_interval_that_do_not_agree_are_not_called_more_than_chance(tmp_path: Path) -> None:
    # Many questions of one large subject are won, and a few small subjects lose: each subject weighs the same.
    base = {"law": "0" * 100, "logic": "1" * 4, "physician": "1" * 4}
    new = {"law": "1" * 12 + "0" * 88, "logic": "1100", "physician": "1111"}
    (overall,) = compared(tmp_path, base, new).overall

    assert overall.p < 0.05
    assert overall.difference < 0
    assert overall.standing is Standing.UNCLEAR
    assert "Unclear" in verdict(overall)


@pytest.mark.parametrize(
    ("value", "shown"), [(0.004, "0.00"), (-0.004, "0.00"), (1.25, "+1.25"), (-10, "−10.00"), (0, "0.00")]
)
def test_a_difference_has_its_sign_and_nothing_has_none(value: float, shown: str) -> None:
    assert points(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(1, "1.00"), (0.31, "0.31"), (0.0123, "0.012"), (0.00042, "0.0004"), (1e-9, "< 0.0001")]
)
def test_a_p_value_is_as_precise_as_it_is_worth(value: float, shown: str) -> None:
    assert p_value(value) == shown


# What cannot be compared


def changed(**task: object) -> dict[str, Any]:
    """A record that says something else of its task."""
    record = describe(find_task("ceval_gen"), "new", ["law"])
    return {"tasks": [record.tasks[0].model_dump() | task]}


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ({"user": "{question}"}, "different prompts"),
        ({"shape": "flat"}, "different prompts"),
        ({"shape": "plain"}, "different prompts"),
        ({"examples": 0}, "different prompts"),
        ({"answer": {"rule": "first_option"}}, "different answer rules"),
        ({"data_fingerprint": "0" * 64}, "different questions"),
        ({"limit": 5}, "different numbers of questions per subject"),
        ({"subjects": ["law", "logic"]}, "different subjects"),
    ],
)
def test_runs_that_were_asked_something_else_are_refused_with_the_reason(
    tmp_path: Path, task: dict[str, object], reason: str
) -> None:
    with pytest.raises(RunError, match=f"they used {reason}") as caught:
        compared(tmp_path, {"law": "1"}, {"law": "1"}, record=changed(**task))
    assert caught.value.message.count(reason) == 1
    assert not caught.value.details


def test_runs_of_other_tasks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"they used different tasks: ceval_gen and cmmlu_gen\.") as caught:
        compared(tmp_path, {"law": "1"}, {"anatomy": "1"}, task="cmmlu_gen")
    assert not caught.value.details


def test_every_reason_is_given_once(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"they used different prompts: shape turns and flat\.") as caught:
        compared(tmp_path, {"law": "1"}, {"law": "1"}, record=changed(shape="flat", limit=5))
    assert caught.value.details == ("also different numbers of questions per subject: limit all and 5",)


def test_a_description_or_the_order_of_the_subjects_does_not_matter(tmp_path: Path) -> None:
    record = describe(find_task("ceval_gen"), "new", ["law", "logic"])
    task = record.tasks[0].model_dump() | {"description": "reworded", "subjects": ["logic", "law"]}

    comparison = compared(tmp_path, {"logic": "1", "law": "1"}, {"logic": "1", "law": "1"}, record={"tasks": [task]})

    assert comparison.not_common == 0


def test_no_question_answered_in_both_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no answered question in common"):
        compared(tmp_path, {"law": "1."}, {"law": ".1"})


def test_a_secret_split_cannot_be_compared(tmp_path: Path) -> None:
    own = tmp_path / "hidden.toml"
    text = (Path(__file__).parents[2] / "configs" / "ceval_gen.toml").read_text(encoding="utf-8")
    own.write_text(text.replace('["val"]', '["test"]'), encoding="utf-8")
    task = find_task(str(own))
    runs = [read_recorded_run(write_run(tmp_path / name, {"law": "11"}, task=task)) for name in "ab"]

    with pytest.raises(RunError, match="secret"):
        compare(*runs)


# What is compared where it is asked for


def test_questions_in_common_are_compared_where_that_is_asked_for(tmp_path: Path) -> None:
    base, new = {"law": "1111", "logic": "11"}, {"law": "10", "physician": "111"}

    comparison = compared(tmp_path, base, new, common=True, limit=2)

    assert row(comparison, "ceval-law").questions == 2
    assert comparison.not_common == 7
    assert "Questions excluded because only one of the runs includes them: 7." in list(left_out(comparison))


def test_questions_in_common_that_are_not_the_same_are_refused(tmp_path: Path) -> None:
    one = read_recorded_run(write_run(tmp_path / "a", {"law": "11", "logic": "1"}))
    directory = write_run(tmp_path / "b", {"law": "11"})
    prompts = directory / "prompts.jsonl"
    prompts.write_text(prompts.read_text(encoding="utf-8").replace("第 1 题", "第 9 题"), encoding="utf-8")

    with pytest.raises(RunError, match="question 1 of law is not the same"):
        compare(one, read_recorded_run(directory), common=True)


def test_questions_that_were_sent_with_other_examples_are_told(tmp_path: Path) -> None:
    one = read_recorded_run(write_run(tmp_path / "a", {"law": "11"}))
    directory = write_run(tmp_path / "b", {"law": "11"})
    prompts = directory / "prompts.jsonl"
    prompts.write_text(prompts.read_text(encoding="utf-8").replace("1 + 1", "1 + 2"), encoding="utf-8")

    comparison = compare(one, read_recorded_run(directory))

    assert comparison.other_messages == 2
