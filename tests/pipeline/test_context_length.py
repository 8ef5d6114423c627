"""Prompts that are too long lose examples, one by one, and everybody learns of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from bundle.runs.files import PREDICTIONS, RESULTS
from bundle.runs.recorded_run import read_recorded_run
from bundle.tasks.scores import Key
from tests.client.quirks import letter as letter_of
from tests.openai_api import Call, Handler, completion, error, remote_api
from tests.pipeline.test_measurement import ENVIRONMENT
from tests.program import call, results_of


def directory_of(out: Path) -> Path:
    (directory,) = (path for path in out.iterdir() if path.is_dir())
    return directory


def record_of(out: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((directory_of(out) / "run.json").read_text())
    return record


def rows_of(out: Path) -> list[dict[str, Any]]:
    lines = (directory_of(out) / PREDICTIONS).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def with_context(characters: int) -> Handler:
    """A server in whose context so many characters fit."""

    async def handler(call: Call) -> web.Response:
        asked = sum(len(one["content"]) for one in call.body["messages"]) + call.body["max_tokens"]
        if asked > characters:
            return error(400, f"This model's maximum context length is {characters} tokens, you requested {asked}")
        return completion(letter_of(call.body))

    return handler


@pytest.mark.parametrize("shape", ["turns", "flat"])
def test_what_the_server_finds_too_long_is_asked_with_fewer_examples(shape: str, tmp_path: Path) -> None:
    options = ["--data", "sample", "--out", tmp_path, "--max-out-len", 16, "--prompt-shape", shape]
    with remote_api(with_context(700)) as api:
        result = call("eval-remote", "m", "--base-url", api.url, *options, environment=ENVIRONMENT)
        shown = call("report", directory_of(tmp_path), environment=ENVIRONMENT)
    assert result.returncode == 0, result.stderr
    assert "104 of 104 questions answered" in result.stdout
    assert "some prompts are too long for the server (prompt and reply exceed the model's context: HTTP 400" in (
        result.stderr
    )
    assert shown.returncode == 0, shown.stderr

    rows = rows_of(tmp_path)
    dropped = [row.get("examples_dropped", 0) for row in rows]
    assert sum(count > 0 for count in dropped) > 0
    assert max(dropped) <= 5
    (finding,) = (one for one in results_of(tmp_path)["health"]["findings"] if one["fault"] == "fewer_examples")
    assert finding["count"] == sum(count > 0 for count in dropped)
    assert f"{finding['count']} of 104 questions were sent with fewer examples, to fit the context" in result.stdout
    assert finding["says"] in (directory_of(tmp_path) / "report.html").read_text(encoding="utf-8")

    # What prompts.jsonl holds is what was sent: no more than fits, and the last that was tried.
    prompts = read_recorded_run(directory_of(tmp_path)).prompts
    sent = [body["messages"] for body in api.bodies]
    for row, count in zip(rows, dropped, strict=True):
        messages = list(prompts[Key(row["task"], row["split"], row["subject"], row["id"])].conversation)
        assert sum(len(one["content"]) for one in messages) + 16 <= 700
        assert messages in sent
        assert row["attempts"] == 1 + count
        if shape == "turns":
            assert len(messages) == 1 + 2 * (5 - count)


def test_a_question_that_is_too_long_without_examples_has_no_reply_and_the_run_ends(tmp_path: Path) -> None:
    options = ["--data", "sample", "--out", tmp_path, "--max-out-len", 16]
    with remote_api(with_context(20)) as api:
        result = call("eval-remote", "m", "--base-url", api.url, *options, environment=ENVIRONMENT)
    assert result.returncode == 3
    assert "The first 10 questions got no reply, all for the same reason: prompt and reply exceed" in result.stderr
    assert "Lower --max-out-len, or serve the model with a longer context." in result.stderr + result.stdout


def test_a_limit_is_obeyed_by_an_estimate_or_with_a_tokenizer(tmp_path: Path, tiny: Path) -> None:
    options = ["--data", "sample", "--subjects", "law", "--max-out-len", 16, "--max-seq-len", 400]
    with remote_api(with_context(10_000)) as api:
        fixed = ["eval-remote", "m", "--base-url", api.url, *options]
        estimated = call(*fixed, "--out", tmp_path / "a", environment=ENVIRONMENT)
        counted = call(*fixed, "--out", tmp_path / "b", "--tokenizer", tiny, environment=ENVIRONMENT)
        nothing = call(*fixed, "--out", tmp_path / "c", "--tokenizer", tmp_path / "a", environment=ENVIRONMENT)
    assert "prompt lengths are estimated on the safe side: 2 tokens per Chinese character" in estimated.stderr
    assert "estimated" not in counted.stderr
    for result, out, source in ((estimated, "a", "estimated"), (counted, "b", "tokenizer.")):
        assert "2 of 2 questions have fewer examples, to fit 400 tokens (--max-seq-len)" in result.stderr
        assert "2 of 2 questions were sent with fewer examples, to fit the context" in result.stdout
        context = record_of(tmp_path / out)["context"]
        assert (context["max_tokens"], context["set_by"]) == (400, "--max-seq-len")
        assert source in context["counted_with"]
    assert nothing.returncode == 2
    assert "no readable tokenizer.json or tokenizer.model" in nothing.stderr


def test_a_run_resumed_after_a_cut_keeps_what_was_sent(tmp_path: Path) -> None:
    options = ["--data", "sample", "--subjects", "law,logic", "--max-out-len", 16, "--full-replies"]
    with remote_api(with_context(700)) as api:
        fixed = ["eval-remote", "m", "--base-url", api.url, *options, "--out", tmp_path]
        assert call(*fixed, environment=ENVIRONMENT).returncode == 0
        directory = directory_of(tmp_path)
        before = read_recorded_run(directory)
        rows = (directory / PREDICTIONS).read_bytes().splitlines(keepends=True)
        (directory / PREDICTIONS).write_bytes(b"".join(rows[:2]))
        (directory / RESULTS).unlink()
        again = call(*fixed, "--resume", directory, environment=ENVIRONMENT)
    assert again.returncode == 0, again.stderr
    after = read_recorded_run(directory)
    assert {key: one.conversation for key, one in after.prompts.items()} == {
        key: one.conversation for key, one in before.prompts.items()
    }
    assert after.scores == before.scores


def test_a_resume_with_other_options_is_refused_before_anything_is_asked_or_loaded(tmp_path: Path) -> None:
    with remote_api(with_context(10_000)) as api:
        fixed = ["eval-remote", "m", "--base-url", api.url, "--out", tmp_path]
        first = call(*fixed, "--data", "sample", "--subjects", "law", environment=ENVIRONMENT)
        asked = len(api.bodies)
        directory = first.stdout.splitlines()[-1]
        (tmp_path / "none").mkdir()  # data without questions would be an error of its own
        other = call(*fixed, "--data", tmp_path / "none", "--limit", 1, "--resume", directory, environment=ENVIRONMENT)
        elsewhere = ["eval-remote", "other", *fixed[2:], "--data", "sample", "--subjects", "law"]
        model = call(*elsewhere, "--resume", directory, environment=ENVIRONMENT)
    assert (other.returncode, model.returncode) == (2, 2)
    assert "--subjects: law then, all now" in other.stderr
    assert "--limit: all then, 1 now" in other.stderr
    assert "ceval_gen: C-Eval" not in other.stderr, "the run had begun"
    assert "model: m then, other now" in model.stderr
    assert len(api.bodies) == asked
