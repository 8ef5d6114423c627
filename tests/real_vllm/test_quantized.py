"""Quantized checkpoints on a real vLLM: they reply as the same values in full precision do."""

from pathlib import Path

from bundle.checkpoints.families import make_family_checkpoint
from tests.checkpoints.quantizing import quantized
from tests.real_vllm.conftest import MakeBox

FEW = ("--subjects", "law,logic,accountant,physician", "--full-replies")
"""Eight questions."""


def test_awq_and_gptq_weights_are_the_values_that_they_pack(make_box: MakeBox, tmp_path: Path) -> None:
    make_family_checkpoint(tmp_path / "whole", "qwen2.5")
    replies = []
    for method in (None, "awq", "gptq"):
        box = make_box()
        box.run(quantized(tmp_path / "whole", tmp_path / (method or "values"), method), "--engine", "vllm", *FEW)
        replies.append({key: row["reply"] for key, row in box.rows().items()})
    assert len(replies[0]) == 8
    assert replies[0] == replies[1] == replies[2]
