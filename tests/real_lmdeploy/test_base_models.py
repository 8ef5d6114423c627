"""Base models on real lmdeploy: asked as plain text, with the tokens of the checkpoint's own tokenizer."""

import json
from pathlib import Path

import pytest

from benchmarks.gpu.configurations import talkative
from bundle.checkpoints import inspect_checkpoint
from bundle.serving.conversion import servable
from bundle.tasks.catalog import find_task
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


def test_the_losses_of_options_are_those_of_transformers_in_this_process(
    make_box: MakeBox, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Computed as OpenCompass's ``HuggingFaceBaseModel.get_ppl`` does, on the texts of ``PPLInferencer``."""
    import torch  # imported late: slow, and these tests are skipped more often than not
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base, box, subjects = base_model(tiny, tmp_path / "base"), make_box(), ("law", "logic", "accountant", "physician")
    result = box.run(base, "--task", "ceval_ppl", "--subjects", ",".join(subjects))
    assert result.returncode == 0, result.stderr
    assert "does not say how likely a text is: using its PyTorch engine" in result.stderr

    monkeypatch.setenv("BUNDLE_CACHE", box.environment["BUNDLE_CACHE"])
    directory = servable(inspect_checkpoint(base), trust_remote_code=False, say=lambda _: None).directory
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    task, rows = find_task("ceval_ppl"), box.by_question("losses", "answer")
    tables = task.load("sample", task.select(subjects), lambda _: None)
    questions = list(task.questions(tables, task.select(subjects)))
    assert len(questions) == len(rows) == 8
    for question in questions:
        losses = {}
        for option in "ABCD":
            ids = tokenizer(question.messages[0]["content"] + option, return_tensors="pt").input_ids
            with torch.no_grad():
                logits = model(ids).logits[0, :-1].float()
            losses[option] = (
                float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")) / ids.shape[1]
            )
        found, answer = rows[question.subject, question.id]
        assert found == pytest.approx(losses, abs=1e-2)
        assert answer == min(found, key=lambda option: found[option])


def test_an_older_lmdeploy_is_not_started_for_it(make_box: MakeBox, tiny: Path, tmp_path: Path) -> None:
    result = make_box("0.16.0").run(base_model(tiny, tmp_path / "base"), "--task", "ceval_ppl")
    assert result.returncode == 2
    assert "ceval_ppl needs log-probabilities of the prompt, which the lmdeploy server does not" in result.stderr
    assert "Use lmdeploy 0.18 (its PyTorch engine)" in result.stderr
