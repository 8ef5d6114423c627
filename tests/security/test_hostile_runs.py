"""A run directory may come from anyone: it hangs no command, leads no write elsewhere and hides no other run."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bundle.cli.main import app
from bundle.errors import RunError
from bundle.reports.formats import FORMATS
from bundle.reports.screen.output import console
from bundle.reports.screen.run_table import show_runs
from bundle.runs.files import write_json
from bundle.runs.listing import State, list_runs
from bundle.runs.recorded_run import read_recorded_run
from bundle.runs.results import Results
from bundle.runs.run import Run
from tests.reports.run_directories import write_run

NAMES = ("run.json", "prompts.jsonl", "predictions.jsonl", "results.json")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10**12)  # a hole, it takes no space


IN_PLACE_OF_A_FILE: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "directory": Path.mkdir,
    "link to nothing": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "terabyte": sparse,
    "empty": lambda path: path.write_bytes(b""),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\n"),
    "nested": lambda path: path.write_bytes(b"[" * 100_000 + b"\n"),
}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name in ("20250101-000000-damaged", "20250102-000000-sound"):
        write_run(tmp_path / name, {"law": "10"})
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", IN_PLACE_OF_A_FILE)
def test_whatever_is_in_place_of_a_run_s_file_is_an_error_of_that_run_alone(name: str, kind: str, runs: Path) -> None:
    damaged = runs / "20250101-000000-damaged"
    (damaged / name).unlink()
    IN_PLACE_OF_A_FILE[kind](damaged / name)

    with pytest.raises(RunError) as caught:
        read_recorded_run(damaged)
    assert name in caught.value.message
    assert caught.value.remedy

    listed = {run.directory.name: run.state for run in list_runs(runs)}
    assert listed["20250102-000000-sound"] is State.DONE
    assert (listed["20250101-000000-damaged"] is State.DAMAGED) == (name != "prompts.jsonl")
    assert CliRunner().invoke(app, ["runs", "--out", str(runs)]).exit_code == 0


@pytest.mark.parametrize("kind", IN_PLACE_OF_A_FILE)
def test_a_run_whose_replies_are_no_file_is_not_resumed(kind: str, runs: Path) -> None:
    damaged = runs / "20250101-000000-damaged"
    (damaged / "results.json").unlink()
    (damaged / "predictions.jsonl").unlink()
    IN_PLACE_OF_A_FILE[kind](damaged / "predictions.jsonl")
    if kind == "empty":
        with Run.resume(damaged) as run:
            assert run.known == 0
    else:
        with pytest.raises(RunError, match=r"predictions\.jsonl"):
            Run.resume(damaged)


def test_rows_are_not_appended_to_what_a_link_leads_to(runs: Path) -> None:
    elsewhere, predictions = runs / "elsewhere", runs / "20250101-000000-damaged/predictions.jsonl"
    predictions.rename(elsewhere)
    predictions.symlink_to(elsewhere)
    before = elsewhere.read_bytes()

    assert read_recorded_run(predictions.parent).answered == 2
    with pytest.raises(RunError, match="it is a symbolic link"):
        Run.resume(predictions.parent)
    assert elsewhere.read_bytes() == before


@pytest.mark.parametrize("name", [".run.json.part", "run.json"])
def test_no_file_is_written_through_a_link(name: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("precious")
    (tmp_path / name).symlink_to("elsewhere")
    write_json(tmp_path / "run.json", {"a": 1})
    assert (tmp_path / "elsewhere").read_text() == "precious"
    assert json.loads((tmp_path / "run.json").read_text()) == {"a": 1}
    assert not (tmp_path / "run.json").is_symlink()


def test_a_report_is_not_written_through_a_link_in_the_run_s_directory(runs: Path) -> None:
    (runs / "elsewhere").write_text("precious")
    run = runs / "20250102-000000-sound"
    (run / "report.html").symlink_to("../elsewhere")
    outcome = CliRunner().invoke(app, ["report", str(run)])
    assert outcome.exit_code == 0
    assert (runs / "elsewhere").read_text() == "precious"
    assert "<html" in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "linked", ["opencompass", "opencompass/predictions", "opencompass/predictions/tiny/ceval-law.json"]
)
def test_nor_are_the_files_of_a_format(linked: str, runs: Path) -> None:
    run = runs / "20250102-000000-sound"
    elsewhere = runs / "elsewhere"
    if linked.endswith(".json"):
        elsewhere.write_text("precious")
    else:
        elsewhere.mkdir()
    (run / linked).parent.mkdir(parents=True, exist_ok=True)
    (run / linked).symlink_to(elsewhere)
    assert CliRunner().invoke(app, ["report", str(run), "--format", "opencompass"]).exit_code == 0
    assert (elsewhere.read_text() == "precious") if elsewhere.is_file() else not list(elsewhere.iterdir())
    assert (run / "opencompass/predictions/tiny/ceval-law.json").is_file()


def test_a_pipe_in_place_of_a_report_is_not_waited_for(runs: Path) -> None:
    run = runs / "20250102-000000-sound"
    os.mkfifo(run / "report.html")
    with pytest.raises(RunError, match=r"report\.html cannot be written"):
        FORMATS["html"].write(read_recorded_run(run), run / "report.html")


def change(path: Path, **values: Any) -> None:
    """Change the first row of a run's file, or its only object."""
    first, *others = path.read_text(encoding="utf-8").splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    content = json.loads(first)
    for name, value in values.items():
        inner = content
        *outer, last = name.split("__")
        for key in outer:
            inner = inner[key]
        inner[last] = value
    path.write_text("\n".join([json.dumps(content), *others]) + "\n", encoding="utf-8")


HUGE = 10**4000
CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"latency_s": float("nan")}, "NaN is not a number"),
    ({"latency_s": float("inf")}, "Infinity is not a number"),
    ({"latency_s": HUGE}, "a number is too large"),
    ({"latency_s": -1.0}, "key 'latency_s': must be at least 0"),
    ({"latency_s": "1"}, "key 'latency_s': must be a valid number"),
    ({"prompt_tokens": HUGE}, "a number is too large"),
    ({"prompt_tokens": 1.0}, "key 'prompt_tokens': must be a valid integer"),
    ({"completion_tokens": -1}, "key 'completion_tokens': must be at least 0"),
    ({"id": True}, "key 'id': must be a valid integer"),
    ({"id": "0"}, "key 'id': must be a valid integer"),
    ({"id": [0]}, "key 'id': must be a valid integer"),
    ({"attempts": True}, "key 'attempts': must be a valid integer"),
    ({"decided_early": 0}, "key 'decided_early': must be a valid boolean"),
    ({"correct": 1}, "key 'correct': must be a valid boolean"),
    ({"correct": False}, "its reply, answer, gold and correct contradict each other"),
    ({"correct": None}, "its reply, answer, gold and correct contradict each other"),
    ({"gold": ""}, "its reply, answer, gold and correct contradict each other"),
    ({"reply": None}, "its reply, answer, gold and correct contradict each other"),
    ({"error": "HTTP 500"}, "it has both an error and a reply"),
    ({"id": 7}, "prompts.jsonl has no question"),
]


@pytest.mark.parametrize(("values", "fault"), CHANGES)
def test_a_row_is_read_as_strictly_as_it_is_written(values: dict[str, Any], fault: str, runs: Path) -> None:
    predictions = runs / "20250101-000000-damaged/predictions.jsonl"
    change(predictions, **values)
    with pytest.raises(RunError) as caught:
        read_recorded_run(predictions.parent)
    assert f"{predictions}, line 1" in caught.value.message
    assert fault in caught.value.message


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 5000, "1e-99999"])
def test_numbers_that_json_allows_and_computers_do_not(number: str, runs: Path) -> None:
    predictions = runs / "20250101-000000-damaged/predictions.jsonl"
    change(predictions, latency_s=123)
    predictions.write_text(predictions.read_text().replace("123", number))
    if number == "1e-99999":  # it is 0
        assert read_recorded_run(predictions.parent).predictions[0].latency_s == 0
    else:
        with pytest.raises(RunError, match=r"predictions\.jsonl, line 1, is damaged: a number is too large"):
            read_recorded_run(predictions.parent)


@pytest.mark.parametrize(
    "values",
    [
        {"timing__total_s": float("nan")},
        {"timing__total_s": float("inf")},
        {"timing__total_s": 10**4000},
        {"timing__total_s": 1e300},
        {"timing__total_s": -1},
        {"timing__total_s": "44"},
        {"coverage__total": 10**4000},
        {"coverage__total": "2"},
        {"coverage__total": True},
        {"coverage__answered": -2},
        {"tokens__prompt": float("nan")},
        {"tokens__prompt": 1.5},
        {"scores": []},
        {"scores__ceval-law__accuracy": float("nan")},
        {"scores__ceval-law__accuracy": 10**400},
        {"scores__ceval-law__n": "x"},
        {"server__restarts": float("inf")},
    ],
    ids=lambda values: str(values)[:50],
)
def test_results_are_read_as_strictly_as_they_are_written(values: dict[str, Any], runs: Path) -> None:
    results = runs / "20250101-000000-damaged/results.json"
    change(results, **values)
    with pytest.raises(RunError, match=r"results\.json"):
        Results.read(results.parent)
    damaged = list_runs(runs)[1]
    assert (damaged.state, "results.json" in (damaged.fault or "")) == (State.DAMAGED, True)
    show_runs(console(open(os.devnull, "w"), width=80), list_runs(runs))  # noqa: PTH123, SIM115


@pytest.mark.parametrize("value", [float("nan"), 10**4000, "many", None])
def test_a_record_is_read_as_strictly_as_it_is_written(value: object, runs: Path) -> None:
    record = runs / "20250101-000000-damaged/run.json"
    change(record, concurrency=value)
    with pytest.raises(RunError, match=r"run\.json"):
        read_recorded_run(record.parent)
    assert [run.state for run in list_runs(runs)] == [State.DONE, State.DAMAGED]


@pytest.mark.parametrize("name", ["00010101-000000-x", "99991231-235959-x", "20251332-000000-x"])
@pytest.mark.parametrize("age", [0, -(10**11), 10**12])
def test_a_time_that_is_none_hides_no_run(name: str, age: int, tmp_path: Path) -> None:
    write_run(tmp_path / name, {"law": "10"})
    os.utime(tmp_path / name / "run.json", (age, age))
    os.utime(tmp_path / name, (age, age))
    assert [run.state for run in list_runs(tmp_path)] == [State.DONE]


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "\ud800", "a/" * 3000])
def test_a_name_that_no_directory_can_have_is_an_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="There is no run"):
        read_recorded_run(Path(name), tmp_path)
