"""What a reader of the terminal learns of a measurement that went wrong, one run per kind of fault."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from aiohttp import web

from bundle.pipeline import ending
from bundle.runs.recorded_run import read_recorded_run
from tests.client.quirks import letter as letter_of
from tests.openai_api import Call, Handler, completion, error, remote_api
from tests.program import call, results_of
from tests.stand_ins.box import ROOT

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")} | {
    "PYTHONPATH": str(ROOT),
    "COLUMNS": "80",
}


def evaluated(handler: Handler, out: Path, *options: object) -> "CompletedProcess[str]":
    with remote_api(handler) as api:
        fixed = ["--base-url", api.url, "--data", "sample", "--out", out]
        return call("eval-remote", "the-model", *fixed, *options, environment=ENVIRONMENT)


def saying(words: Callable[[str], str], finish: str = "stop") -> Handler:
    async def handler(call: Call) -> web.Response:
        return completion(words(letter_of(call.body)), finish)

    return handler


def test_a_good_run_says_that_the_measurement_is_ok(tmp_path: Path) -> None:
    result = evaluated(saying(str), tmp_path, "--full-replies")
    assert result.returncode == 0, result.stderr
    assert "measurement: ok\n" in result.stdout
    assert "e.g." not in result.stdout
    assert results_of(tmp_path)["health"]["ok"] is True


def test_of_too_many_questions_no_page_is_written_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "_MOST_ON_A_PAGE", 1)
    result = evaluated(saying(str), tmp_path, "--subjects", "law")
    assert result.returncode == 0, result.stderr
    (directory,) = tmp_path.iterdir()
    assert f"no report of 2 questions: `bundle report {directory.name}` writes one" in result.stdout
    assert not (directory / "report.html").exists()


def test_tokens_that_a_server_does_not_count_are_not_shown_as_none(tmp_path: Path) -> None:
    async def handler(call: Call) -> web.Response:
        return completion(letter_of(call.body), usage=None)

    result = evaluated(handler, tmp_path, "--full-replies", "--subjects", "law")
    assert result.returncode == 0, result.stderr
    assert " questions/s\n" in result.stdout
    assert "prompt tokens" not in result.stdout


@pytest.mark.parametrize(
    ("words", "finish", "unparsed", "said"),
    [
        ("The answer is {}.", "stop", 104, '104 of 104 replies give an answer that is not an option, mostly "T"'),
        ("Answer: {}", "stop", 78, '78 of 104 answers are a letter of a word, mostly "Answer"'),
        ("不知道", "stop", 104, "104 of 104 replies contain no option"),
        ("<think>先看题", "length", 104, "104 of 104 replies contain only unfinished thinking"),
        ("先看题，", "length", 104, "104 of 104 replies ended at their length limit, 104 of them without"),
        ("", "stop", 104, "104 of 104 replies are empty"),
        ("B", "stop", 0, '104 of 104 answers are "B"'),
        ("<scratch>A or B?</scratch>{}", "stop", 0, '104 of 104 replies begin with "<scratch>"'),
    ],
)
def test_a_faulty_one_says_what_is_wrong(words: str, finish: str, unparsed: int, said: str, tmp_path: Path) -> None:
    result = evaluated(saying(words.format, finish), tmp_path, "--full-replies", "--max-unparsed", 5)
    assert "measurement: DOUBTFUL" in result.stdout, result.stderr
    assert said in result.stdout
    assert results_of(tmp_path)["health"]["unparsed"] == unparsed
    assert result.returncode == (1 if unparsed else 0)
    assert ("gate failed" in result.stdout) is bool(unparsed)


def test_a_full_width_letter_is_no_option_as_in_opencompass(tmp_path: Path) -> None:
    result = evaluated(saying(lambda letter: f"答案是{chr(ord(letter) + 0xFEE0)}。"), tmp_path, "--full-replies")
    assert results_of(tmp_path)["scores"]["ceval"]["accuracy"] == 0
    assert "measurement: DOUBTFUL, no option found in 104 of 104 replies (100.0 %)" in result.stdout


@pytest.mark.parametrize("words", ["正确答案是 **{}**。", "所以选 $\\boxed{{{}}}$", "逐个排除其余选项。\n答案：{}"])
def test_a_letter_in_a_sentence_scores_as_the_letter_alone(words: str, tmp_path: Path) -> None:
    evaluated(saying(str), tmp_path / "alone", "--full-replies")
    result = evaluated(saying(words.format), tmp_path / "sentence", "--full-replies")
    assert results_of(tmp_path / "sentence")["scores"] == results_of(tmp_path / "alone")["scores"]
    assert "measurement: ok\n" in result.stdout


async def filtering(call: Call) -> web.Response:
    """Refuses some questions as DashScope does."""
    if hashlib.sha256(call.body["messages"][-1]["content"].encode()).digest()[0] < 16:
        return error(400, "inappropriate content", code="data_inspection_failed")
    return completion(letter_of(call.body))


def test_reasons_for_missing_replies_are_counted_on_the_screen_and_a_filter_can_be_allowed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    files = ("--summary", tmp_path / "summary.md", "--junit", tmp_path / "junit.xml")
    result = evaluated(filtering, out, "--full-replies", *files)
    assert result.returncode == 4
    (reason,) = results_of(out)["health"]["no_reply"]
    assert reason["cause"] == "content_filter"
    said = f"{reason['count']} × the content filter refused the question: HTTP 400: inappropriate content"
    assert said in result.stdout
    assert said.partition("× ")[2] in (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert said in (tmp_path / "junit.xml").read_text(encoding="utf-8")

    allowed = ("--allow-unanswered", reason["count"], "--min-score", "ceval=1", "--allow-partial")
    result = evaluated(filtering, tmp_path / "allowed", *allowed)
    assert result.returncode == 0, result.stdout
    assert "gate passed" in result.stdout
    assert "questions that have no reply" in result.stdout

    one_less = ("--allow-unanswered", reason["count"] - 1, "--min-score", "ceval=1", "--allow-partial")
    assert evaluated(filtering, tmp_path / "refused", *one_less).returncode == 4


def test_a_gate_on_a_part_is_refused_before_anything_is_asked_and_a_part_is_called_one(tmp_path: Path) -> None:
    part = ("--limit", 1, "--min-score", "ceval=1")
    result = evaluated(saying(str), tmp_path / "refused", *part)
    assert result.returncode == 2
    assert "this run is partial: first 1 of each subject, sample questions, which say nothing" in result.stderr
    assert not (tmp_path / "refused").exists()

    result = evaluated(saying(str), tmp_path / "allowed", *part, "--allow-partial")
    assert result.returncode == 0, result.stderr
    text = "first 1 of each subject: 52 of 104 sample questions"
    assert f"PARTIAL: {text}" in result.stdout
    assert results_of(tmp_path / "allowed")["partial"] == {"ceval_gen": text}
    assert results_of(tmp_path / "allowed")["scores"]["ceval-law"]["interval"]["high"] > 0


def test_a_resume_that_asks_nothing_changes_nothing_and_stored_replies_can_be_rescored(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert evaluated(saying("The answer is {}.".format), out, "--full-replies", "--repeat", "2").returncode == 0
    assert results_of(out)["repeat"]["questions"] == 100
    (directory,) = out.iterdir()
    (directory / "report.html").unlink()  # it is written again, and shows the address
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    with remote_api(saying(str)) as api:
        options = ["--base-url", api.url, "--data", "sample", "--out", out, "--full-replies", "--repeat", "2"]
        options += ["--resume", directory]
        # Its address is another one, so that the record has to say the same as before.
        record = directory / "run.json"
        old = json.loads(before["run.json"])["model"]["base_url"]
        record.write_bytes(before["run.json"].replace(old.encode(), api.url.encode()))
        before["run.json"] = record.read_bytes()
        result = call("eval-remote", "the-model", *options, environment=ENVIRONMENT)
        assert result.returncode == 0, result.stderr
        assert not api.bodies
    (directory / "report.html").unlink()
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before

    again = call("rescore", directory, "--rule", "first_option", environment=ENVIRONMENT)
    assert again.returncode == 0, again.stderr
    assert "under first_option, 0.00 on record" in again.stdout
    assert "104 whole replies scored\n" in again.stdout
    assert "measurement: ok" in again.stdout
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def reading_at_most(tokens: int, out: Path) -> "CompletedProcess[str]":
    """Evaluate a task of long and short texts on a server that drops what is before its last so many tokens."""

    async def handler(call: Call) -> web.Response:
        counted = min(sum(len(one["content"]) for one in call.body["messages"]) // 2, tokens)
        return completion(letter_of(call.body), usage={"prompt_tokens": counted, "completion_tokens": 1})

    rows = [
        {"text": "长文" * (30 + 7 * number), "A": "是", "B": "否", "answer": "AB"[number % 2]} for number in range(120)
    ]
    (out / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (out / "long.toml").write_text(
        'description = "long texts"\n[rows]\nfile = "rows.jsonl"\n[prompt]\nexamples = 0\n'
        'user = "{text}\\nA. {A}\\nB. {B}\\n答案: "\n[answer]\nrule = "first_capital"\n',
        encoding="utf-8",
    )
    with remote_api(handler) as api:
        options = ["--base-url", api.url, "--task", out / "long.toml", "--full-replies", "--out", out / "runs"]
        return call("eval-remote", "the-model", *options, environment=ENVIRONMENT)


def test_a_server_that_cuts_prompts_without_a_word_makes_the_measurement_doubtful(tmp_path: Path) -> None:
    result = reading_at_most(400, tmp_path)
    assert "measurement: DOUBTFUL" in result.stdout, result.stderr
    said = " ".join(result.stdout.split())
    assert "of 120 prompts were cut by the server, which counts no more than 400 tokens in any" in said
    assert "Raise the server's context length (Ollama: num_ctx)" in said
    assert results_of(tmp_path / "runs")["health"]["ok"] is False
    run = read_recorded_run(next(path for path in (tmp_path / "runs").iterdir() if path.is_dir()))
    assert run.health.to_json() == results_of(tmp_path / "runs")["health"]


def test_a_server_that_reads_all_of_them_does_not(tmp_path: Path) -> None:
    result = reading_at_most(10**6, tmp_path)
    assert "prompts were cut" not in result.stdout
    assert result.returncode == 0, result.stderr
