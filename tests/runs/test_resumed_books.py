"""Times and rates of a run in several sessions; and stored replies scored again."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bundle.errors import BundleError, UsageError
from bundle.evaluation import AskingOptions, Evaluation
from bundle.reports.screen.tables import show_rescored
from bundle.runs.files import PREDICTIONS, RESULTS
from bundle.runs.recorded_run import read_recorded_run
from bundle.runs.rescoring import parse_rule, rescore
from bundle.runs.results import Results
from bundle.runs.run import Run
from bundle.tasks.catalog import Question, find_task
from tests.reports.run_directories import write_run
from tests.runs.test_health import row

TASK = find_task("ceval_gen")
ASKING = AskingOptions(1, adaptive=False, full_replies=True, prefix_order=False)
QUESTIONS = [Question("ceval_gen", "val", "law", n, [{"role": "user", "content": f"{n}"}], "ABCD"[n % 4], 0)
             for n in range(10)]  # fmt: skip


def session(
    directory: Path, numbers: range, ask_s: float, *, killed: bool = False, restarts: int = 0
) -> Results | None:
    """Answer these questions in a session of its own."""
    with Run(directory) as run:
        earlier = Results.read(directory)
        evaluation = Evaluation([TASK], QUESTIONS, run, lambda _: None, max_out_len={}, asking=ASKING)
        evaluation.restarts = restarts
        for n in numbers:
            evaluation.record(row(n, "A"))
        run.flush()
        if killed:
            return None
        results = evaluation.results({"ask_s": ask_s, "total_s": ask_s + 1}, earlier=earlier)
        run.write(RESULTS, results.to_json())
        return results


def test_times_and_answers_are_summed_over_sessions(tmp_path: Path) -> None:
    first = session(tmp_path, range(4), 2.0, restarts=1)
    assert first is not None
    assert (first.timing["ask_s"], first.timed_answers, first.sessions) == (2.0, 4, 1)
    assert "sessions" not in first.to_json()
    second = session(tmp_path, range(4, 10), 3.0, restarts=2)
    assert second is not None
    assert second.timing == {"ask_s": 5.0, "total_s": 7.0}
    assert (second.timed_answers, second.sessions, second.coverage.answered) == (10, 2, 10)
    assert second.server["restarts"] == 3


def test_a_session_that_asks_nothing_changes_nothing(tmp_path: Path) -> None:
    session(tmp_path, range(10), 2.0)
    before = (tmp_path / RESULTS).read_bytes()
    session(tmp_path, range(0), 0.001)
    assert (tmp_path / RESULTS).read_bytes() == before


def test_replies_of_a_killed_session_are_in_no_rate(tmp_path: Path) -> None:
    session(tmp_path, range(4), 2.0)
    session(tmp_path, range(4, 9), 99.0, killed=True)
    last = session(tmp_path, range(9, 10), 1.0)
    assert last is not None
    assert (last.coverage.answered, last.timed_answers, last.timing["ask_s"]) == (10, 5, 3.0)


def test_what_a_killed_session_left_complete_is_still_written_down(tmp_path: Path) -> None:
    session(tmp_path, range(4), 2.0)
    session(tmp_path, range(4, 10), 99.0, killed=True)
    last = session(tmp_path, range(0), 0.5)
    assert last is not None
    assert (last.coverage.answered, last.timed_answers) == (10, 4)


def a_run(tmp_path: Path) -> Path:
    replies = {("law", n): f"The answer is {'ABCD'[n % 4]}." for n in range(8)}
    return write_run(tmp_path / "run", {"law": "0" * 8 + "11"}, replies=replies)


def test_stored_replies_are_scored_under_another_rule(tmp_path: Path) -> None:
    run = read_recorded_run(a_run(tmp_path))
    own, other = rescore(run), rescore(run, "first_option")
    assert own.scores["ceval-law"].accuracy == 20
    assert other.scores["ceval-law"].accuracy == 100
    assert (other.whole, other.cut, other.health.unparsed) == (10, 0, 0)
    assert own.health.unparsed == 8


def test_a_reply_that_was_stopped_early_is_left_out_and_counted(tmp_path: Path) -> None:
    directory = a_run(tmp_path)
    rows = [json.loads(line) for line in (directory / PREDICTIONS).read_text(encoding="utf-8").splitlines()]
    for one in rows[:3]:
        one |= {"decided_early": True, "reply": "T", "finish_reason": None}
    (directory / PREDICTIONS).write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    again = rescore(read_recorded_run(directory), "first_option")
    assert (again.whole, again.cut) == (7, 3)
    assert (again.scores["ceval-law"].accuracy, again.scores["ceval-law"].answered) == (100, 7)


def test_replies_that_were_left_out_are_left_out_of_the_score_on_record_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here wrong replies were stopped early: what is left is better than all, and the rule changes nothing."""
    directory = write_run(tmp_path / "run", {one.name: "1100" for one in find_task("ceval_gen").subjects})
    rows = [json.loads(line) for line in (directory / PREDICTIONS).read_text(encoding="utf-8").splitlines()]
    for one in rows:
        one["decided_early"] = not one["correct"]
    (directory / PREDICTIONS).write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    run = read_recorded_run(directory)
    again = rescore(run, "first_option")
    assert [scores["ceval"].accuracy for scores in (run.scores, again.recorded, again.scores)] == [50, 100, 100]
    show_rescored(run, again, "first_option", all_subjects=False)
    shown = capsys.readouterr().out
    assert "PARTIAL: 104 of 208 replies scored\n" in shown
    assert "ceval: 100.00 under first_option, 100.00 on record for the same replies (50.00 for all)\n" in shown
    assert "104 whole replies scored; 104 replies stopped early and left out\n" in shown
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    show_rescored(run, again, None, all_subjects=False)
    assert (
        "ceval：按 任务自身的规则 为 100.00，原记录为 100.00（同一批回复；全部回复为 50.00）" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    "rule", ["labelled=answer is", "nonsense", "likeliest", "pattern", "first_option=AB", "pattern=("]
)
def test_a_rule_that_cannot_be_used_is_an_error(rule: str) -> None:
    with pytest.raises(BundleError):
        parse_rule(rule, "ABCD")


def test_a_mistyped_rule_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean first_option") as caught:
        parse_rule("first_optoin", "ABCD")
    assert "first_optoin" in caught.value.message


def test_a_rule_of_ones_own_takes_the_options_of_the_questions(tmp_path: Path) -> None:
    run = read_recorded_run(a_run(tmp_path))
    assert rescore(run, "pattern=(?i)answer is ([a-d])").scores["ceval-law"].accuracy == 80
    assert rescore(run, "labelled=答案").scores["ceval-law"].accuracy == 0
    assert replace(run).scores == run.scores
