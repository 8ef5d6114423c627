"""``bundle report RUN --format opencompass``: as OpenCompass 0.3.3 writes it and reads it."""

import csv
import json
from pathlib import Path

import pytest

from bundle.errors import RunError
from bundle.reports.formats.opencompass import export, prompt_version
from bundle.runs.files import PREDICTIONS
from bundle.runs.predictions import Prediction
from bundle.runs.recorded_run import RecordedRun, read_recorded_run
from bundle.runs.task_record import TaskRecord
from bundle.tasks.catalog import find_task
from tests.reports.opencompass_specimens import SPECIMENS, STAMP
from tests.reports.other_programs import ask
from tests.reports.run_directories import write_run
from tests.reports.sample_run import sample_run, without_reply

DIRECTORY = "20260102-030405-run"
"""A run's name with the time that stands in the specimens."""


def specimen(name: str) -> str:
    return (SPECIMENS / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RecordedRun:
    return sample_run(tmp_path_factory.mktemp("whole") / DIRECTORY)


def with_gaps(directory: Path) -> RecordedRun:
    """One question of law was asked in vain, and those of the physician were not got to."""

    def outcome(one: Prediction) -> Prediction | None:
        if one.subject == "physician":
            return None
        return without_reply(one) if (one.subject, one.id) == ("law", 0) else one

    return sample_run(directory, outcome=outcome)


def rows(text: str) -> dict[str, list[str]]:
    return {row[0]: row[1:] for row in csv.reader(text.splitlines())}


def test_the_same_replies_to_the_same_questions_make_the_same_files_byte_for_byte(whole: RecordedRun) -> None:
    files = export(whole).files
    assert files[f"summary/summary_{STAMP}.txt"] == specimen("opencompass_summary.txt")
    assert files[f"summary/summary_{STAMP}.csv"] == specimen("opencompass_summary.csv")
    assert files["predictions/simulated/ceval-law.json"] == specimen("opencompass_predictions_turns.json")
    assert files["results/simulated/ceval-law.json"] == specimen("opencompass_results.json")
    assert len(files) == 2 * 52 + 2


@pytest.mark.parametrize("shape", ["flat", "plain"])
def test_a_prompt_in_one_message_is_the_text_alone(tmp_path: Path, shape: str) -> None:
    run = sample_run(tmp_path / DIRECTORY, subjects=["law"], shape=shape)
    files = export(run).files
    assert files["predictions/simulated/ceval-law.json"] == specimen("opencompass_predictions_flat.json")


@pytest.mark.parametrize("name", json.loads(specimen("opencompass_versions.json")))
def test_the_version_is_the_hash_that_opencompass_makes_of_its_own_prompt(name: str) -> None:
    task = find_task(name)
    record = TaskRecord.of(task, shape=task.shape)
    versions = {
        task.score_name(split, subject.name): prompt_version(record, subject.chinese)
        for split in task.splits
        for subject in task.subjects
    }
    recorded: dict[str, str] = json.loads(specimen("opencompass_versions.json"))[name]
    assert {key: versions[key] for key in recorded} == recorded


def test_a_question_without_a_reply_is_left_out_and_its_subject_has_no_accuracy(tmp_path: Path) -> None:
    written = export(with_gaps(tmp_path / DIRECTORY))
    law = json.loads(written.files["predictions/simulated/ceval-law.json"])
    assert list(law) == ["1"]
    assert json.loads(written.files["results/simulated/ceval-law.json"]) == {"error": "1 of 2 questions has no reply"}
    assert "predictions/simulated/ceval-physician.json" not in written.files
    table = rows(written.files[f"summary/summary_{STAMP}.csv"])
    assert table["ceval-law"] == table["ceval-physician"] == ["-"] * 4
    assert {"ceval-humanities", "ceval-other", "ceval"}.isdisjoint(table)
    assert table["ceval-stem"] == rows(specimen("opencompass_summary.csv"))["ceval-stem"]
    assert (
        "ceval-humanities: {'error': \"missing metrics: ['ceval-law']\"}"
        in written.files[f"summary/summary_{STAMP}.txt"]
    )
    assert written.remarks == (
        "3 of 104 questions have no reply: OpenCompass's format cannot express that, so 2 of 52 subjects and their "
        "groups have no accuracy in it",
    )


def test_secret_answers_have_predictions_and_no_accuracy(tmp_path: Path) -> None:
    outcomes = {"val/law": "10", "test/law": "11"}
    run = read_recorded_run(write_run(tmp_path / DIRECTORY, outcomes, task="ceval_gen_2daf24"))
    written = export(run)
    assert json.loads(written.files["results/tiny/ceval-law.json"]) == {"accuracy": 50.0}
    assert "results/tiny/ceval-test-law.json" not in written.files
    predictions = json.loads(written.files["predictions/tiny/ceval-test-law.json"])
    assert [one["prediction"] for one in predictions.values()] == ["A", "A"]
    assert all("gold" not in one for one in predictions.values())
    assert rows(written.files[f"summary/summary_{STAMP}.csv"])["ceval-test-law"] == ["-"] * 4
    assert "1 of 2 subjects have secret answers" in written.remarks[0]


def test_tasks_that_share_names_have_a_working_directory_each(tmp_path: Path) -> None:
    run = sample_run(tmp_path / DIRECTORY, ["ceval_gen", "ceval_zero_shot_gen"], subjects=["law"])
    files = export(run).files
    assert {name.split("/")[0] for name in files} == {"ceval_gen", "ceval_zero_shot_gen"}
    five = json.loads(files["ceval_gen/predictions/simulated/ceval-law.json"])["0"]["origin_prompt"]
    none = json.loads(files["ceval_zero_shot_gen/predictions/simulated/ceval-law.json"])["0"]["origin_prompt"]
    assert (len(five), len(none)) == (11, 1)


def test_names_from_elsewhere_stay_in_the_directory(tmp_path: Path) -> None:
    run = read_recorded_run(write_run(tmp_path / DIRECTORY, {"law": "1"}, model="../org/模型, v1"))
    files = export(run).files
    assert "results/_org_模型_v1/ceval-law.json" in files
    assert files[f"summary/summary_{STAMP}.csv"].startswith("dataset,version,metric,mode,_org_模型_v1\n")


def test_two_subjects_that_would_be_one_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("question,answer,kind\n1?,A,a;b\n2?,B,a:b\n", encoding="utf-8")
    (tmp_path / "own.toml").write_text(
        'description = "own"\nrows = { file = "own.csv", subject = "kind" }\n'
        'prompt = { user = "{question}", examples = 0 }\nanswer = { rule = "first_capital" }\n',
        encoding="utf-8",
    )
    task = find_task(str(tmp_path / "own.toml"))
    run = read_recorded_run(write_run(tmp_path / DIRECTORY, {"a:b": "1"}, task=task))
    assert "results/tiny/own-a_b.json" in export(run).files
    both = read_recorded_run(write_run(tmp_path / "both", {"a:b": "1", "a;b": "1"}, task=task))
    with pytest.raises(RunError, match=r"own-a_b\.json"):
        export(both)


def test_what_an_earlier_export_left_and_is_no_longer_true_is_removed(tmp_path: Path) -> None:
    for outcomes in ({"law": "10", "logic": "1"}, {"law": "10", "logic": "x"}):
        directory = tmp_path / outcomes["logic"] / DIRECTORY
        export(read_recorded_run(write_run(directory, outcomes))).write(
            tmp_path / "out", is_directory=True, run=tmp_path
        )
    assert [path.name for path in (tmp_path / "out" / "predictions" / "tiny").iterdir()] == ["ceval-law.json"]


def test_a_lone_surrogate_in_a_reply_is_no_hindrance(tmp_path: Path) -> None:
    directory = write_run(tmp_path / DIRECTORY, {"law": "1"}, replies={("law", 0): "A 好 \ud83d"})
    assert (directory / PREDICTIONS).exists()
    written = export(read_recorded_run(directory))
    written.write(tmp_path / "out", is_directory=True, run=tmp_path)
    text = (tmp_path / "out" / "predictions" / "tiny" / "ceval-law.json").read_text(encoding="utf-8")
    assert json.loads(text)["0"]["prediction"] == "A 好 \ud83d"


@pytest.mark.slow
def test_opencompass_itself_scores_and_summarizes_the_files_to_the_same(whole: RecordedRun, tmp_path: Path) -> None:
    exports = {tmp_path / "whole": export(whole)}
    exports[tmp_path / "gaps"] = export(with_gaps(tmp_path / DIRECTORY))
    for directory, written in exports.items():
        written.write(directory, is_directory=True, run=tmp_path)
    subjects = ("law", "logic", "college_economics")
    answers = ask("opencompass", "tests.reports.read_by_opencompass", "simulated", ",".join(subjects), *exports)
    for read, written in zip(answers, exports.values(), strict=True):
        ours = {one: json.loads(written.files[f"results/simulated/ceval-{one}.json"]) for one in subjects}
        assert ours["college_economics"] == {"accuracy": 100.0}
        # Its evaluation ends with an error where a prediction is missing, and leaves no result.
        assert read["results"] == {one: None if "error" in result else result for one, result in ours.items()}
        assert read["summary"]["csv"] == written.files[f"summary/summary_{STAMP}.csv"]
        assert read["summary"]["txt"].replace("anew", STAMP) == written.files[f"summary/summary_{STAMP}.txt"]
