"""The runs in a directory, newest first."""

import json
import os
import time
from io import StringIO
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from bundle.errors import RunError
from bundle.reports.screen.run_table import show_runs
from bundle.runs.listing import ListedRun, State, list_runs, remove_run
from bundle.runs.run import Run
from bundle.tasks.catalog import find_task
from tests.reports.run_directories import random_outcomes, write_run


def only(out: Path) -> ListedRun:
    (run,) = list_runs(out)
    return run


def test_runs_are_listed_newest_first(tmp_path: Path) -> None:
    for name in ("20250102-000000-a", "20260101-000000-b", "20250101-235959-c"):
        write_run(tmp_path / name, {"law": "1"})

    assert [run.directory.name[-1] for run in list_runs(tmp_path)] == ["b", "a", "c"]


def test_a_whole_run_is_known_by_its_tasks_score(tmp_path: Path) -> None:
    task = find_task("ceval_gen")
    write_run(tmp_path / "20250102-030405-ceval_gen-tiny", random_outcomes(task, 0.5, questions=2), model="tiny")

    run = only(tmp_path)

    assert (run.state, run.model, run.tasks) == (State.DONE, "tiny", ("ceval_gen",))
    assert (run.total, run.answered, run.seconds) == (104, 104, 44)
    (headline,) = run.headlines
    assert (headline.name, headline.whole) == ("ceval", True)
    assert run.began.strftime("%Y-%m-%d %H:%M:%S") == "2025-01-02 03:04:05"


def test_a_run_of_some_subjects_is_known_by_their_mean_and_marked(tmp_path: Path) -> None:
    write_run(tmp_path / "r", {"law": "1100", "logic": "11"})

    (headline,) = only(tmp_path).headlines

    assert (headline.name, headline.whole, headline.score.accuracy) == ("mean of 2 of 52 subjects", False, 75)
    assert "75.00*" in shown(list_runs(tmp_path))


def test_a_run_with_missing_replies_is_incomplete_and_one_without_results_was_cut_off(tmp_path: Path) -> None:
    write_run(tmp_path / "20250101-000000-a", {"law": "11x"})
    write_run(tmp_path / "20250102-000000-b", {"law": "11."}, results=False)

    cut_off, incomplete = list_runs(tmp_path)

    assert (incomplete.state, incomplete.answered, incomplete.total) == (State.INCOMPLETE, 2, 3)
    assert (cut_off.state, cut_off.answered, cut_off.total) == (State.CUT_OFF, 2, 3)


def test_a_run_that_is_being_written_is_running_whatever_results_it_has_from_before(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "r", {"law": "11."})
    with Run(directory):
        run = only(tmp_path)

    assert (run.state, run.answered, run.seconds) == (State.RUNNING, 2, None)
    assert only(tmp_path).state is State.INCOMPLETE


def test_whether_a_run_is_doubtful_is_said_at_its_end(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "r", {"law": "0" * 60})
    with Run(directory):
        assert not only(tmp_path).doubtful

    assert only(tmp_path).doubtful


def test_a_run_that_never_came_to_its_first_question_is_shown_as_such(tmp_path: Path) -> None:
    with Run.create(tmp_path, "ceval_gen-tiny") as run:
        run.server_log.write_text("out of memory\n", encoding="utf-8")
        assert only(tmp_path).state is State.RUNNING

    assert only(tmp_path).state is State.NEVER_ASKED


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        ("run.json", "{", "run.json is damaged"),
        ("run.json", "{}", "run.json is damaged: the key 'task' is missing"),
        ("results.json", "{}", "results.json is damaged"),
        ("results.json", '{"scores": {"ceval": 5}, "coverage": {}, "timing": {}}', "results.json is damaged"),
        ("results.json", "[]", "results.json is damaged"),
    ],
)
def test_a_damaged_run_is_shown_with_why_and_hides_no_other(tmp_path: Path, file: str, content: str, why: str) -> None:
    write_run(tmp_path / "20250101-000000-good", {"law": "1"})
    damaged = write_run(tmp_path / "20250102-000000-bad", {"law": "1"})
    (damaged / file).write_text(content, encoding="utf-8")

    first, second = list_runs(tmp_path)

    assert (first.state, second.state) == (State.DAMAGED, State.DONE)
    assert why in (first.fault or "")
    assert "20250102-000000-bad: " in shown([first, second])


def test_what_is_no_run_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes.txt").touch()

    assert list_runs(tmp_path) == []


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="No such file or directory"):
        list_runs(tmp_path / "outputs")


def test_hundreds_of_runs_are_listed_without_reading_their_predictions(tmp_path: Path) -> None:
    outcomes = random_outcomes(find_task("ceval_gen"), 0.5, questions=1)
    one = write_run(tmp_path / "20250101-000000-0", outcomes)
    (one / "predictions.jsonl").write_text('{"they are": "counted"}\n' * len(outcomes), encoding="utf-8")
    for number in range(1, 300):
        other = tmp_path / f"20250101-000000-{number}"
        other.mkdir()
        for file in one.iterdir():
            os.link(file, other / file.name)

    started = time.process_time()
    runs = list_runs(tmp_path)

    assert {run.state for run in runs} == {State.DONE}
    assert len(runs) == 300
    assert time.process_time() - started < 5  # a third of a second


# The table


def shown(runs: list[ListedRun], *, terminal: bool = True, failed: bool = False) -> str:
    stream = StringIO()
    console = Console(file=stream, width=80 if terminal else 500, force_terminal=terminal, color_system=None)
    show_runs(console, runs, failed=failed)
    return stream.getvalue()


def test_the_table_fits_80_columns_and_nothing_is_lost_from_a_long_name(tmp_path: Path) -> None:
    model = "a-model-with-quite-a-long-name-很长的名字-" + "x" * 60
    write_run(tmp_path / "20250102-030405-ceval_gen-tiny", {"law": "1"}, model=model)

    text = shown(list_runs(tmp_path))

    assert max(map(cell_len, text.splitlines())) <= 80
    assert "20250102-030405 " in text
    assert text.count("x") >= 60


def bold(out: Path) -> list[str]:
    stream = StringIO()
    show_runs(Console(file=stream, width=80, force_terminal=True, color_system="standard"), list_runs(out))
    lines = [line for line in stream.getvalue().splitlines() if line.startswith("\x1b[1m2026")]
    return [line.removeprefix("\x1b[1m")[:15] for line in lines]


def test_the_best_run_is_bold_among_those_of_the_same_questions(tmp_path: Path) -> None:
    for day, (share, data) in enumerate([(0.9, "sample"), (0.3, "C-Eval"), (0.6, "C-Eval")], 1):
        outcomes = random_outcomes(find_task("ceval_gen"), share, seed=day, questions=3)
        write_run(tmp_path / f"2026010{day}-000000-a", outcomes, data=data)

    assert bold(tmp_path) == ["20260103-000000"]


def test_the_best_is_sought_among_runs_that_can_be_compared_and_all_that_are_level_are_bold(tmp_path: Path) -> None:
    task = find_task("ceval_gen")
    shapes = [("turns", 0.5), ("turns", 0.5), ("turns", 0.3), ("flat", 0.9)]
    for day, (shape, share) in enumerate(shapes, 1):
        directory = write_run(tmp_path / f"2026010{day}-000000-a", random_outcomes(task, share, seed=1, questions=3))
        record = json.loads((directory / "run.json").read_text())
        record["tasks"][0]["shape"] = shape
        (directory / "run.json").write_text(json.dumps(record))

    assert bold(tmp_path) == ["20260102-000000", "20260101-000000"]


def test_elsewhere_than_on_a_terminal_a_run_is_one_line(tmp_path: Path) -> None:
    write_run(tmp_path / "20250102-030405-ceval_gen-tiny", {"law": "1"}, model="m" * 100)

    text = shown(list_runs(tmp_path), terminal=False)

    assert "m" * 100 in text
    assert "\x1b" not in text


def test_a_names_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    write_run(tmp_path / "r", {"law": "1"}, model="evil\x1b[2J\u202e")

    assert "evil\\x1b[2J\\u202e" in shown(list_runs(tmp_path))


def test_runs_of_the_same_second_are_shown_by_their_whole_names(tmp_path: Path) -> None:
    for name in ("20250102-030405-ceval_gen-a", "20250102-030405-ceval_gen-b"):
        write_run(tmp_path / name, {"law": "1"}, limit=1)

    text = shown(list_runs(tmp_path), terminal=False)

    assert "* 20250102-030405-ceval_gen-b, 20250102-030405-ceval_gen-a: first 1" in text
    assert "20250102-030405-ceval_gen-a" in text
    assert "20250102-030405-ceval_gen-b" in text


@pytest.mark.parametrize("results", [False, True])
def test_a_doubtful_measurement_is_marked(tmp_path: Path, *, results: bool) -> None:
    write_run(tmp_path / "20250102-030405-ceval_gen-good", {"law": "10101"}, results=results)
    write_run(tmp_path / "20250102-030406-ceval_gen-bad", {"law": "111-1"}, results=results)

    bad, good = list_runs(tmp_path)

    assert (bad.doubtful, good.doubtful, bad.to_json()["doubtful"]) == (True, False, True)
    text = shown([bad, good], terminal=False)
    assert "80.00?" in text.replace("*", "")
    assert "? doubtful measurement; `bundle report` says why: 20250102-030406" in text


def test_as_json_a_run_says_all_that_is_known_of_it(tmp_path: Path) -> None:
    write_run(tmp_path / "20250102-030405-ceval_gen-tiny", {"law": "11x"})

    told = json.loads(json.dumps(only(tmp_path).to_json()))

    assert told["run"] == "20250102-030405-ceval_gen-tiny"
    assert told["state"] == "incomplete"
    assert told["coverage"] == {"total": 3, "answered": 2}
    assert told["scores"] == [{"name": "mean of 1 of 52 subjects", "accuracy": 100.0, "stderr": 0.0, "whole": False}]


def test_a_failed_start_is_folded_away(tmp_path: Path) -> None:
    write_run(tmp_path / "20260101-000000-a", {"law": "1"})
    never = tmp_path / "20260102-000000-b"
    never.mkdir()
    (never / "predictions.jsonl").touch()
    runs = list_runs(tmp_path)

    assert "1 run ended before the first question: --failed lists them" in shown(runs)
    assert "20260102-000000" not in shown(runs)
    assert "never asked" in shown(runs, failed=True)


def test_a_run_is_deleted_by_its_full_name_only(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "20260101-000000-a", {"law": "1"})

    with pytest.raises(RunError, match="no run 20260101") as caught:
        remove_run(Path("20260101"), tmp_path)
    assert caught.value.remedy == "A run is deleted by its whole name: 20260101-000000-a."
    for other in ("tiny", "latest"):
        with pytest.raises(RunError) as of_other:
            remove_run(Path(other), tmp_path)
        assert of_other.value.remedy == caught.value.remedy
    assert remove_run(Path(directory.name), tmp_path) == directory
    assert not directory.exists()


def test_a_run_that_is_going_on_and_a_directory_that_is_none_are_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with Run.create(tmp_path, "label") as run:
        with pytest.raises(RunError, match="is still running"):
            remove_run(run.directory, tmp_path)
        with pytest.raises(RunError, match="no run other"):
            remove_run(Path("other"), tmp_path)
        assert run.directory.is_dir()
        assert (tmp_path / "other").is_dir()
