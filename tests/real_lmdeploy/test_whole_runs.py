"""Whole runs on real lmdeploy: every version, TurboMind's road, misleading paths, prompts that are too long."""

import json
import shutil
from pathlib import Path

import pytest

from tests.real_lmdeploy.box import SAMPLE, VERSIONS, LmdeployBox
from tests.real_lmdeploy.conftest import MakeBox


def replies(box: LmdeployBox) -> dict[tuple[str, int], str]:
    """What was replied, by subject and number."""
    return {(row["subject"], row["id"]): row["reply"] for row in box.rows()}


def test_a_whole_run_answers_every_question_and_leaves_nothing(make_box: MakeBox, tiny: Path) -> None:
    box = make_box()
    result = box.run(tiny, "--", "--backend", "pytorch")
    assert result.returncode == 0, result.stderr
    assert box.results()["coverage"] == {"total": SAMPLE, "answered": SAMPLE, "failed": 0}
    assert {row["finish_reason"] for row in box.rows() if "finish_reason" in row} <= {"stop", None}
    assert all(row["reply"].strip() for row in box.rows())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_misleading_path_changes_no_reply_on_any_version(
    make_box: MakeBox, tiny: Path, tmp_path: Path, version: str
) -> None:
    """lmdeploy picks a built-in chat template by words in the path; the checkpoint's own must be used all the same."""
    options = ("--subjects", "law,logic,accountant", "--full-replies", "--", "--backend", "pytorch")
    plain = make_box(version)
    assert plain.run(tiny, *options).returncode == 0
    expected = replies(plain)
    assert len(expected) == 6
    tokens = {row["prompt_tokens"] for row in plain.rows()}
    for name in ("llama2-study/ckpt-100", "internlm/my-chat", "vicuna/hf"):
        misleading = tmp_path / version / name
        shutil.copytree(tiny, misleading)
        box = make_box(version)
        result = box.run(misleading, *options)
        assert result.returncode == 0, result.stderr
        assert replies(box) == expected, name
        assert {row["prompt_tokens"] for row in box.rows()} == tokens


def test_turbomind_runs_answer_every_question(make_box: MakeBox, tiny: Path) -> None:
    box = make_box(LMDEPLOY_ON_CPU_TURBOMIND="1")
    result = box.run(tiny, "--", "--backend", "turbomind")
    assert result.returncode == 0, result.stderr
    assert box.results()["coverage"]["answered"] == SAMPLE
    assert "Fallback" not in box.server_log()


def test_a_prompt_longer_than_the_session_is_said_and_is_no_wrong_answer(make_box: MakeBox, tiny: Path) -> None:
    box = make_box()
    result = box.run(tiny, "--limit", "1", "--max-out-len", "16", "--", "--backend", "pytorch", "--session-len", "300")
    failed = [row for row in box.rows() if "error" in row]
    assert result.returncode == (4 if failed else 0), result.stderr
    assert all(row["reply"] for row in box.rows() if "error" not in row)


def test_prefix_hits_are_told_by_the_server_and_shown(make_box: MakeBox, tiny: Path) -> None:
    box = make_box()
    result = box.run(tiny, "--subjects", "law,logic", "--full-replies", "--", "--backend", "pytorch")
    assert result.returncode == 0, result.stderr
    cached = [row.get("cached_tokens") for row in box.rows()]
    record = json.loads(next(box.out.glob("*/run.json")).read_text(encoding="utf-8"))
    assert record["engine"]["name"] == "lmdeploy"
    assert box.results()["tokens"] or cached
