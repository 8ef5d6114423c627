"""Base models on real lmdeploy: asked as plain text, with the tokens of the checkpoint's own tokenizer."""

import json
from pathlib import Path

import pytest

from benchmarks.gpu.configurations import talkative
from tests.checkpoints.base_model import base_model
from tests.real_lmdeploy.box import FEW, VERSIONS
from tests.real_lmdeploy.conftest import MakeBox


@pytest.mark.parametrize("version", VERSIONS)
def test_a_base_model_continues_plain_text(make_box: MakeBox, tiny: Path, tmp_path: Path, version: str) -> None:
    base = base_model(tiny, tmp_path / "llama2-study")
    box = make_box(version)
    result = box.run(base, *FEW, "--", "--backend", "pytorch")
    assert result.returncode == 0, result.stderr
    assert "no chat template: prompting as a base model" in result.stderr
    record = json.loads(next(box.out.glob("*/run.json")).read_text(encoding="utf-8"))
    assert record["tasks"][0]["shape"] == "plain"
    assert record["template"]["equal"] is True
    assert record["template"]["note"] is None
    assert {row["answer"] for row in box.rows()} <= set("ABCD")
    assert len(list(box.rows())) == 6


def test_a_base_model_that_goes_on_is_stopped_at_its_answer(make_box: MakeBox, tiny: Path, tmp_path: Path) -> None:
    base = base_model(talkative(tiny, tmp_path / "talks"), tmp_path / "base")
    early, full = make_box(), make_box()
    options = ("--max-out-len", 64, "--concurrency", 8)
    for box, more in ((early, ("--limit", 1)), (full, FEW)):
        result = box.run(base, *options, *more, "--", "--backend", "pytorch", "--max-batch-size", 8)
        assert result.returncode == 0, result.stderr
    assert sum(row["decided_early"] for row in early.rows()) >= 16
    assert {row["finish_reason"] for row in full.rows()} == {"length"}
    answers, found = (box.by_question("answer") for box in (full, early))
    both = answers.keys() & found.keys()
    assert len(both) == 3
    assert {key: answers[key] for key in both} == {key: found[key] for key in both}
