"""``bundle report RUN --format lm-eval``: as lm-evaluation-harness 0.4.13 writes it and reads it."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from bundle.errors import RunError
from bundle.reports.formats.export import Export
from bundle.reports.formats.lm_eval import export_lm_eval
from bundle.reports.formats.lm_eval_tasks import nested
from bundle.runs.predictions import Prediction
from bundle.runs.recorded_run import RecordedRun, read_recorded_run
from tests.reports.lm_eval_specimens import SPECIMENS
from tests.reports.other_programs import ask
from tests.reports.run_directories import write_run
from tests.reports.sample_run import sample_run, without_reply

DIRECTORY = "20260102-030405-run"
RESULTS = "simulated/results_2026-01-02T03-04-05.000000.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RecordedRun:
    return sample_run(tmp_path_factory.mktemp("whole") / DIRECTORY)


@pytest.fixture(scope="module")
def exported(whole: RecordedRun) -> Export:
    return export_lm_eval(whole)


def results(export: Export) -> dict[str, Any]:
    (content,) = (json.loads(text) for name, text in export.files.items() if "/results_" in name)
    assert isinstance(content, dict)
    return content


def samples(export: Export, task: str) -> list[dict[str, Any]]:
    (text,) = (text for name, text in export.files.items() if f"/samples_{task}_" in name)
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def specimen() -> dict[str, Any]:
    content = json.loads((SPECIMENS / "lm_eval_results.json").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def test_files_are_named_as_the_harness_names_them(exported: Export) -> None:
    assert RESULTS in exported.files
    assert "simulated/samples_ceval-law_2026-01-02T03-04-05.000000.jsonl" in exported.files
    assert len(exported.files) == 1 + 52


def test_the_results_have_the_keys_of_the_harness_in_its_order(exported: Export, specimen: dict[str, Any]) -> None:
    content = results(exported)
    assert list(content) == list(specimen)
    assert content["results"]["ceval-law"].keys() == specimen["results"]["specimen-law"].keys()
    assert content["groups"]["ceval"].keys() == specimen["groups"]["specimen"].keys()
    assert content["n-samples"]["ceval-law"].keys() == specimen["n-samples"]["specimen-law"].keys()
    known = specimen["configs"]["specimen-law"].keys() | {"dataset_name", "fewshot_split"}
    assert content["configs"]["ceval-law"].keys() <= known
    assert content["config"].keys() <= specimen["config"].keys()
    for key in ("versions", "n-shot", "higher_is_better", "task_hashes"):
        assert content[key].keys() >= content["configs"].keys()


def test_samples_have_the_keys_and_hashes_of_the_harness(exported: Export, specimen: dict[str, Any]) -> None:
    (theirs, _) = map(json.loads, (SPECIMENS / "lm_eval_samples.jsonl").read_text(encoding="utf-8").splitlines())
    ours = samples(exported, "ceval-law")
    assert list(ours[0]) == list(theirs)
    for key in ("arguments", "resps", "filtered_resps"):
        assert shape(ours[0][key]) == shape(theirs[key])
    assert [row["doc_id"] for row in ours] == [0, 1]
    messages = json.loads(ours[0]["arguments"]["gen_args_0"]["arg_0"][0])
    assert [message["role"] for message in messages] == ["user", "assistant"] * 5 + ["user"]
    rows = [
        json.loads(line) for name, text in exported.files.items() if "/samples_" in name for line in text.splitlines()
    ]
    assert {row["target_hash"] for row in rows if row["target"] == theirs["target"]} == {theirs["target_hash"]}


def shape(value: Any) -> Any:
    """What kinds of things are where."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    return [shape(one) for one in value] if isinstance(value, list) else type(value)


def test_scores_are_shares_and_a_groups_is_the_plain_mean(whole: RecordedRun, exported: Export) -> None:
    content = results(exported)
    for name, one in content["results"].items():
        score = whole.scores[name]
        assert score.accuracy is not None
        assert math.isclose(one["exact_match,first_capital"], score.accuracy / 100)
        assert one["sample_len"] == score.answered == score.n
    parts = [content["results"][name]["exact_match,first_capital"] for name in content["configs"]]
    assert math.isclose(content["groups"]["ceval"]["exact_match,first_capital"], sum(parts) / 52)


def test_groups_are_a_tree_in_which_every_subject_is_once(exported: Export) -> None:
    tree = results(exported)["group_subtasks"]
    assert tree["ceval"] == ["ceval-stem", "ceval-humanities", "ceval-other", "ceval-social-science"]
    assert "ceval-hard" in tree["ceval-stem"]
    members = [name for inside in tree.values() for name in inside]
    assert len(members) == len(set(members)) == 52 + 5


def test_a_group_that_only_partly_lies_in_another_stands_by_itself() -> None:
    groups = {"all": ["a", "b", "c", "d"], "one": ["a", "b"], "two": ["b", "c"]}
    assert nested(groups, ["a", "b", "c", "d"]) == {"all": ["one", "c", "d"], "one": ["a", "b"], "two": ["b", "c"]}


def test_a_question_without_a_reply_is_in_no_score_and_is_counted(tmp_path: Path) -> None:
    def outcome(one: Prediction) -> Prediction | None:
        if one.subject == "physician":
            return None
        return without_reply(one) if (one.subject, one.id) == ("law", 0) else one

    export = export_lm_eval(sample_run(tmp_path / DIRECTORY, outcome=outcome))
    content = results(export)
    assert content["n-samples"]["ceval-law"] == {"original": 2, "effective": 1}
    assert content["n-samples"]["ceval-physician"] == {"original": 2, "effective": 0}
    assert content["results"]["ceval-law"]["sample_len"] == 1
    assert content["results"]["ceval-law"]["exact_match_stderr,first_capital"] == "N/A"
    assert [row["doc_id"] for row in samples(export, "ceval-law")] == [1]
    assert {"ceval-physician", "ceval-other", "ceval"}.isdisjoint(content["results"])
    assert content["groups"]["ceval-humanities"]["sample_count"] == {"exact_match,first_capital": 21}
    assert export.remarks == (
        "3 of 104 questions have no reply: they are in no score, and n-samples says how many",
        "1 of 52 subjects have no score and are left out",
    )


def test_without_any_group_every_subject_stands_for_itself(tmp_path: Path) -> None:
    content = results(export_lm_eval(sample_run(tmp_path / DIRECTORY, subjects=["law", "logic"])))
    assert "groups" not in content
    assert content["group_subtasks"] == {"ceval-logic": [], "ceval-law": []}


def test_the_prompt_is_told_as_jinja(exported: Export) -> None:
    config = results(exported)["configs"]["ceval-law"]
    assert config["doc_to_text"].startswith(
        "以下是中国关于法学考试的单项选择题，请选出其中的正确答案。\n{{question}}\nA. {{A}}\n"
    )
    assert (config["num_fewshot"], config["fewshot_split"], config["test_split"]) == (5, "dev", "val")


def test_a_run_that_has_no_score_is_refused(tmp_path: Path) -> None:
    run = read_recorded_run(write_run(tmp_path / DIRECTORY, {"test/law": "11"}, task="ceval_gen_2daf24"))
    with pytest.raises(RunError, match="score"):
        export_lm_eval(run)


def test_samples_can_be_loaded_by_the_datasets_package(exported: Export, tmp_path: Path) -> None:
    from datasets import load_dataset

    exported.write_to(tmp_path)
    files = [str(path) for path in (tmp_path / "simulated").glob("samples_ceval-l*.jsonl")]
    loaded = load_dataset("json", data_files=sorted(files), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == 2 * 3
    assert loaded[0]["doc"]["subject"] == "law"


def test_the_harness_itself_shows_the_results_as_a_table(exported: Export, whole: RecordedRun, tmp_path: Path) -> None:
    exported.write_to(tmp_path)
    samples_file = tmp_path / "simulated" / "samples_ceval-law_2026-01-02T03-04-05.000000.jsonl"
    read = ask("lm_eval", "tests.reports.read_by_lm_eval", tmp_path / RESULTS, samples_file)
    lines = [[cell.strip() for cell in line.split("|")] for line in read["tables"]["results"].splitlines()]
    shown = {cells[1].removeprefix("- "): cells[7] for cells in lines[2:] if len(cells) > 7}
    assert shown == {name: f"{(score.accuracy or 0) / 100:.4f}" for name, score in whole.scores.items()}
    assert "ceval-hard" in read["tables"]["groups"]
    assert read["results_files"] == [RESULTS]
    assert (read["tasks"], read["times"]) == (["ceval-law"], ["2026-01-02T03-04-05.000000"])
