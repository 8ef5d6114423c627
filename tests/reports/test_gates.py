"""What a script asks of a run's scores, and what it gets to know."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bundle.errors import RunError, UsageError
from bundle.reports.formats import unanswered
from bundle.reports.gates.gates import (
    GateResult,
    Gates,
    MinScore,
    check_gates,
    expected_scores,
    gated_exit_code,
    parse_gates,
)
from bundle.runs.recorded_run import RecordedRun, read_recorded_run
from bundle.runs.task_record import TaskRecord
from bundle.tasks.catalog import find_task
from tests.reports.run_directories import describe, random_outcomes, write_run
from tests.reports.sample_run import sample_run

TASK = find_task("ceval_gen")


def a_run(folder: Path, outcomes: Mapping[str, str], **how: object) -> RecordedRun:
    return read_recorded_run(write_run(folder, outcomes, **how))  # type: ignore[arg-type]


def checked(run: RecordedRun, *min_scores: str) -> Sequence[GateResult]:
    return check_gates(parse_gates(min_scores, None, None), run)


# A least score


@pytest.mark.parametrize(
    ("percent", "met"), [("40", True), ("50", True), ("50.01", False), ("100", False), ("0", True)]
)
def test_a_score_must_reach_its_gate(tmp_path: Path, percent: str, met: bool) -> None:
    (result,) = checked(a_run(tmp_path / "r", {"law": "1100"}), f"ceval-law={percent}")

    assert result.met is met
    assert result.line == f"ceval-law 50.00, required: {percent}"


def test_a_score_of_a_part_is_called_that(tmp_path: Path) -> None:
    base, new = (a_run(tmp_path / name, {"law": "10"}, limit=2) for name in ("base", "new"))
    results = check_gates(parse_gates(["ceval-law=40"], base.directory, 1.0, allow_partial=True), new)

    assert results[0].line == "ceval-law 50.00, required: 40; partial: first 2 of each subject"
    assert results[1].line.endswith("not statistically significant; partial: first 2 of each subject")


def test_a_score_of_sample_questions_is_called_that(tmp_path: Path) -> None:
    (result,) = check_gates(parse_gates(["ceval=0"], allow_partial=True), sample_run(tmp_path / "run"))
    assert result.line.endswith("required: 0; partial: sample questions")


def test_where_a_part_of_one_task_alone_was_asked_it_is_named(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "run", ("ceval_gen", "ceval_zero_shot_gen"))
    first, second = run.record.tasks
    other = run.record.model_copy(update={"tasks": [first, second.model_copy(update={"sample_data": False})]})
    (result,) = check_gates(parse_gates(["ceval_gen/ceval=0"], allow_partial=True), replace(run, record=other))

    assert result.line.endswith("required: 0; partial: ceval_gen: sample questions")


def test_a_mean_that_is_a_round_number_reaches_it(tmp_path: Path) -> None:
    outcomes = {subject.name: "1110000000" if number % 2 else "1" for number, subject in enumerate(TASK.subjects)}
    run = a_run(tmp_path / "r", outcomes)
    assert run.scores["ceval"].accuracy == pytest.approx(65)

    (result,) = checked(run, "ceval=65")

    assert result.met


def test_a_score_just_below_its_gate_is_not_shown_as_if_it_reached_it(tmp_path: Path) -> None:
    (result,) = checked(a_run(tmp_path / "r", {"law": "110"}), "ceval-law=66.67")

    assert not result.met
    assert result.line == "ceval-law 66.667, required: 66.67"


@pytest.mark.parametrize(("marks", "missing"), [("111x", 1), ("11..", 2), ("....", 4)])
def test_a_score_with_missing_replies_meets_no_gate_however_high_it_is(
    tmp_path: Path, marks: str, missing: int
) -> None:
    (result,) = checked(a_run(tmp_path / "r", {"law": marks}), "ceval-law=10")

    assert not result.met
    assert result.line.endswith(f"but {unanswered(missing, 4)}")


def test_a_score_that_the_run_does_not_have_is_not_met(tmp_path: Path) -> None:
    (result,) = checked(a_run(tmp_path / "r", {"law": "1"}), "ceval=10")

    assert not result.met
    assert "ceval has no score" in result.line


@pytest.mark.parametrize("value", ["ceval", "ceval=", "=60", "ceval=sixty", "ceval=101", "ceval=-1", "ceval=nan"])
def test_a_mistyped_gate_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="NAME=PERCENT"):
        parse_gates([value], None, None)


def test_a_score_named_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="twice"):
        parse_gates(["ceval=60", "ceval=70"], None, None)


# Scores that will not be there are known before anything is started


def planned(*subjects: str, task: str = "ceval_gen") -> list[TaskRecord]:
    return [TaskRecord.of(find_task(task), shape="turns", subjects=subjects or None)]


def test_all_scores_of_a_task_are_known_beforehand() -> None:
    names = expected_scores(planned())

    assert names[:3] == ["ceval", "ceval-stem", "ceval-social-science"]
    assert len(names) == 6 + 52
    Gates((MinScore("ceval", 60), MinScore("ceval-law", 50))).require_scored(planned())


def test_a_mistyped_score_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        Gates((MinScore("ceval-stme", 60),)).require_scored(planned())
    assert caught.value.remedy == "Did you mean ceval-stem?"


def test_a_group_of_which_only_some_subjects_are_asked_is_refused() -> None:
    some = planned("law", "logic")

    assert expected_scores(some) == ["ceval-logic", "ceval-law"]
    with pytest.raises(UsageError, match="this run will have no score 'ceval'"):
        Gates((MinScore("ceval", 60),)).require_scored(some)


def test_names_that_two_tasks_share_are_told_apart_as_in_the_results() -> None:
    names = expected_scores([*planned(), *planned("law", task="ceval_zero_shot_gen")])

    assert "ceval_gen/ceval" in names
    assert names[-1] == "ceval_zero_shot_gen/ceval-law"


# A baseline


def test_a_drop_within_what_is_allowed_meets_the_gate(tmp_path: Path) -> None:
    write_run(tmp_path / "before", {"law": "1111100000"})
    gates = parse_gates([], Path("before"), 10.0, tmp_path)

    (result,) = check_gates(gates, a_run(tmp_path / "now", {"law": "1111000000"}))

    assert result.met
    assert result.line == (
        "ceval-law 40.00 is 10.00 points below 50.00 in before, allowed drop: 10; p = 1.00, "
        "not statistically significant"
    )


def test_a_larger_drop_does_not_whether_or_not_it_is_chance(tmp_path: Path) -> None:
    write_run(tmp_path / "before", {"law": "1" * 50})
    gates = parse_gates([], tmp_path / "before", 1.0)

    (chance,) = check_gates(gates, a_run(tmp_path / "a", {"law": "1" * 48 + "00"}))
    (more,) = check_gates(gates, a_run(tmp_path / "b", {"law": "1" * 30 + "0" * 20}))

    assert (chance.met, more.met) == (False, False)
    assert "4.00 points below" in chance.line
    assert chance.line.endswith("not statistically significant")
    assert more.line.endswith("p < 0.0001, statistically significant")


@pytest.mark.parametrize(
    ("required", "met", "line"),
    [(33.3333334, False, "33.3333333, required: 33.3333334"), (33.33333, True, "33.333333, required: 33.33333")],
)
def test_a_score_and_what_is_required_can_be_told_apart(tmp_path: Path, required: float, met: bool, line: str) -> None:
    (result,) = check_gates(parse_gates([f"ceval-law={required}"]), a_run(tmp_path / "now", {"law": "100"}))

    assert (result.met, result.line) == (met, f"ceval-law {line}")


@pytest.mark.parametrize(
    ("most", "met", "line"),
    [
        (0.5, False, "0.503 points below"),
        (0.0, False, "0.50 points below"),
        (0.5025126, True, "0.50251256 points below"),
    ],
)
def test_a_drop_and_what_is_allowed_can_be_told_apart(tmp_path: Path, most: float, met: bool, line: str) -> None:
    write_run(tmp_path / "before", {"law": "11" + "0" * 197})

    gates = parse_gates([], tmp_path / "before", most)
    (result,) = check_gates(gates, a_run(tmp_path / "now", {"law": "1" + "0" * 198}))

    assert result.met == met
    assert line in result.line
    assert f"allowed drop: {most:.15g};" in result.line


def test_a_better_run_meets_the_gate(tmp_path: Path) -> None:
    write_run(tmp_path / "before", {"law": "1000"})
    (result,) = check_gates(parse_gates([], tmp_path / "before", 0.0), a_run(tmp_path / "now", {"law": "1100"}))

    assert result.met
    assert "25.00 points above 25.00 in before" in result.line


def test_missing_replies_do_not_meet_a_baselines_gate(tmp_path: Path) -> None:
    write_run(tmp_path / "before", {"law": "1000"})
    gates = parse_gates([], tmp_path / "before", 5.0)

    (some,) = check_gates(gates, a_run(tmp_path / "some", {"law": "111x"}))
    (none,) = check_gates(gates, a_run(tmp_path / "none", {"law": "...."}))

    assert (some.met, none.met) == (False, False)
    assert some.line.endswith("but 1 of 4 questions has no reply")
    assert "no question is answered in both runs" in none.line


def test_questions_that_the_baseline_has_no_reply_to_are_told(tmp_path: Path) -> None:
    write_run(tmp_path / "before", {"law": "11x"})
    (result,) = check_gates(parse_gates([], tmp_path / "before", 0.0), a_run(tmp_path / "now", {"law": "110"}))

    assert result.met
    assert result.line.endswith("1 question excluded because not answered in the baseline")


def test_a_baseline_alone_is_no_gate(tmp_path: Path) -> None:
    write_run(tmp_path / "before", {"law": "1"})

    assert check_gates(parse_gates([], tmp_path / "before", None), a_run(tmp_path / "now", {"law": "0"})) == []


def test_a_baseline_that_was_asked_something_else_is_refused_before_questions_are_asked(tmp_path: Path) -> None:
    write_run(tmp_path / "before", {"law": "1"})
    gates = parse_gates([], tmp_path / "before", 1.0)
    record = describe(TASK, "new", ["law"])
    gates.require_comparable(record)

    record = record.model_copy(update={"tasks": (record.tasks[0].model_copy(update={"shape": "flat"}),)})
    with pytest.raises(RunError, match=r"--baseline before: .* different prompts"):
        gates.require_comparable(record)


def test_a_baseline_without_replies_or_a_drop_without_a_baseline_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "empty", {"law": "x."})
    with pytest.raises(RunError, match="no answered question"):
        parse_gates([], tmp_path / "empty", 1.0)
    with pytest.raises(UsageError, match="needs a run"):
        parse_gates([], None, 1.0)
    with pytest.raises(UsageError, match="not between 0 and 100 points"):
        parse_gates([], tmp_path / "empty", -1.0)


# The exit code


@pytest.mark.parametrize(
    ("code", "met", "ends_with"),
    [(0, True, 0), (0, False, 1), (4, True, 4), (4, False, 4), (130, False, 130)],
)
def test_a_gate_that_is_not_met_is_1_and_what_says_that_the_run_is_not_whole_is_stronger(
    code: int, met: bool, ends_with: int
) -> None:
    assert gated_exit_code(code, [GateResult("a", True, ""), GateResult("b", met, "")]) == ends_with


def test_without_gates_the_exit_code_stays(tmp_path: Path) -> None:
    run = a_run(tmp_path / "r", random_outcomes(TASK, 0.5, questions=1))

    assert gated_exit_code(0, check_gates(Gates(), run)) == 0
