"""From measurements to tables."""

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.parameters import FOLDER, read_parameters
from benchmarks.peers.run import write_prompts
from benchmarks.processes import measure
from benchmarks.questions import write_questions
from benchmarks.scenarios import COMMAND_S, SCENARIOS, TARGETS, outcomes
from benchmarks.tables import bundle_summary, peers_summary, update_document
from tests.patience import PATIENCE_S


def measured(accuracy: float = 25.0, **median: float) -> dict[str, Any]:
    usual = {"wall_s": 4.0, "cpu_s": 3.0, "peak_mb": 100.0, "ask_s": 2.0}
    shares = {"slots_busy": 0.5, "prefix_hits": 0.5, "tokens_generated": 10, "server_cpu_s": 0.1}
    return {
        "median": {**usual, **shares, **median},
        "ideal": {"whole_s": 1.0, "cut_s": 0.5},
        "runs": [{"scores": {"ceval": accuracy}}],
    }


def results(*, start: tuple[float, float] | None = None, **scenarios: dict[str, Any]) -> dict[str, Any]:
    return {
        "at": "2030-01-02T03:04:05+00:00",
        "machine": {"processor": "P", "cores": 2, "memory_gb": 8.0, "system": "Linux", "python": "3.11"},
        "versions": {"bundle": "0"},
        "runs": 1,
        "load": 0.4,
        "start": {"help_s": start[0], "command_s": start[1]} if start else {},
        "scenarios": scenarios,
        "not_run": {},
    }


def test_every_parameter_file_can_be_read_and_every_scenario_and_target_names_one() -> None:
    assert {read_parameters(path) is not None for path in FOLDER.glob("*.toml")} == {True}
    for scenario in SCENARIOS:
        read_parameters(scenario.server)
    assert {target.scenario for target in TARGETS} <= {scenario.name for scenario in SCENARIOS}


def test_a_target_is_a_limit_in_its_own_unit_or_in_times_the_ideal() -> None:
    reached = {
        one.text: one.reached for one in outcomes(results(no_latency=measured(wall_s=5.1), small_model=measured()))
    }
    assert reached["1,346 questions at once, whole process: seconds"] is False
    assert reached["1,346 questions at once, whole process: CPU seconds"] is True
    assert reached["small model, asking: times the ideal"] is True
    assert "13,688 questions at once, whole process: seconds" not in reached


def test_what_one_more_question_costs_comes_from_two_sizes() -> None:
    found = outcomes(results(no_latency=measured(cpu_s=2.0), no_latency_all=measured(cpu_s=2.0 + 12.342)))
    (one,) = [one for one in found if one.text.startswith("CPU milliseconds a question")]
    assert (one.measured, one.reached) == ("1", True)


@pytest.mark.parametrize("accuracy", [25.0, 25.1])
def test_early_decisions_must_not_change_a_score(accuracy: float) -> None:
    found = outcomes(results(explaining=measured(), explaining_full=measured(accuracy)))
    (one,) = [one for one in found if one.text.startswith("scores")]
    assert one.reached == (accuracy == 25.0)


def test_the_tables_replace_what_was_between_the_marks(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text("before\n<!-- begin bundle -->\nold\n<!-- end bundle -->\nafter\n")
    text = bundle_summary(results(no_latency=measured(), no_latency_all=measured()))
    for _ in range(2):
        update_document("bundle", text, document)
    assert document.read_text() == f"before\n<!-- begin bundle -->\n{text}\n<!-- end bundle -->\nafter\n"
    with pytest.raises(ValueError, match="no section marked"):
        update_document("peers", text, document)


def test_the_start_command_must_come_soon_enough() -> None:
    for seconds in (COMMAND_S / 2, COMMAND_S * 2):
        (one,) = (one for one in outcomes(results(start=(0.1, seconds))) if "start command" in one.text)
        assert one.reached == (seconds < COMMAND_S)


def test_the_table_of_programs_names_the_machine_its_load_and_what_was_not_measured() -> None:
    one = {name: measured() for name in ("no_latency", "explaining")}
    text = peers_summary({**results(), "peers": {"bundle": one}, "not_run": {"other": "cannot be installed"}})
    assert "2030-01-02: P, 2 cores, 8.0 GB, Linux, Python 3.11, load average 0.4 at the start; bundle 0." in text
    assert "| bundle | explaining | 4.0 | 3.0 | 100 | 2.00 | 2.00 |" in text
    assert "Not measured: other: cannot be installed." in text


def test_a_process_is_measured_with_its_exit_code_and_killed_when_it_takes_too_long(tmp_path: Path) -> None:
    busy = "import time\nwhile time.process_time() < 0.2: pass\nprint('done')\nraise SystemExit(3)"
    usage = measure([sys.executable, "-c", busy], tmp_path / "log")
    assert usage.exit_code == 3
    assert usage.wall_s >= 0.2
    assert usage.cpu_s >= 0.2
    assert usage.peak_mb > 1  # at most what this process had when it started that one, which Linux counts in
    assert (tmp_path / "log").read_text() == "done\n"

    started = time.monotonic()
    assert (
        measure([sys.executable, "-c", "import time; time.sleep(600)"], tmp_path / "log", timeout_s=0.3).exit_code == -9
    )
    assert time.monotonic() - started < PATIENCE_S


def test_prompts_for_other_programs_have_five_examples_of_the_questions_subject(tmp_path: Path) -> None:
    write_questions(tmp_path)
    write_prompts(tmp_path, tmp_path / "prompts.jsonl")
    lines = (tmp_path / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1346
    assert all(line.count('"role": "user"') == 6 and line.count('"role": "assistant"') == 5 for line in lines)
