"""Base models on a real vLLM: asked as plain text, and replied to as the transformers engine does."""

import json
from pathlib import Path

import pytest

from bundle.checkpoints import inspect_checkpoint
from bundle.serving.conversion import servable
from bundle.tasks.catalog import find_task
from tests.checkpoints.base_model import base_model
from tests.real_vllm.conftest import MakeBox

FEW = ("--subjects", "law,logic,accountant", "--full-replies", "--max-out-len", 32)
"""Six questions."""


def test_a_base_model_continues_plain_text(make_box: MakeBox, tiny: Path, tmp_path: Path) -> None:
    base = base_model(tiny, tmp_path / "base")
    found = []
    for engine in ("vllm", "transformers"):
        box = make_box()
        said = box.run(base, "--engine", engine, *FEW, "--", "--dtype", "float32")
        assert "no chat template: prompting as a base model" in said
        record = json.loads(next(box.out.glob("*/run.json")).read_text(encoding="utf-8"))
        assert record["tasks"][0]["shape"] == "plain"
        assert record["template"] == {"checked": 3, "equal": True, "note": None}
        found.append({key: (row["reply"], row["prompt_tokens"]) for key, row in box.rows().items()})
    assert len(found[0]) == 6
    assert found[0] == found[1]


def test_the_losses_of_options_are_those_of_transformers_in_this_process(
    make_box: MakeBox, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Computed as OpenCompass's ``HuggingFaceBaseModel.get_ppl`` does, on the texts of ``PPLInferencer``."""
    import torch  # imported late: slow, and these tests are skipped more often than not
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = base_model(tiny, tmp_path / "base")
    box = make_box()
    options = ("--engine", "vllm", "--task", "ceval_ppl", "--subjects", "law,logic,accountant,physician")
    box.run(base, *options, "--", "--dtype", "float32")

    monkeypatch.setenv("BUNDLE_CACHE", box.environment["BUNDLE_CACHE"])
    directory = servable(inspect_checkpoint(base), trust_remote_code=False, say=lambda _: None).directory
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    task, rows = find_task("ceval_ppl"), box.rows()
    subjects = task.select(["law", "logic", "accountant", "physician"])
    tables = task.load("sample", subjects, lambda _: None)
    questions = list(task.questions(tables, subjects))
    assert len(questions) == len(rows) == 8
    for question in questions:
        losses = {}
        for option in "ABCD":
            ids = tokenizer(question.messages[0]["content"] + option, return_tensors="pt").input_ids
            with torch.no_grad():
                logits = model(ids).logits[0, :-1]
            losses[option] = (
                float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")) / ids.shape[1]
            )
        row = rows[question.subject, question.id]
        assert row["losses"] == pytest.approx(losses, abs=1e-4)
        assert row["answer"] == min(losses, key=lambda option: losses[option])
