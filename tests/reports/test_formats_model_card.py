"""``bundle report RUN --format model-card``: what huggingface_hub reads from it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import EvalResult, ModelCard, metadata_load
from huggingface_hub.repocard_data import model_index_to_eval_results

from bundle.errors import RunError
from bundle.reports.formats import FORMATS
from bundle.reports.formats.model_card import export
from bundle.runs.recorded_run import RecordedRun, read_recorded_run
from tests.reports.run_directories import write_run
from tests.reports.sample_run import sample_run, without_reply

HUB = "hub ceval/ceval-exam @ 3923b519f57ad5a1b5d1cd5e9e4d4a4b2d3c8a0e"
FILE = "model-card.md"
REAL = {"data": {"source": "hub", "origin": HUB, "fingerprint": "f" * 64}}


def read_back(run: RecordedRun, directory: Path) -> Sequence[EvalResult]:
    """Write the file, and load it as the hub's package does."""
    export(run).write(directory, is_directory=True, run=directory)
    card = ModelCard.load(directory / FILE)
    assert card.data.model_name == run.model
    model_index = metadata_load(directory / FILE)
    assert model_index is not None
    name, results = model_index_to_eval_results(model_index["model-index"])
    assert name == run.model
    return results


def test_the_groups_are_metrics_of_one_data_set(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "run", source="hub")
    results = read_back(run, tmp_path / "card")
    assert [one.metric_name for one in results] == [
        "ceval, mean over 52 subjects",
        "ceval-stem, mean over 20 subjects",
        "ceval-social-science, mean over 10 subjects",
        "ceval-humanities, mean over 11 subjects",
        "ceval-other, mean over 11 subjects",
        "ceval-hard, mean over 8 subjects",
    ]
    first = results[0]
    assert run.scores["ceval"].accuracy is not None
    assert (first.metric_type, first.metric_value) == ("accuracy", round(run.scores["ceval"].accuracy, 2))
    assert (first.dataset_type, first.dataset_split, first.dataset_config) == ("ceval/ceval-exam", "val", None)
    assert first.dataset_name.startswith("C-Eval, validation split, 5-shot")
    assert first.dataset_args == {"num_few_shot": 5, "task": "ceval_gen"}
    assert first.metric_args is not None
    assert first.metric_args["questions"] == first.metric_args["answered"] == 104
    assert first.verified is None


def test_where_no_group_is_scored_there_is_an_entry_a_subject(tmp_path: Path) -> None:
    run = read_recorded_run(write_run(tmp_path / "run", {"law": "1101", "logic": "0000"}, record=REAL))
    results = read_back(run, tmp_path / "card")
    told = {one.dataset_config: (one.metric_name, one.metric_value) for one in results}
    assert told == {"law": ("ceval-law", 75.0), "logic": ("ceval-logic", 0.0)}


def test_a_score_without_all_questions_says_so_in_its_name(tmp_path: Path) -> None:
    run = read_recorded_run(write_run(tmp_path / "run", {"law": "11x.", "logic": "01"}, record=REAL))
    results = read_back(run, tmp_path / "card")
    law, logic = sorted(results, key=lambda one: str(one.dataset_config))
    assert (law.metric_name, law.metric_value) == ("ceval-law, over 2 of 4 questions", 100.0)
    assert logic.metric_name == "ceval-logic"
    assert "2 of 6 questions have no reply" in export(run).remarks[0]


def test_two_tasks_on_one_split_keep_their_examples_apart(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "run", ["ceval_gen", "ceval_zero_shot_gen"], source="hub")
    results = read_back(run, tmp_path / "card")
    shots = {one.dataset_args["num_few_shot"] for one in results if one.dataset_args is not None}
    assert (len(results), shots) == (12, {0, 5})


def test_the_first_questions_alone_are_not_passed_off_as_the_benchmark(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run", {"agronomy": "1101"}, task="demo_cmmlu_chat_gen", record=REAL)
    (result,) = read_back(read_recorded_run(directory), tmp_path / "card")
    assert result.dataset_name.endswith("only the first 4 questions of every subject")


def test_the_sample_questions_are_no_benchmark_and_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="sample") as refused:
        FORMATS["model-card"].write(sample_run(tmp_path / "run"), tmp_path / "card.md", allow_partial=True)
    assert refused.value.remedy


def test_a_run_without_a_score_is_refused(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "run", subjects=["law"], source="hub", outcome=without_reply)
    with pytest.raises(RunError, match="score"):
        export(run)


def test_text_of_the_users_own_cannot_end_the_block(tmp_path: Path) -> None:
    hostile = "x\n---\nlicense: stolen"
    run = read_recorded_run(write_run(tmp_path / "run", {"law": "1"}, record=REAL))
    tasks = tuple(task.model_copy(update={"description": hostile}) for task in run.record.tasks)
    record = run.record.model_copy(update={"tasks": tasks})
    (result,) = read_back(replace(run, record=record), tmp_path / "card")
    assert result.dataset_name == "x --- license: stolen"
    assert set(metadata_load(tmp_path / "card" / FILE) or ()) == {"model-index"}
