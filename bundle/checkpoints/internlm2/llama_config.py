"""An InternLM2 config.json and generation_config.json, said in Llama's words."""

from collections.abc import Mapping
from typing import Any

from bundle.checkpoints.internlm2.architecture import Architecture
from bundle.errors import CheckpointError

_REMEDY = "Evaluate this checkpoint with the lmdeploy engine."


def llama_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of the Llama model that computes what this InternLM2 model does.

    Raises:
        CheckpointError: The model has something that Llama has not.
    """
    if config.get("quantization_config") is not None:
        raise CheckpointError(
            "config.json: the weights are quantized; they cannot be rewritten.",
            remedy="Use the checkpoint that has not been quantized, or the lmdeploy engine.",
        )
    a = Architecture.from_config(config)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": a.bias,
        "mlp_bias": False,
        "hidden_act": config.get("hidden_act", "silu"),
        "hidden_size": a.hidden_size,
        "intermediate_size": a.intermediate_size,
        "num_attention_heads": a.heads,
        "num_hidden_layers": a.layers,
        "num_key_value_heads": a.kv_heads,
        "vocab_size": a.vocab_size,
        "tie_word_embeddings": a.tied,
        # InternLM2Config's defaults, which are not Llama's.
        "initializer_range": config.get("initializer_range", 0.02),
        "max_position_embeddings": config.get("max_position_embeddings", 2048),
        "rms_norm_eps": config.get("rms_norm_eps", 1e-6),
        "bos_token_id": config.get("bos_token_id", 1),
        "eos_token_id": config.get("eos_token_id", 2),
        "pad_token_id": config.get("pad_token_id", 0),
        "torch_dtype": config.get("torch_dtype", config.get("dtype")),
        "use_cache": True,
        # Both keys are understood by every transformers that knows Llama; 5 makes its rope_parameters of them.
        "rope_theta": config.get("rope_theta", 10000),
        "rope_scaling": _rope_scaling(config.get("rope_scaling")),
    }


def _rope_scaling(scaling: object) -> dict[str, Any] | None:
    """InternLM2 knows two kinds, and both are Llama's.

    ``linear`` divides positions by the factor. ``dynamic`` (NTK) keeps RoPE as trained up to
    ``max_position_embeddings`` and raises its base by the same formula beyond. (InternLM2's own code forgets to go
    back after a longer text; Llama's does go back.)
    """
    if scaling is None:
        return None
    kind = factor = None
    if isinstance(scaling, Mapping):
        kind, factor = scaling.get("rope_type", scaling.get("type")), scaling.get("factor")
    if kind not in ("linear", "dynamic") or isinstance(factor, bool) or not isinstance(factor, int | float):
        raise CheckpointError(f"config.json: rope_scaling {scaling!r} is not one that InternLM2 has.", remedy=_REMEDY)
    return {"rope_type": kind, "factor": float(factor)}


def llama_generation_config(
    config: Mapping[str, Any], generation: Mapping[str, Any] | None, end_of_turn: int | None
) -> dict[str, Any]:
    """The generation_config.json: the checkpoint's own, else one that ends where a turn does.

    Args:
        config: The checkpoint's config.json.
        generation: Its generation_config.json, or None where it has none.
        end_of_turn: The id of the mark that ends a turn in the chat template, or None.
    """
    if generation is not None:
        return dict(generation)
    eos = config.get("eos_token_id", 2)
    ends = [*(eos if isinstance(eos, list) else [eos]), *([] if end_of_turn is None else [end_of_turn])]
    return {
        "bos_token_id": config.get("bos_token_id", 1),
        "eos_token_id": list(dict.fromkeys(ends)),
        "pad_token_id": config.get("pad_token_id", 0),
    }
