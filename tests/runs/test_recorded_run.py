"""A run as its directory tells of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bundle.errors import RunError
from bundle.runs.predictions import read_predictions
from bundle.runs.recorded_run import read_recorded_run
from bundle.runs.run import Run
from bundle.runs.scoring import Score
from bundle.runs.statistics import Interval
from bundle.tasks.catalog import find_task
from tests.reports.run_directories import TIMING, random_outcomes, write_run

OUTCOMES = {"logic": "110", "law": "10-x."}


def test_scores_are_counted_again_and_are_those_of_the_results(tmp_path: Path) -> None:
    outcomes = random_outcomes(find_task("ceval_gen"), 0.6) | {"law": "110x"}

    run = read_recorded_run(write_run(tmp_path / "r", outcomes))

    written = json.loads((run.directory / "results.json").read_text(encoding="utf-8"))["scores"]
    assert run.scores == {
        name: Score(**one | {"interval": Interval(**one["interval"])}) for name, one in written.items()
    }
    assert list(run.scores)[:2] == ["ceval", "ceval-stem"]


def test_what_was_not_asked_and_what_has_no_reply_is_known_apart(tmp_path: Path) -> None:
    run = read_recorded_run(write_run(tmp_path / "r", OUTCOMES))

    assert (run.total, run.answered, run.failed) == (8, 6, 1)
    assert run.questions == {("ceval_gen", "val", "logic"): 3, ("ceval_gen", "val", "law"): 5}
    assert (run.model, run.timing) == ("tiny", TIMING)


def test_questions_and_scores_are_known_without_results(tmp_path: Path) -> None:
    run = read_recorded_run(write_run(tmp_path / "r", OUTCOMES, results=False))

    assert run.questions["ceval_gen", "val", "law"] == 5
    assert (run.results, run.timing, run.answered) == (None, {}, 6)


def test_subjects_and_their_groups_are_those_of_the_task_that_was_asked(tmp_path: Path) -> None:
    for name in ("ceval_gen", "cmmlu_gen"):
        task = find_task(name)
        run = read_recorded_run(write_run(tmp_path / name, {task.subjects[0].name: "1"}, task=task))

        assert run.tasks[0].subjects == task.subjects
        assert run.tasks[0].groups == task.groups


def test_predictions_are_in_the_order_of_the_task_whatever_order_they_were_answered_in(tmp_path: Path) -> None:
    outcomes = random_outcomes(find_task("ceval_gen"), 0.5, questions=2)
    forward = read_recorded_run(write_run(tmp_path / "a", outcomes))
    backward = read_recorded_run(write_run(tmp_path / "b", dict(reversed(outcomes.items()))))

    assert [one.key for one in backward.predictions] == [one.key for one in forward.predictions]
    assert [one.subject for one in forward.predictions][::2] == [one.name for one in find_task("ceval_gen").subjects]


def test_a_last_row_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = write_run(tmp_path / "r", OUTCOMES) / "predictions.jsonl"
    path.write_bytes(path.read_bytes()[:-20])

    run = read_recorded_run(path.parent)

    assert (run.total, run.answered, run.failed) == (8, 6, 0)


def test_of_several_rows_for_a_question_the_last_with_a_reply_counts(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "r", {"law": "1"}, results=False)
    (first,) = read_predictions(directory)
    with Run(directory) as run:
        run.append(replace(first, reply="B", answer="B", correct=False))
        run.append(replace(first, reply=None, answer=None, correct=None, error="HTTP 500"))

    (only,) = read_recorded_run(directory).predictions

    assert only.reply == "B"


def test_a_run_is_found_by_its_name_and_a_mistyped_one_is_answered_with_the_nearest(tmp_path: Path) -> None:
    write_run(tmp_path / "20250101-120000-ceval_gen-tiny", OUTCOMES)

    run = read_recorded_run(Path("20250101-120000-ceval_gen-tiny"), tmp_path)
    assert run.began.strftime("%Y-%m-%d %H:%M") == "2025-01-01 12:00"

    with pytest.raises(RunError) as caught:
        read_recorded_run(Path("20250101-120000-ceval-tiny"), tmp_path)
    assert caught.value.remedy == "Did you mean 20250101-120000-ceval_gen-tiny?"


def test_a_secret_split_has_counts_and_no_accuracy(tmp_path: Path) -> None:
    own = tmp_path / "both.toml"
    text = (Path(__file__).parents[2] / "configs" / "ceval_gen.toml").read_text(encoding="utf-8")
    own.write_text(text.replace('["val"]', '["val", "test"]'), encoding="utf-8")
    task = find_task(str(own))

    run = read_recorded_run(write_run(tmp_path / "r", {"val/law": "10", "test/law": "111x"}, task=task))

    assert run.scores["ceval-law"].accuracy == 50
    assert run.scores["ceval-test-law"] == Score(None, None, 4, 3)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("run.json", b"{", "run.json is damaged"),
        ("run.json", b'{"tasks": []}', "run.json is damaged"),
        ("run.json", b"[]", "run.json is damaged: not a JSON object"),
        ("results.json", b"[]", "results.json is damaged"),
        ("results.json", b"[" * 200_000, "is damaged: nested too deeply"),
        ("predictions.jsonl", b"{}\n", "predictions.jsonl, line 1, is damaged"),
        ("prompts.jsonl", b'{"subject": "law"}\n', "prompts.jsonl, line 1, is damaged"),
    ],
)
def test_what_is_damaged_is_named(tmp_path: Path, file: str, content: bytes, said: str) -> None:
    directory = write_run(tmp_path / "r", OUTCOMES)
    (directory / file).write_bytes(content)

    with pytest.raises(RunError, match=said) as caught:
        read_recorded_run(directory)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"reply": 5}, "line 2, is damaged: key 'reply': must be"),
        ({"subject": ["law"]}, "line 2, is damaged: key 'subject': must be"),
        ({"latency_s": "fast"}, "line 2, is damaged: key 'latency_s': must be"),
        ({"task": "other"}, "line 2: prompts.jsonl has no question other/val/"),
    ],
)
def test_a_row_that_this_program_did_not_write_is_named(tmp_path: Path, change: dict[str, object], said: str) -> None:
    path = write_run(tmp_path / "r", OUTCOMES) / "predictions.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows[1] |= change
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    with pytest.raises(RunError, match=said):
        read_recorded_run(path.parent)


def test_a_directory_without_a_record_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run that can be read"):
        read_recorded_run(tmp_path)
