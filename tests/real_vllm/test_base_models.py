"""Base models on a real vLLM: asked as plain text, and replied to as the transformers engine does."""

import json
from pathlib import Path

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
        assert "no chat template: asked as a base model" in said
        record = json.loads(next(box.out.glob("*/run.json")).read_text(encoding="utf-8"))
        assert record["tasks"][0]["shape"] == "plain"
        assert record["template"] == {"checked": 3, "equal": True, "note": None}
        found.append({key: (row["reply"], row["prompt_tokens"]) for key, row in box.rows().items()})
    assert len(found[0]) == 6
    assert found[0] == found[1]
