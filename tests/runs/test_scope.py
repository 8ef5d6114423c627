"""A part of a benchmark is called a part."""

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from bundle.errors import UsageError
from bundle.reports.comparison import compare
from bundle.reports.comparison.page import render_page as comparison_page
from bundle.reports.comparison.page import to_json
from bundle.reports.comparison.terminal import show
from bundle.reports.formats.junit import junit
from bundle.reports.formats.markdown import summary
from bundle.reports.gates.conclusion import parse_conclusion
from bundle.reports.html.content import sections
from bundle.reports.html.page import render_page
from bundle.reports.screen.output import console
from bundle.reports.screen.run_table import show_runs
from bundle.runs.listing import list_runs
from bundle.runs.predictions import Prediction
from bundle.runs.recorded_run import read_recorded_run
from bundle.runs.same_settings import require_same
from bundle.runs.scope import Scope, planned_selection, scope_text, task_scopes
from bundle.runs.scoring import headlines
from bundle.runs.statistics import Counts, accuracy_interval
from bundle.runs.task_record import TaskRecord
from bundle.tasks.catalog import Task, find_task
from bundle.tasks.sources import Tables
from tests.reports.run_directories import describe, write_run
from tests.reports.sample_run import sample_run

TASK = find_task("ceval_gen")


def of_task(
    size: int | None = 26,
    unlike: Mapping[str, tuple[int, int]] = MappingProxyType({}),
    **fields: Any,
) -> TaskRecord:
    rows: dict[tuple[str, str], list[dict[str, str]]] = {(one.name, "val"): [{}] * (size or 0) for one in TASK.subjects}
    tables = Tables("hub", "hub", rows, "0" * 64, unlike)
    return TaskRecord.of(TASK, shape="turns", tables=tables, **fields)


def scope_of(task: TaskRecord, asked: int, answered: int) -> Scope:
    part = (task.name, "val", "law")
    return task_scopes([task], {part: asked}, {part: answered})[task.name]


@pytest.mark.parametrize(
    ("fields", "asked", "answered", "text"),
    [
        ({}, 1352, 1352, ""),
        ({"limit": 5}, 260, 260, "first 5 of each subject: 260 of 1,352"),
        ({"limit": 100}, 1352, 1352, ""),
        ({"sample": 5}, 260, 260, "5 drawn from each subject: 260 of 1,352"),
        ({"subjects": ["law", "logic"]}, 52, 52, "2 of 52 subjects: 52 questions"),
        ({"limit": 1, "subjects": ["law"]}, 1, 1, "first 1 of each subject, 1 of 52 subjects: 1 of 26"),
        ({}, 1352, 1300, "1,300 of 1,352 answered"),
        (
            {"unlike": {"val/law": (26, 24)}},
            1352,
            1352,
            "data not as published (val/law 26/24 questions): 1,352 questions",
        ),
        ({"unlike": {"\x1b[31m": (1, 2)}}, 5, 5, r"data not as published (\x1b[31m 1/2 questions): 5 of 1,352"),
        ({"limit": 5}, 260, 259, "first 5 of each subject: 260 of 1,352, 259 of 260 answered"),
        ({"source": "sample"}, 1352, 1352, "1,352 sample questions"),
        (
            {"source": "sample", "limit": 1},
            52,
            51,
            "first 1 of each subject: 52 of 1,352 sample questions, 51 of 52 answered",
        ),
    ],
)
def test_what_was_asked_is_said_in_words(fields: dict[str, Any], asked: int, answered: int, text: str) -> None:
    scope = scope_of(of_task(**fields), asked, answered)
    assert scope.text == text
    assert scope.is_partial is bool(text)


def test_an_older_record_does_not_know_how_many_there_are() -> None:
    assert scope_of(of_task(None, limit=5), 260, 260).text == "first 5 of each subject: 260 questions"


def test_tasks_of_one_run_have_their_own_scopes() -> None:
    whole, part = scope_of(of_task(), 1352, 1352), scope_of(of_task(limit=5), 260, 260)
    assert scope_text({"a": whole, "b": part}) == "b: first 5 of each subject: 260 of 1,352"
    assert scope_text({"a": whole}) == ""


def test_older_records_can_be_resumed() -> None:
    record = describe(TASK, "m")
    older = record.model_copy(update={"tasks": (record.tasks[0].model_copy(update={"available": None}),)})
    known = {"available": 1345, "unlike_published": {"val/law": (23, 24)}}
    newer = record.model_copy(update={"tasks": (record.tasks[0].model_copy(update=known),)})
    require_same(older, newer)


def test_a_partial_run_is_called_that_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    run = read_recorded_run(write_run(tmp_path / "20260102-030405-x", {"law": "11", "logic": "1x"}, limit=2))
    text = "first 2 of each subject, 2 of 52 subjects: 4 questions, 3 of 4 answered"
    assert run.partial == text
    assert f"⚠️ **Partial**: `{text}`" in summary(run)
    assert f'<property name="partial" value="{text}"' in junit(run)
    page = render_page(run)
    assert "first 2 of each subject</span>" in page
    assert "2 of 52 subjects</span>" in page
    (listed,) = list_runs(tmp_path)
    assert (listed.partial, listed.to_json()["partial"]) == (text, text)
    show_runs(console(sys.stdout, width=500), [listed])
    shown = capsys.readouterr().out
    assert "100.00*" in shown
    assert f"* 20260102-030405: {text}" in shown


def test_a_comparison_of_parts_is_called_that_everywhere(tmp_path: Path) -> None:
    outcomes = {one.name: "10" for one in TASK.subjects}
    runs = [
        read_recorded_run(write_run(tmp_path / name, outcomes, model=name, limit=limit))
        for name, limit in (("base", 2), ("new", 2), ("whole", None))
    ]
    text = "first 2 of each subject: 104 questions"
    assert [run.partial for run in runs] == [text, text, ""]

    comparison = compare(runs[0], runs[1])
    terminal = io.StringIO()
    show(console(terminal, width=200), comparison, subjects=False, flips=0)
    assert terminal.getvalue().count(f"\n     PARTIAL: {text}\n") == 2
    assert f"(`base`, partial: `{text}`):" in summary(runs[1], comparison=comparison)
    assert comparison_page([comparison]).count("first 2 of each subject</span>") == 1
    told = to_json([comparison])
    assert (told["base"]["partial"], told["comparisons"][0]["new"]["partial"]) == (text, text)

    other = compare(runs[2], runs[0], common=True)
    assert to_json([other])["base"]["partial"] is None
    assert comparison_page([other]).count("first 2 of each subject</span>") == 1
    assert "of each subject</span>" not in comparison_page([compare(runs[2], runs[2])])
    assert repr(runs[0]).endswith("ceval 50.00, first 2 of each subject: 104 questions>")
    assert repr(runs[2]).endswith("104 of 104 questions answered>")


def one_task_right(one: Prediction) -> Prediction:
    right = one.task == "ceval_gen"
    letter = one.gold if right else "ABCD"["BCDA".index(one.gold)]
    return replace(one, reply=letter, answer=letter, correct=right)


def test_parts_of_two_tasks_of_one_benchmark_have_their_own_names_and_intervals(tmp_path: Path) -> None:
    """Everything is right in one of them, and wrong in the other."""
    names = "ceval_gen", "ceval_zero_shot_gen"
    right, wrong = (f"{name}/ceval, mean of 2 of 52 subjects" for name in names)
    runs = [
        sample_run(
            tmp_path / model,
            names,
            subjects=("law", "logic"),
            outcome=one_task_right,
            model=model,
        )
        for model in ("one", "other")
    ]
    run = runs[0]
    ends = {name: accuracy_interval([Counts(n, 2)] * 2) * 100 for name, n in ((right, 2), (wrong, 0))}
    assert {one.name: one.score.accuracy for one in headlines(run.tasks, run.scores)} == {right: 100, wrong: 0}
    assert {one.name: one.score.interval for one in headlines(run.tasks, run.scores)} == ends
    text = summary(run)
    assert f"**100.00** `{right}` (95 % interval {ends[right].low:.1f} – 100.0)\n" in text
    assert f"**0.00** `{wrong}` (95 % interval 0.0 – {ends[wrong].high:.1f})\n" in text
    assert [one.overall.score.interval for one in sections(run)] == list(ends.values())
    assert [row.name for row in compare(*runs).overall] == [f"{name}/ceval, mean of 2 subjects" for name in names]


def planned(**fields: Any) -> list[TaskRecord]:
    return [TaskRecord.of(TASK, shape="turns", **fields)]


@pytest.mark.parametrize("fields", [{"limit": 2}, {"sample": 5}])
def test_a_gate_on_a_part_is_refused_unless_that_is_allowed(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="this run is partial: ") as caught:
        parse_conclusion(min_scores=["ceval=50"]).require_possible(planned(**fields))
    assert "--allow-partial" in str(caught.value)
    allowed = parse_conclusion(min_scores=["ceval=50"], allow_partial=True)
    allowed.require_possible(planned(**fields))
    parse_conclusion(max_unparsed=5).require_possible(planned(**fields))


def test_a_task_that_asks_fewer_questions_than_a_cut_file_has_is_whole() -> None:
    demo = find_task("demo_cmmlu_chat_gen")
    for there, unlike in ((23, {}), (3, {"test/virology": (3, 169)})):
        tables = Tables("cmmlu", "cmmlu", {}, "0" * 64, {"test/virology": (there, 169)})
        assert TaskRecord.of(demo, shape="turns", tables=tables).unlike_published == unlike


def test_a_subject_that_is_asked_whole_may_be_judged() -> None:
    wanted = parse_conclusion(min_scores=["ceval-law=50"])
    wanted.require_possible(planned(subjects=["law"]))


def test_a_whole_benchmark_has_no_selection() -> None:
    assert planned_selection(planned()) == []


def drawn(task: Task, sample: int, size: int = 26) -> list[tuple[str, int]]:
    rows = {(one.name, split): [dict.fromkeys([*task.columns, "answer"], "A")] * size for one in task.subjects
            for split in ("dev", "val")}  # fmt: skip
    tables = Tables("hub", "hub", rows, "0" * 64)
    return [(one.subject, one.id) for one in task.questions(tables, task.subjects, sample=sample)]


def test_a_quick_run_draws_as_many_from_every_subject_and_always_the_same() -> None:
    found = drawn(TASK, 5)
    assert len(found) == 260
    assert all(sum(subject == one.name for subject, _ in found) == 5 for one in TASK.subjects)
    assert found == drawn(TASK, 5)
    assert len({number for _, number in found}) == 26, "not only the first ones"
    assert set(drawn(TASK, 3)) <= set(found)
    assert len(drawn(TASK, 99)) == 52 * 26
