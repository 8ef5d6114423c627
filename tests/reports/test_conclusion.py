"""What is made of a run when it is over."""

from pathlib import Path

import pytest

from bundle.errors import RunError, UsageError
from bundle.reports.gates.conclusion import Conclusion, parse_conclusion
from bundle.runs.task_record import TaskRecord
from bundle.tasks.catalog import find_task
from tests.reports.run_directories import describe, write_run

TASK = find_task("ceval_gen")


def test_without_wishes_nothing_is_read_or_said(tmp_path: Path) -> None:
    said: list[str] = []

    assert Conclusion().conclude(tmp_path / "nowhere", 4, said.append) == 4
    assert said == []


def test_a_line_a_gate_is_said_and_the_exit_code_tells_of_them(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "r", {"law": "1100"})
    said: list[str] = []

    code = parse_conclusion(min_scores=["ceval-law=50"]).conclude(directory, 0, said.append)
    failed = parse_conclusion(min_scores=["ceval-law=60"]).conclude(directory, 0, said.append)

    assert (code, failed) == (0, 1)
    assert said == ["gate passed: ceval-law 50.00, required: 50", "gate failed: ceval-law 50.00, required: 60"]


def test_the_files_are_written_with_the_gates_and_the_comparison(tmp_path: Path) -> None:
    write_run(tmp_path / "before", {"law": "1111"})
    directory = write_run(tmp_path / "now", {"law": "1100"})
    wanted = parse_conclusion(
        baseline=Path("before"), max_drop=10, summary=tmp_path / "s.md", junit=tmp_path / "j.xml", out=tmp_path
    )

    assert wanted.conclude(directory, 0, lambda _: None) == 1
    assert "| 100.00 | −50.00 |" in (tmp_path / "s.md").read_text(encoding="utf-8")
    assert "<failure" in (tmp_path / "j.xml").read_text(encoding="utf-8")


@pytest.mark.parametrize("marks", ["11..", "xxxx", "...."])
def test_a_run_that_was_cut_off_has_files_that_say_so_and_keeps_its_exit_code(tmp_path: Path, marks: str) -> None:
    write_run(tmp_path / "before", {"law": "1111"})
    directory = write_run(tmp_path / "now", {"law": marks}, results=False)
    wanted = parse_conclusion(
        baseline=tmp_path / "before", max_drop=10, summary=tmp_path / "s.md", junit=tmp_path / "j.xml"
    )

    assert wanted.conclude(directory, 130, lambda _: None) == 130
    assert "of 4 questions answered ⚠️" in (tmp_path / "s.md").read_text(encoding="utf-8")
    assert 'errors="1"' in (tmp_path / "j.xml").read_text(encoding="utf-8")


def test_what_a_plan_cannot_have_is_refused_before_it_is_begun(tmp_path: Path) -> None:
    write_run(tmp_path / "before", {"law": "1111"})

    def planned(*, shape: str = TASK.shape, limit: int | None = None) -> list[TaskRecord]:
        return [TaskRecord.of(TASK, shape=shape, subjects=["law"], limit=limit)]

    score = parse_conclusion(min_scores=["ceval=50"])
    baseline = parse_conclusion(baseline=tmp_path / "before")

    baseline.require_possible(planned())
    with pytest.raises(UsageError, match="will have no score"):
        score.require_possible(planned())
    with pytest.raises(RunError, match="different numbers of questions per subject"):
        baseline.require_possible(planned(limit=5))
    with pytest.raises(RunError, match="different prompts"):
        baseline.require_possible(planned(shape="flat"))


def test_other_data_is_refused_once_it_is_loaded(tmp_path: Path) -> None:
    write_run(tmp_path / "before", {"law": "1111"})
    wanted = parse_conclusion(baseline=tmp_path / "before")
    record = describe(TASK, "new", ["law"])
    wanted.gates.require_comparable(record)

    other = record.tasks[0].model_copy(update={"data_fingerprint": "0" * 64})
    with pytest.raises(RunError, match="different questions"):
        wanted.gates.require_comparable(record.model_copy(update={"tasks": (other,)}))


@pytest.mark.parametrize("option", ["summary", "junit"])
@pytest.mark.parametrize("path", [".", "nowhere/file"])
def test_a_file_that_cannot_be_is_refused_at_once(tmp_path: Path, option: str, path: str) -> None:
    with pytest.raises(UsageError, match=f"--{option}"):
        parse_conclusion(**{option: tmp_path / path})


def test_a_baseline_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="--baseline: There is no run nothing"):
        parse_conclusion(baseline=Path("nothing"), out=tmp_path)
