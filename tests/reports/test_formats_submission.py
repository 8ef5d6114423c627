"""``bundle report RUN --format submission``: the file for C-Eval's site."""

import json
from pathlib import Path

import pytest

from bundle.errors import RunError
from bundle.reports.formats.submission import export
from bundle.runs.recorded_run import read_recorded_run
from tests.reports.run_directories import write_run


def test_every_question_of_the_test_split_is_there_and_nothing_is_guessed(tmp_path: Path) -> None:
    outcomes = {"val/law": "10", "test/law": "1-x.", "test/logic": "0"}
    run = read_recorded_run(write_run(tmp_path / "run", outcomes, task="ceval_gen_2daf24"))
    written = export(run)
    assert json.loads(written.files["submission.json"]) == {
        "logic": {"0": "B"},
        "law": {"0": "A", "1": "", "2": "", "3": ""},
    }
    assert written.remarks == ("submission.json: answers to 2 of 5 questions; no answer in 1 replies; no reply to 2",)


def test_what_is_no_option_is_no_answer(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run", {"test/law": "1"}, task="ceval_gen_2daf24")
    predictions = directory / "predictions.jsonl"
    predictions.write_text(predictions.read_text().replace('"answer":"A"', '"answer":"T"'))
    written = export(read_recorded_run(directory))
    assert json.loads(written.files["submission.json"]) == {"law": {"0": ""}}


def test_a_run_without_secret_answers_is_refused_and_the_task_named_that_has_them(tmp_path: Path) -> None:
    run = read_recorded_run(write_run(tmp_path / "run", {"law": "1"}))
    with pytest.raises(RunError, match="secret") as refused:
        export(run)
    assert "ceval_gen_2daf24" in str(refused.value.remedy)
