"""How long prompts and replies may be with vLLM, and how much memory to take, as far as the user leaves that to us."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bundle.checkpoints import Checkpoint
from bundle.serving.gpus import Gpu

LENGTH: Final = "--max-model-len"

_GPU_SHARE: Final = 0.9
"""vLLM's default share of a GPU's memory to use."""
_SPARE_MIB: Final = 512
"""What stays free beside the server's share, for vLLM refuses to start with less free than its share."""

_TOKENS_PER_SLOT: Final = 4096
"""Prompt and reply of a long question: what the CPU's cache should hold for every slot."""
_UNKNOWN_CACHE_GIB: Final = 4
_BESIDE_WEIGHTS_GIB: Final = 3
"""What its processes take on the CPU beside the weights and the cache."""


def gpu_options(config: Mapping[str, Any], gpus: Sequence[Gpu]) -> list[str]:
    """The options for a server on these GPUs."""
    options = [LENGTH, str(unscaled_length(config) or "auto")]
    memory = [(gpu.free_mib, gpu.total_mib) for gpu in gpus]
    shares = [(free - _SPARE_MIB) / total for free, total in memory if free is not None and total]
    if (share := min(shares, default=1.0)) < _GPU_SHARE:
        options += ["--gpu-memory-utilization", f"{math.floor(share * 100) / 100:.2f}"]
    return options


def cpu_options(config: Mapping[str, Any], dtype: str, cache_gib: int) -> list[str]:
    """The options for a server on the CPU, where the length cannot be "auto"."""
    options = ["--enforce-eager"]  # compiling takes longer than it saves in one run
    trained = unscaled_length(config) or config.get("max_position_embeddings")
    if isinstance(trained, int) and trained:
        token = _cache_bytes_per_token(config, dtype)
        options += [LENGTH, str(min(trained, cache_gib * 2**30 // token if token else trained))]
    return options


def cpu_cache_gib(checkpoint: Checkpoint, slots: int, dtype: str) -> int:
    """GiB for the cache on the CPU: what the slots need, at most half of what is free beside the weights."""
    token = _cache_bytes_per_token(checkpoint.config, dtype)
    wanted = math.ceil(token * slots * _TOKENS_PER_SLOT / 2**30) if token else _UNKNOWN_CACHE_GIB
    weights_gib = checkpoint.weights.size * (2 if dtype == "float32" else 1) / 2**30
    import psutil  # takes 20 ms, which other engines do not wait for

    free_gib = psutil.virtual_memory().available / 2**30 - weights_gib - _BESIDE_WEIGHTS_GIB
    return max(1, min(wanted, int(free_gib / 2)))


def unscaled_length(config: Mapping[str, Any]) -> int | None:
    """Up to how many tokens the scaling of positions is that of short texts; None if it depends on no length.

    vLLM adds up the positions that dynamic RoPE scaling could reach, and has sines for the trained ones alone. Up to
    these, scaling that is dynamic changes nothing: the length must end there. So it must with LongRoPE: were it longer,
    vLLM would take the factors of long texts for short ones too.
    """
    scaling = config.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(scaling, dict):
        return None
    kind = scaling.get("rope_type", scaling.get("type"))
    length = config.get("max_position_embeddings") if kind == "dynamic" else None
    if kind in ("longrope", "su"):
        name = "original_max_position_embeddings"
        length = config.get(name, scaling.get(name))
    return length if isinstance(length, int) else None


def _cache_bytes_per_token(config: Mapping[str, Any], dtype: str) -> int | None:
    """What keys and values of one token take in the cache; None if config.json does not say."""
    names = ("num_hidden_layers", "num_attention_heads", "hidden_size")
    layers, heads, hidden = (config.get(name) for name in names)
    if not (isinstance(layers, int) and isinstance(heads, int) and heads > 0 and isinstance(hidden, int)):
        return None
    kv_heads, head_dim = config.get("num_key_value_heads") or heads, config.get("head_dim") or hidden // heads
    if not (isinstance(kv_heads, int) and isinstance(head_dim, int)):
        return None
    return 2 * layers * kv_heads * head_dim * (4 if dtype == "float32" else 2)
