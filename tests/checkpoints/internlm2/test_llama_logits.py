"""A rewritten checkpoint computes what the InternLM2 checkpoint computes."""

from pathlib import Path
from typing import Any

import pytest

from bundle.checkpoints.internlm2 import rewrite_as_llama
from tests.checkpoints.internlm2.checkpoints import small_config, write_checkpoint
from tests.checkpoints.internlm2.reference import internlm2_logits
from tests.late import late

torch, transformers, safetensors = late("torch"), late("transformers"), late("safetensors.torch")

IDS = [1, 4863, 663, 13, 260, 282, 4000, 271, 13, 3, 757, 726, 288, 260, 739, 13, 261, 728, 687, 4862, 13]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="two query heads a key"),
        pytest.param({"num_attention_heads": 8}, id="four query heads a key", marks=pytest.mark.slow),
        pytest.param({"num_key_value_heads": 4}, id="a key for every query head", marks=pytest.mark.slow),
        pytest.param({"num_key_value_heads": 1}, id="one key for all", marks=pytest.mark.slow),
        pytest.param({"bias": True}, id="attention with bias", marks=pytest.mark.slow),
        pytest.param({"tie_word_embeddings": True}, id="tied embeddings"),
        pytest.param({"rope_theta": 10000}, id="another rope base", marks=pytest.mark.slow),
        pytest.param({"rope_scaling": {"type": "linear", "factor": 4.0}}, id="linear rope"),
        pytest.param(
            {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, id="dynamic rope, short text", marks=pytest.mark.slow
        ),
        pytest.param(
            {"rope_scaling": {"factor": 3.0, "type": "dynamic"}, "max_position_embeddings": 8},
            id="dynamic rope, text longer than trained",
        ),
    ],
)
def test_logits_equal_an_independent_internlm2_forward(tmp_path: Path, tiny: Path, changes: dict[str, Any]) -> None:
    source = write_checkpoint(tmp_path / "source", tiny, **changes)

    model = transformers.AutoModelForCausalLM.from_pretrained(
        rewrite_as_llama(source, tmp_path / "cache"), dtype=torch.float32
    )

    assert isinstance(model, transformers.LlamaForCausalLM)
    with torch.no_grad():
        actual = model(torch.tensor([IDS])).logits[0].double()
    expected = internlm2_logits(small_config(**changes), safetensors.load_file(source / "model.safetensors"), IDS)
    assert expected.std() > 0.5  # the comparison means something only where the logits differ
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=2e-4)


def test_every_parameter_of_llama_comes_from_the_checkpoint(tmp_path: Path, tiny: Path) -> None:
    source = write_checkpoint(tmp_path / "source", tiny, bias=True)

    _, info = transformers.AutoModelForCausalLM.from_pretrained(
        rewrite_as_llama(source, tmp_path / "cache"), output_loading_info=True
    )

    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float32"])
def test_weights_keep_their_dtype_and_every_bit(tmp_path: Path, tiny: Path, name: str) -> None:
    dtype = getattr(torch, name)
    source = write_checkpoint(tmp_path / "source", tiny, dtype=dtype, torch_dtype=name)
    fused = safetensors.load_file(source / "model.safetensors")["model.layers.1.attention.wqkv.weight"]

    rewritten = safetensors.load_file(rewrite_as_llama(source, tmp_path / "cache") / "model.safetensors")

    # Two groups of [query, query, key, value], each 16 rows.
    q, k, v = (rewritten[f"model.layers.1.self_attn.{part}_proj.weight"] for part in "qkv")
    assert {tensor.dtype for tensor in rewritten.values()} == {dtype}
    assert torch.equal(q, torch.cat([fused[0:32], fused[64:96]]))
    assert torch.equal(k, torch.cat([fused[32:48], fused[96:112]]))
    assert torch.equal(v, torch.cat([fused[48:64], fused[112:128]]))


def test_the_made_checkpoint_generates_through_transformers(tmp_path: Path, tiny: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(rewrite_as_llama(tiny, tmp_path), dtype=torch.float32)

    generated = model.generate(torch.tensor([IDS]), max_new_tokens=8, do_sample=False)

    assert model.generation_config.eos_token_id == [2, 4862]
    assert generated[0, : len(IDS)].tolist() == IDS
    assert len(IDS) < generated.shape[1] <= len(IDS) + 8
