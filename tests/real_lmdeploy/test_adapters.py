"""LoRA adapters: merged as peft merges them, and served by real lmdeploy."""

import json
import subprocess
from pathlib import Path

import pytest

from bundle.checkpoints import inspect_checkpoint
from bundle.checkpoints.adapter import inspect_adapter
from bundle.checkpoints.merge import merge_adapter
from tests.checkpoints.lora import lora_adapter
from tests.real_lmdeploy.conftest import INSTALLED, MakeBox

PEFT = """
import sys, torch
from transformers import LlamaConfig, LlamaForCausalLM
from peft import LoraConfig, PeftModel, get_peft_model
base, adapter, merged = sys.argv[1:]
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, tie_word_embeddings=False,
)
LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(base)
lora = LoraConfig(
    r=4, lora_alpha=6, target_modules=["q_proj", "down_proj", "lm_head"], modules_to_save=["norm"],
    init_lora_weights=False,
    rank_pattern={"down_proj": 2}, alpha_pattern={"layers.1.self_attn.q_proj": 3}, use_rslora=True, bias="none",
)
trained = get_peft_model(LlamaForCausalLM.from_pretrained(base, torch_dtype=torch.bfloat16), lora)
torch.nn.init.normal_(trained.base_model.model.model.norm.modules_to_save.default.weight)
trained.save_pretrained(adapter)
fresh = LlamaForCausalLM.from_pretrained(base, torch_dtype=torch.bfloat16)
PeftModel.from_pretrained(fresh, adapter).merge_and_unload().save_pretrained(merged)
"""


def test_it_is_merged_bit_for_bit_as_peft_does(tmp_path: Path) -> None:
    import torch  # imported late: slow, and these tests are skipped more often than not
    from safetensors.torch import load_file

    python = Path(INSTALLED or "") / "env" / "bin" / "python"
    if subprocess.run([python, "-c", "import peft"], check=False, capture_output=True).returncode != 0:
        pytest.skip("lmdeploy's environment holds no peft")
    base, adapter, theirs = (tmp_path / name for name in ("base", "adapter", "merged"))
    subprocess.run([python, "-c", PEFT, base, adapter, theirs], check=True)
    (base / "tokenizer.json").write_text('{"version": "1.0"}', encoding="utf-8")
    checkpoint = inspect_checkpoint(base)

    ours = merge_adapter(checkpoint, inspect_adapter(adapter, checkpoint), tmp_path / "cache")

    expected, found = (load_file(directory / "model.safetensors") for directory in (theirs, ours))
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def test_real_lmdeploy_serves_the_model_without_and_with_its_adapter(
    make_box: MakeBox, tiny: Path, tmp_path: Path
) -> None:
    box = make_box()
    adapter = lora_adapter(tiny, tmp_path / "sft-lora")
    options = ["--adapter", "none", "--adapter", str(adapter), "--subjects", "law", "--", "--backend", "pytorch"]
    result = box.run(tiny, *options)

    assert result.returncode == 0, result.stderr
    assert f"with adapter {adapter}" in result.stderr
    assert "against tiny" in result.stdout
    (written,) = box.out.glob("*-sweep-tiny/sweep.json")
    (comparison,) = json.loads(written.read_text(encoding="utf-8"))["comparisons"]
    assert (comparison["new"]["model"], comparison["new"]["answered"]) == ("sft-lora", 2)
