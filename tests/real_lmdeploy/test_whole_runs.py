"""Whole runs on real lmdeploy: every version, TurboMind, misleading paths, long replies, prompts that are too long."""

import json
import re
import shutil
from pathlib import Path

import pytest

from benchmarks.gpu.configurations import talkative
from tests.real_lmdeploy.box import FEW, NEWEST, OLDEST, SAMPLE, VERSIONS, LmdeployBox
from tests.real_lmdeploy.conftest import MakeBox


def test_a_whole_run_answers_every_question(whole: LmdeployBox) -> None:
    assert whole.results()["coverage"] == {"total": SAMPLE, "answered": SAMPLE, "failed": 0}
    assert {row["finish_reason"] for row in whole.rows()} == {"stop"}
    assert {row["attempts"] for row in whole.rows()} == {1}
    assert {row["answer"] for row in whole.rows()} <= set("ABCD")
    record = json.loads(next(whole.out.glob("*/run.json")).read_text(encoding="utf-8"))
    assert (record["engine"]["name"], record["engine"]["version"]) == ("lmdeploy", NEWEST)


def test_prompts_of_a_subject_share_the_servers_prefix_cache(whole: LmdeployBox) -> None:
    cached = {key: hits for key, (hits,) in whole.by_question("cached_tokens").items()}
    # Of a subject's first question only those whose prompts were counted before.
    assert sum(hits > 0 for (_, number), hits in cached.items() if number == 0) <= 4
    # Nearly all second ones: the first has usually been computed by then.
    assert sum(hits >= 64 for (_, number), hits in cached.items() if number == 1) >= 0.9 * SAMPLE / 2


NAMES = ("llama2-study/ckpt-100", "internlm/my-chat", "vicuna/-hf 模型")


@pytest.mark.parametrize(
    ("version", "name"),
    [(OLDEST, name) for name in NAMES] + [(version, "/".join(NAMES)) for version in VERSIONS[1:]],
)
def test_a_misleading_path_changes_no_reply_on_any_version(
    make_box: MakeBox, whole: LmdeployBox, tiny: Path, tmp_path: Path, version: str, name: str
) -> None:
    """lmdeploy picks a built-in chat template by words in the path; the checkpoint's own must be used all the same."""
    misleading = shutil.copytree(tiny, tmp_path / name)
    box = make_box(version)
    result = box.run(misleading, *FEW, "--", "--backend", "pytorch")
    assert result.returncode == 0, result.stderr
    expected, found = (one.by_question("reply", "prompt_tokens") for one in (whole, box))
    assert len(found) == 6
    assert found == {key: expected[key] for key in found}
    record = json.loads(next(box.out.glob("*/run.json")).read_text(encoding="utf-8"))
    assert record["template"]["equal"] is True
    assert record["sampling"]["extra_body"] == {"top_k": 1}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_checkpoint_with_code_gives_the_same_replies_and_none_of_its_code_runs(
    make_box: MakeBox, whole: LmdeployBox, tiny: Path, tmp_path: Path, version: str
) -> None:
    published = shutil.copytree(tiny, tmp_path / "internlm2_5-tiny-chat")
    was_here = tmp_path / "was-here"
    for name in ("configuration_internlm2", "tokenization_internlm2", "tokenization_internlm2_fast"):
        (published / f"{name}.py").write_text(f"open({str(was_here)!r}, 'w')\n")
    settings = json.loads((published / "tokenizer_config.json").read_text())
    classes = ["tokenization_internlm2.InternLM2Tokenizer", "tokenization_internlm2_fast.InternLM2TokenizerFast"]
    settings["auto_map"] = {"AutoTokenizer": classes}
    (published / "tokenizer_config.json").write_text(json.dumps(settings))
    (published / "tokenizer.json").unlink()

    box = make_box(version)
    result = box.run(published, *FEW, "--", "--backend", "pytorch")

    assert result.returncode == 0, result.stderr
    assert "none of the checkpoint's own Python code runs" in result.stderr
    assert not was_here.exists()
    expected, found = (one.by_question("reply", "prompt_tokens") for one in (whole, box))
    assert len(found) == 6
    assert found == {key: expected[key] for key in found}


def test_a_template_of_the_users_choice_is_seen_in_the_servers_counts(make_box: MakeBox, tiny: Path) -> None:
    box = make_box()
    result = box.run(tiny, "--subjects", "law", "--", "--backend", "pytorch", "--chat-template", "vicuna")
    assert result.returncode == 0, result.stderr
    assert "warning: --chat-template gives other prompts than the checkpoint's own chat template" in result.stderr


def test_a_reply_ends_where_the_template_ends_a_turn_although_no_file_says_so(
    make_box: MakeBox, tiny: Path, tmp_path: Path
) -> None:
    unlisted = shutil.copytree(tiny, tmp_path / "unlisted")
    (unlisted / "generation_config.json").unlink()
    box = make_box()
    result = box.run(unlisted, "--subjects", "law", "--full-replies", "--", "--backend", "pytorch")
    assert result.returncode == 0, result.stderr
    assert "sending it with every request (stop)" in result.stderr
    assert "if this is a base model, ask it as one: --prompt-shape plain" in result.stderr
    assert {row["finish_reason"] for row in box.rows()} == {"stop"}
    assert {row["reply"] for row in box.rows()} <= set("ABCD")


def test_turbomind_answers_every_question(make_box: MakeBox, tiny: Path) -> None:
    box = make_box(LMDEPLOY_ON_CPU_TURBOMIND="1")
    result = box.run(tiny, "--", "--backend", "turbomind")
    assert result.returncode == 0, result.stderr
    assert box.results()["coverage"]["answered"] == SAMPLE
    assert "Fallback" not in box.server_log()


def lengths_and_their_median(whole: LmdeployBox) -> tuple[dict[tuple[str, int], int], int]:
    """The tokens of the few questions' prompts, and a session's length for which half of them are too long."""
    counted = whole.by_question("prompt_tokens").items()
    lengths = {key: tokens for key, (tokens,) in counted if key[0] in FEW[1].split(",")}
    return lengths, sorted(lengths.values())[len(lengths) // 2]


def test_prompts_longer_than_the_session_lose_examples_until_the_server_takes_them(
    make_box: MakeBox, whole: LmdeployBox, tiny: Path
) -> None:
    lengths, session = lengths_and_their_median(whole)
    box = make_box()
    result = box.run(tiny, *FEW, "--", "--backend", "pytorch", "--session-len", session)
    assert result.returncode == 0, result.stderr
    assert re.search(rf"[0-9] of 6 questions have fewer examples, to fit {session} tokens", result.stderr)
    found = {key: tokens for key, (tokens,) in box.by_question("prompt_tokens").items()}
    assert found.keys() == lengths.keys()
    assert all(tokens < session for tokens in found.values())


def test_a_prompt_that_somebody_elses_server_refuses_as_too_long_is_asked_with_fewer_examples(
    make_box: MakeBox, whole: LmdeployBox, tiny: Path
) -> None:
    """Here nothing tells the length of the session beforehand, so it is the server's reply that must be understood."""
    lengths, session = lengths_and_their_median(whole)
    box = make_box()
    with box.server(tiny, "--session-len", session) as base_url:
        result = box.run_remote(base_url, *FEW, "--stream", "never")
    assert result.returncode == 0, result.stderr
    found = box.by_question("prompt_tokens", "examples_dropped", "finish_reason")
    assert found.keys() == lengths.keys()
    too_long = {key for key, tokens in lengths.items() if tokens >= session}
    assert {key for key, (_, dropped, _) in found.items() if dropped} == too_long
    assert {finish_reason for _, _, finish_reason in found.values()} == {"stop"}
    assert all(tokens < session for tokens, _, _ in found.values())


def test_a_prompt_that_a_server_refuses_without_a_reason_has_no_reply(
    make_box: MakeBox, whole: LmdeployBox, tiny: Path
) -> None:
    """lmdeploy before 0.16 says of a prompt that is too long no more than ``finish_reason: error``."""
    lengths, session = lengths_and_their_median(whole)
    box = make_box(OLDEST)
    with box.server(tiny, "--session-len", session) as base_url:
        result = box.run_remote(base_url, *FEW, "--stream", "never")
    assert result.returncode == 4, result.stderr
    failed = {key: error for key, (error,) in box.by_question("error").items() if error}
    assert failed.keys() == {key for key, tokens in lengths.items() if tokens > session}
    assert set(failed.values()) == {"the server gave up: finish_reason 'error'"}


def generated_tokens(box: LmdeployBox) -> float:
    """How many the engine has generated, by the throughput that the server's log tells every ten seconds."""
    return 10 * sum(float(rate) for rate in re.findall(r"Avg thr \(in/out\): [\d.]+ / ([\d.]+)", box.server_log()))


def test_a_decided_reply_is_closed_and_its_slot_is_free(make_box: MakeBox, tiny: Path, tmp_path: Path) -> None:
    """The checkpoint goes on to its limit after its letter; were slots not freed, the server would generate it all."""
    talks = talkative(tiny, tmp_path / "talks")
    early, full = make_box(), make_box()
    limit = 200
    options = ("--concurrency", 8, "--max-out-len")
    result = early.run(talks, *options, limit, "--", "--backend", "pytorch", "--max-batch-size", 8)
    assert result.returncode == 0, result.stderr
    decided = [row for row in early.rows() if row["decided_early"]]
    assert len(decided) >= SAMPLE // 2
    assert generated_tokens(early) < SAMPLE * limit / 2

    result = full.run(talks, *FEW, *options, 32, "--", "--backend", "pytorch")
    assert result.returncode == 0, result.stderr
    assert {row["completion_tokens"] for row in full.rows()} == {32}
    answers = early.by_question("answer")
    assert full.by_question("answer") == {key: answers[key] for key in full.by_question()}
