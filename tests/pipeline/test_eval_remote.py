"""``bundle eval-remote`` as a user types it, against an API on loopback."""

import functools
import json
import os
import re
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.openai_api import Call, completion, error, letter, remote_api
from tests.patience import PATIENCE_S, wait_until
from tests.program import call, results_of, rows_of, run, start
from tests.stand_ins.box import ROOT

SAMPLE = ROOT / "bundle" / "tasks" / "sample" / "ceval"
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.endswith(("_API_KEY", "_BASE_URL"))} | {
    "PYTHONPATH": str(ROOT)
}
SECRET = "sk-this-key-is-secret"


def with_key(**keys: str) -> Mapping[str, str]:
    return ENVIRONMENT | keys


def test_a_served_name_and_where_it_is_served_are_enough(tmp_path: Path) -> None:
    with remote_api() as api:
        options = ["--base-url", api.url, "--data", "sample", "--out", tmp_path]
        result = run("eval-remote", "the-model", *options, environment=ENVIRONMENT)

    assert result.returncode == 0, result.stderr
    assert "104 of 104 questions answered" in result.stdout
    assert "tokenizer check" not in result.stdout  # that is the server's own
    assert results_of(tmp_path)["coverage"] == {"total": 104, "answered": 104, "failed": 0}
    assert {body["model"] for body in api.bodies} == {"the-model"}
    assert {(body["temperature"], body["max_tokens"]) for body in api.bodies} == {(0.0, 2048)}


def test_without_a_name_the_only_model_listed_is_asked(tmp_path: Path) -> None:
    with remote_api(models=["internlm2"]) as api:
        options = ["--base-url", api.url, "--data", "sample", "--subjects", "law", "--out", tmp_path]
        result = call("eval-remote", *options, environment=ENVIRONMENT)

    assert result.returncode == 0, result.stderr
    assert {body["model"] for body in api.bodies} == {"internlm2"}


def test_several_models_are_an_error_that_lists_them(tmp_path: Path) -> None:
    with remote_api(models=["one", "two"]) as api:
        options = ["--base-url", api.url, "--data", "sample", "--out", tmp_path]
        result = call("eval-remote", *options, environment=ENVIRONMENT)

    assert result.returncode == 2
    assert "one" in result.stderr
    assert "two" in result.stderr
    assert not api.bodies


def test_a_model_without_an_address_is_an_error(tmp_path: Path) -> None:
    result = call("eval-remote", "the-model", "--data", "sample", environment=ENVIRONMENT)
    assert result.returncode == 2
    assert "--base-url" in result.stderr


def test_a_mistyped_model_file_is_answered_with_the_nearest() -> None:
    result = call("eval-remote", "puyu-apii", "--data", "sample", environment=ENVIRONMENT)
    assert result.returncode == 2
    assert "Did you mean the model file puyu-api?" in result.stderr


def test_the_tutorials_demo_takes_a_model_file_a_task_and_a_key(tmp_path: Path, shared: Path) -> None:
    data = shared / "data" / "cmmlu"
    with remote_api() as api:
        options = ["--task", "demo_cmmlu_chat_gen", "--base-url", api.url, "--qps", 1000, "--data", data]
        chosen = ["--subjects", "agronomy,ancient_chinese,college_mathematics,world_religions", "--out", tmp_path]
        environment = with_key(INTERNLM_API_KEY=SECRET)
        result = call("eval-remote", "puyu-api", *options, *chosen, environment=environment)

    assert result.returncode == 0, result.stderr
    sent = {json.dumps(body["messages"], ensure_ascii=False) for body in api.bodies}
    golden = (shared / "golden" / "demo_cmmlu_chat_gen.jsonl").read_text(encoding="utf-8").splitlines()
    assert sent == {json.dumps(json.loads(line)["messages"], ensure_ascii=False) for line in golden}
    assert {body["model"] for body in api.bodies} == {"internlm2.5-latest"}
    assert {(body["temperature"], body["max_tokens"]) for body in api.bodies} == {(0.01, 1024)}
    assert set(api.keys) == {f"Bearer {SECRET}"}


def test_a_key_is_in_nothing_that_is_written_or_shown(tmp_path: Path) -> None:
    async def echoing(call: Call) -> web.Response:
        return error(400, f"the key {SECRET} may not do this")

    with remote_api(echoing) as api:
        options = ["--base-url", api.url, "--data", "sample", "--subjects", "law", "--out", tmp_path / "out"]
        environment = with_key(MY_API_KEY=SECRET)
        result = call("eval-remote", "m", *options, "--api-key-env", "MY_API_KEY", environment=environment)

    assert result.returncode == 4
    assert set(api.keys) == {f"Bearer {SECRET}"}
    assert SECRET not in result.stdout + result.stderr
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or SECRET not in path.read_text(encoding="utf-8")


def test_a_missing_key_is_an_error_that_names_its_variable(tmp_path: Path) -> None:
    result = call("eval-remote", "puyu-api", "--data", "sample", "--out", tmp_path, environment=ENVIRONMENT)
    assert result.returncode == 2
    assert "INTERNLM_API_KEY" in result.stderr


def test_a_refused_key_ends_the_run_at_once(tmp_path: Path) -> None:
    async def refusing(call: Call) -> web.Response:
        return error(401, "who are you?")

    with remote_api(refusing) as api:
        options = ["--base-url", api.url, "--data", "sample", "--out", tmp_path, "--concurrency", 4]
        environment = with_key(MY_API_KEY=SECRET)
        result = call("eval-remote", "m", *options, "--api-key-env", "MY_API_KEY", environment=environment)

    assert result.returncode == 3
    assert "who are you?" in result.stderr
    assert len(api.bodies) <= 4


@pytest.mark.parametrize("shape", ["turns", "flat"])
def test_the_prompts_shape_is_a_setting(tmp_path: Path, shape: str) -> None:
    with remote_api() as api:
        options = ["--base-url", api.url, "--data", "sample", "--subjects", "law", "--limit", 1, "--out", tmp_path]
        call("eval-remote", "m", *options, "--prompt-shape", shape, environment=ENVIRONMENT)

    (body,) = api.bodies
    assert len(body["messages"]) == (11 if shape == "turns" else 1)


def test_a_plain_prompt_is_a_text_for_the_model_to_continue(tmp_path: Path) -> None:
    with remote_api() as api:
        options = ["--base-url", f"{api.url}/completions", "--data", "sample", "--subjects", "law", "--out", tmp_path]
        result = call("eval-remote", "m", *options, "--prompt-shape", "plain", environment=ENVIRONMENT)

    assert result.returncode == 0, result.stderr
    assert set(api.paths) == {"/v1/completions"}
    assert all("messages" not in body and body["max_tokens"] == 1024 for body in api.bodies)
    prompt = api.bodies[0]["prompt"]
    assert prompt.count("以下是中国关于法学考试的单项选择题") == 6
    assert re.search(r"D\. \S+\n答案: \n[ABCD]\n以下是", prompt)
    assert prompt.endswith("答案: ")
    (record,) = (json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.glob("*/run.json"))
    assert record["tasks"][0]["shape"] == "plain"


def test_several_tasks_are_one_run_and_their_scores_are_kept_apart(tmp_path: Path) -> None:
    with remote_api() as api:
        tasks = ["--task", "ceval_gen", "--task", "ceval_zero_shot_gen"]
        options = ["--base-url", api.url, "--data", "sample", "--subjects", "law", "--out", tmp_path]
        result = call("eval-remote", "m", *tasks, *options, environment=ENVIRONMENT)

    assert result.returncode == 0, result.stderr
    assert {body["max_tokens"] for body in api.bodies} == {2048, 256}
    assert set(results_of(tmp_path)["scores"]) == {"ceval_gen/ceval-law", "ceval_zero_shot_gen/ceval-law"}


@pytest.fixture
def with_test_split(tmp_path: Path) -> Path:
    """The sample, and a test split of three law questions without answers."""
    data = tmp_path / "data"
    shutil.copytree(SAMPLE, data)
    (data / "test").mkdir()
    rows = "".join(f"{number},问题{number}？,一,二,三,四\n" for number in range(3))
    (data / "test" / "law_test.csv").write_text("id,question,A,B,C,D\n" + rows, encoding="utf-8")
    return data


def test_answers_to_the_test_split_become_a_submission_in_which_nothing_is_guessed(
    tmp_path: Path, with_test_split: Path
) -> None:
    async def reply(call: Call) -> web.StreamResponse:
        question = call.body["messages"][-1]["content"]
        return completion("不知道" if "问题1" in question else "B") if "问题" in question else await letter(call)

    with remote_api(reply) as api:
        options = ["--task", "ceval_gen_2daf24", "--subjects", "law", "--base-url", api.url]
        out = tmp_path / "out"
        result = call("eval-remote", "m", *options, "--data", with_test_split, "--out", out, environment=ENVIRONMENT)

    assert result.returncode == 0, result.stderr
    (path,) = out.glob("*/submission.json")
    assert json.loads(path.read_text()) == {"law": {"0": "B", "1": "", "2": "B"}}
    assert "answers to 2 of 3 questions; no answer in 1 replies" in result.stdout
    scores = results_of(out)["scores"]
    assert scores["ceval-test-law"]["accuracy"] is None
    assert scores["ceval-law"]["accuracy"] is not None
    assert Path(result.stdout.splitlines()[-1]).is_dir()


@pytest.mark.slow
def test_a_killed_run_resumes_and_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    options = ["--data", "sample", "--concurrency", 3]
    with remote_api() as api:
        call("eval-remote", "m", "--base-url", api.url, *options, "--out", tmp_path / "whole", environment=ENVIRONMENT)

        out, log = tmp_path / "out", tmp_path / "log"
        command = ["eval-remote", "m", "--base-url", api.url, *options, "--qps", 30, "--out", out]
        process = start(*command, environment=ENVIRONMENT, log=log)
        for rows in (7, 23, 60):
            wait_until(lambda: list(out.glob("*/predictions.jsonl")))
            (predictions,) = out.glob("*/predictions.jsonl")
            wait_until(functools.partial(has_rows, predictions, rows))
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE_S)
            answered, before = predictions.read_bytes().count(b"\n"), len(api.bodies)
            process = start(*command, "--resume", predictions.parent, environment=ENVIRONMENT, log=log)
        assert process.wait(PATIENCE_S) == 0, log.read_text()

    assert len(api.bodies) - before == 104 - answered
    assert results_of(out)["scores"] == results_of(tmp_path / "whole")["scores"]
    assert sorted_rows(out) == sorted_rows(tmp_path / "whole")


def test_resuming_with_other_options_is_refused_and_names_them(tmp_path: Path) -> None:
    with remote_api() as api:
        options = ["--base-url", api.url, "--data", "sample", "--subjects", "law", "--out", tmp_path]
        result = call("eval-remote", "m", *options, environment=ENVIRONMENT)
        directory = result.stdout.splitlines()[-1]
        again = call("eval-remote", "m", *options, "--temperature", 0.7, "--resume", directory, environment=ENVIRONMENT)
        by_name = call("eval-remote", "m", *options, "--resume", Path(directory).name, environment=ENVIRONMENT)

    assert by_name.returncode == 0, by_name.stderr
    assert again.returncode == 2
    assert "--temperature: 0.0 then, 0.7 now" in again.stderr
    assert len(api.bodies) == 2


def has_rows(path: Path, number: int) -> bool:
    return path.read_bytes().count(b"\n") >= number


def sorted_rows(out: Path) -> list[tuple[Any, ...]]:
    return sorted((row["subject"], row["id"], row["reply"], row["answer"], row["correct"]) for row in rows_of(out))


def test_gates_are_checked_and_reported(tmp_path: Path) -> None:
    with remote_api() as api:
        asked = ["eval-remote", "m", "--base-url", api.url, "--data", "sample", "--subjects", "law", "--out", tmp_path]
        met = call(*asked, "--min-score", "ceval-law=0", "--allow-partial", environment=ENVIRONMENT)
        sample = call(*asked, "--min-score", "ceval-law=0", environment=ENVIRONMENT)
        baseline = met.stdout.splitlines()[-1]
        files = ["--summary", tmp_path / "summary.md", "--junit", tmp_path / "junit.xml"]
        not_met = call(*asked, "--min-score", "ceval-law=101", environment=ENVIRONMENT)
        drop = ["--baseline", baseline, "--max-drop", 0]
        part = call(*asked, *drop, environment=ENVIRONMENT)
        dropped = call(*asked, *drop, "--allow-partial", *files, environment=ENVIRONMENT)
        mistyped = call(*asked, "--min-score", "ceval-low=1", "--allow-partial", environment=ENVIRONMENT)

    assert (met.returncode, not_met.returncode, dropped.returncode, mistyped.returncode) == (0, 2, 0, 2)
    assert part.returncode == 2
    assert "this run is partial: 1 of 52 subjects, sample questions" in part.stderr
    assert sample.returncode == 2
    assert "this run is partial: sample questions, which say nothing about a model" in sample.stderr
    assert "gate passed: ceval-law" in met.stdout
    assert "Did you mean ceval-law?" in mistyped.stderr
    assert "gate passed" in dropped.stdout
    assert "ceval-law" in (tmp_path / "summary.md").read_text()
    assert "<testsuites" in (tmp_path / "junit.xml").read_text()


def test_a_benchmark_that_is_not_the_published_one_is_a_part_wherever_its_score_is_shown(tmp_path: Path) -> None:
    """The sample's law has 2 questions, the benchmark's 24: as if the file had been cut between two rows."""
    with remote_api() as api:
        data = ["--data", SAMPLE.parent, "--subjects", "law", "--out", tmp_path]
        asked = ["eval-remote", "m", "--base-url", api.url, *data]
        refused = call(*asked, "--min-score", "ceval-law=0", environment=ENVIRONMENT)
        done = call(*asked, environment=ENVIRONMENT)
        judged = call(*asked, "--min-score", "ceval-law=0", "--allow-partial", environment=ENVIRONMENT)
    listed = call("runs", "--out", tmp_path, "--json", environment=ENVIRONMENT)

    text = "data not as published (val/law 2/24 questions)"
    assert refused.returncode == 2
    assert f"Gates judge whole benchmarks, and this run is partial: {text}" in refused.stderr
    assert done.returncode == 0
    assert "not C-Eval as it was published: val/law 2/24 questions" in done.stderr
    assert f"PARTIAL: 1 of 52 subjects, {text}" in done.stdout
    record, results = (
        json.loads(Path(done.stdout.splitlines()[-1], name).read_text(encoding="utf-8"))
        for name in ("run.json", "results.json")
    )
    assert record["tasks"][0]["unlike_published"] == {"val/law": [2, 24]}
    assert text in results["partial"]["ceval_gen"]
    page = Path(done.stdout.splitlines()[-1], "report.html").read_text(encoding="utf-8")
    assert f">{text}</span>" in page
    assert re.search(f"gate passed: .*; partial: {re.escape(text)}", judged.stdout)
    assert all(text in run["partial"] for run in json.loads(listed.stdout))


def test_a_gate_that_is_not_met_makes_the_exit_code_1(tmp_path: Path) -> None:
    with remote_api() as api:
        asked = ["eval-remote", "m", "--base-url", api.url, "--data", "sample", "--subjects", "law", "--out", tmp_path]
        result = call(*asked, "--min-score", "ceval-law=100", "--allow-partial", environment=ENVIRONMENT)

    assert result.returncode == 1
    assert "gate failed: ceval-law" in result.stdout
