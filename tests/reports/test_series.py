"""Several runs beside each other, each compared with the first."""

import io
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bundle.reports.comparison import Standing, compare
from bundle.reports.comparison.series import Entry, compare_all, series_of, show
from bundle.reports.screen.output import console
from bundle.runs.recorded_run import RecordedRun, read_recorded_run
from bundle.runs.statistics import holm
from bundle.tasks.catalog import find_task
from tests.reports.run_directories import random_outcomes, write_run

TASK = find_task("ceval_gen")


def run(directory: Path, share: float, *, seed: int = 0, task: str = "ceval_gen") -> RecordedRun:
    outcomes = random_outcomes(find_task(task), share, seed=seed)
    return read_recorded_run(write_run(directory, outcomes, task=task))


def shown(entries: Sequence[Entry]) -> list[str]:
    stream = io.StringIO()
    show(console(stream, width=200), entries)
    return stream.getvalue().splitlines()


def test_every_run_is_compared_with_the_first_and_corrected_for_their_number(tmp_path: Path) -> None:
    runs = [run(tmp_path / str(number), share) for number, share in enumerate((0.5, 0.52, 0.8))]
    series = [Entry(f"step {number}", one) for number, one in enumerate(runs)]
    compare_all(series)

    rows = [compare(runs[0], other).overall[0] for other in runs[1:]]
    changes = [one.changes["ceval_gen", "val"] for one in series[1:]]
    assert [change.shown_p for change in changes] == holm([row.p for row in rows])
    assert [change.difference for change in changes] == [row.difference for row in rows]
    assert changes[1].standing is Standing.BETTER
    lines = shown(series)
    table = [line.split() for line in lines if line.startswith("step ")]
    assert [row[2] for row in table] == [f"{one.scores['ceval'].accuracy:.2f}" for one in runs]
    assert table[0][3] == f"{runs[0].scores['ceval-stem'].accuracy:.2f}"
    assert "better" in table[2]
    assert lines[-1] == "change and p (McNemar's exact test, corrected for 2 comparisons): against step 0"


def test_comparisons_with_one_base_are_a_series_and_runs_of_one_model_go_by_their_names(tmp_path: Path) -> None:
    base, first, again = (run(tmp_path / name, share) for name, share in (("a", 0.5), ("b", 0.6), ("c", 0.8)))
    comparisons = [compare(base, first), compare(base, again)]
    series = series_of(comparisons)

    assert [one.name for one in series] == [base.name, first.name, again.name]
    assert [one.comparison for one in series] == [None, *comparisons]
    assert [line.split()[0] for line in shown(series)[-4:-1]] == [base.name, first.name, again.name]


def test_runs_with_the_same_names_in_other_directories_are_not_taken_for_each_other(tmp_path: Path) -> None:
    base, worse, better = (run(tmp_path / name / "run", share) for name, share in (("a", 0.5), ("b", 0.3), ("c", 0.8)))
    series = series_of([compare(base, worse), compare(base, better)])

    assert [one.name for one in series] == [str(tmp_path / name / "run") for name in "abc"]
    assert [dict(one.changes) == {} for one in series] == [True, False, False]
    table = [line for line in shown(series) if line.startswith(str(tmp_path))]
    assert ["worse" in line for line in table] == [False, True, False]
    assert ["better" in line for line in table] == [False, False, True]


def test_on_a_narrow_terminal_groups_have_a_table_of_their_own_and_names_are_whole(tmp_path: Path) -> None:
    runs = [run(tmp_path / str(number), share) for number, share in enumerate((0.3, 0.6, 0.9))]
    names = [f"internlm2_5-1_8b-sft-step-{number}000" for number in (1, 2, 3)]
    entries = [Entry(*one) for one in zip(names, runs, strict=True)]
    compare_all(entries)
    stream = io.StringIO()
    show(Console(file=stream, width=80, force_terminal=True, color_system=None), entries)

    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if line.startswith("internlm") and " " in line] == names * 2


def test_what_has_no_score_is_named_with_its_reason_and_the_first_that_has_one_is_the_base(tmp_path: Path) -> None:
    entries = [Entry("a", None, "the server failed (exit code 3)"), Entry("b", run(tmp_path / "b", 0.5))]
    entries += [Entry("c", run(tmp_path / "c", 0.5))]
    compare_all(entries)

    assert [one.name for one in entries if one.comparison is not None] == ["c"]
    lines = shown(entries)
    assert "a: the server failed (exit code 3)" in lines
    assert lines[-2] == "change and p (McNemar's exact test): against b" or "against b" in "\n".join(lines)


def test_where_there_is_no_score_at_all_only_the_reasons_are_shown() -> None:
    assert shown([Entry("a", None, "not evaluated (exit code 2)")]) == ["a: not evaluated (exit code 2)"]


def test_a_part_is_marked_as_one(tmp_path: Path) -> None:
    part = read_recorded_run(write_run(tmp_path / "part", {"law": "1101", "logic": "0x11"}))
    lines = shown([Entry("part", part)])

    assert any(line.startswith("part") and "*" in line for line in lines)
    assert "* part: 2 of 52 subjects: 8 questions, 7 of 8 answered" in lines


def test_a_doubtful_measurement_is_said(tmp_path: Path) -> None:
    outcomes = {subject.name: "-" * 10 for subject in TASK.subjects}
    doubtful = read_recorded_run(write_run(tmp_path / "doubtful", outcomes))
    assert any(line.startswith("sft: measurement: DOUBTFUL") for line in shown([Entry("sft", doubtful)]))


def test_a_run_of_another_task_stays_uncompared_and_it_is_said_why(tmp_path: Path) -> None:
    entries = [Entry("one", run(tmp_path / "one", 0.5)), Entry("other", run(tmp_path / "other", 0.5, task="cmmlu_gen"))]
    compare_all(entries)

    assert entries[1].comparison is None
    assert any(line.startswith("other: The runs cannot be compared") for line in shown(entries))
