"""``bundle report RUN --format …`` as a user types it."""

import json
import os
from pathlib import Path

import pytest

from tests.program import call
from tests.reports.run_directories import write_run

REAL = {"data": {"source": "hub", "origin": "hub ceval/ceval-exam", "fingerprint": "f" * 64}}
OUTCOMES = {"val/law": "11x", "test/law": "1"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_run(tmp_path / "outputs" / "20260102-030405-run", OUTCOMES, task="ceval_gen_2daf24", record=REAL)


@pytest.mark.parametrize(
    ("name", "written", "remark"),
    [
        ("opencompass", "opencompass/summary/summary_20260102_030405.csv", "1 of 4 questions has no reply"),
        ("model-card", "model-card.md", "1 of 4 questions has no reply"),
        ("submission", "submission.json", "answers to 1 of 1 questions"),
        ("markdown", "summary.md", ""),
        ("junit", "junit.xml", ""),
    ],
)
def test_files_come_into_the_runs_directory_and_what_they_lack_is_said(
    directory: Path, name: str, written: str, remark: str
) -> None:
    allowed = ["--allow-partial"] if name == "model-card" else []
    result = call("report", directory, "--format", name, *allowed, environment=os.environ)
    assert result.returncode == 0, result.stderr
    assert "partial: 1 of 52 subjects: 4 questions, 3 of 4 answered" in result.stderr
    assert (directory / written).is_file()
    assert result.stdout.strip() == str(directory / written.split("/")[0])
    assert remark in result.stderr


@pytest.mark.parametrize("name", ["opencompass", "model-card"])
def test_a_doubtful_measurement_is_said_where_the_files_do_not(tmp_path: Path, name: str) -> None:
    replies = {("law", number): "" for number in range(30)}
    run = write_run(tmp_path / "20260102-030405-run", {"law": "-" * 30}, replies=replies, record=REAL)

    result = call("report", run, "--format", name, "--allow-partial", environment=os.environ)

    assert "measurement: DOUBTFUL, no option found in 30 of 30 replies (100.0 %)" in result.stderr


def test_a_model_card_of_a_part_of_the_benchmark_is_refused(directory: Path) -> None:
    result = call("report", directory, "--format", "model-card", environment=os.environ)
    assert result.returncode == 2
    assert "covers only a part of the benchmark: 1 of 52 subjects" in result.stderr
    assert "--allow-partial" in result.stderr
    assert not (directory / "model-card.md").exists()


def test_a_place_of_ones_own_is_taken(directory: Path, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere" / "answers.json"
    result = call("report", directory, "--format", "submission", "-o", place, environment=os.environ)
    assert result.returncode == 0, result.stderr
    assert json.loads(place.read_text()) == {"law": {"0": "A"}}


def test_the_run_is_looked_for_where_out_says(directory: Path, tmp_path: Path) -> None:
    result = call(
        "report", "--out", directory.parent, "--format", "markdown", environment=os.environ, directory=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(directory / "summary.md")


def test_a_place_that_cannot_be_written_is_an_error_with_a_remedy(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = call("report", directory, "--format", "opencompass", "-o", tmp_path / "file", environment=os.environ)
    assert result.returncode == 2
    assert "cannot be written" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_file_given_as_the_directory_of_runs_is_told_how_a_report_is_named(tmp_path: Path) -> None:
    write_run(tmp_path / "outputs" / "run", {"law": "1"})
    result = call("report", "--out", "page.html", environment=os.environ, directory=tmp_path)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == "hint: To write the report there: -o page.html."


def test_a_file_may_go_to_standard_output_and_a_directory_of_files_may_not(directory: Path) -> None:
    written = call("report", directory, "--format", "markdown", "-o", "-", environment=os.environ)
    assert written.stdout.startswith("### `ceval_gen_2daf24`: ")
    assert written.stdout.endswith(".\n"), "and nothing else"
    several = call("report", directory, "--format", "opencompass", "-o", "-", environment=os.environ)
    assert (several.returncode, several.stdout) == (2, "")
    assert "is a directory of files" in several.stderr
