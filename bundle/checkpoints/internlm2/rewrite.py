"""An InternLM2 checkpoint in a form that needs none of its Python code, which a server runs with the user's rights.

For engines that know only Llama it is rewritten as a plain Llama one. InternLM2 computes what Llama does; its tensors
have other names, and query, key and value projections are fused. An engine with an InternLM2 of its own gets links to
the weights, and this program's own configuration class. For both the tokenizer, whose code silently goes wrong under
transformers 5, becomes a tokenizer.json that is proved equal to sentencepiece.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bundle.checkpoints._files import read_json_object, require_space, shown
from bundle.checkpoints._implied_tensors import Sizes, is_internlm2
from bundle.checkpoints._safetensors import Weights
from bundle.checkpoints._tensors import check_tensors
from bundle.checkpoints._weights import SAFETENSORS_INDEX, inspect_weights
from bundle.checkpoints.cache import ELSEWHERE, cached_directory, content_key
from bundle.checkpoints.internlm2.sentencepiece import USE_LMDEPLOY
from bundle.checkpoints.internlm2.tokenizer import convert_tokenizer
from bundle.errors import CheckpointError
from bundle.system.files import write_json

if TYPE_CHECKING:
    import torch

# Goes up with every change to what is written, so that no directory of an earlier version is taken for this one's.
_LLAMA: Final = "internlm2-as-llama 5"
_WITHOUT_CODE: Final = "internlm2-without-code 2"
_SETTINGS: Final = (
    *("config.json", "generation_config.json", "tokenizer.model", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "chat_template.jinja"),
)
"""The files that what is written follows from, besides the weights."""

_RENAMED: Final = {
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "model.tok_embeddings": "model.embed_tokens",
    "model.norm": "model.norm",
    "output": "lm_head",
}
CONFIGURATION: Final = "configuration_internlm2.py"
# What InternLM2's own configuration class takes where config.json is silent, and neither Llama's nor ours does.
_DEFAULTS: Final = {
    "bias": True,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000,
}


def rewrite_as_llama(source: Path, cache_root: Path, *, say: Callable[[str], None] = lambda line: None) -> Path:
    """Write an InternLM2 checkpoint as a Llama checkpoint that computes the same, or find the one written earlier.

    The directory is kept under ``cache_root`` by the content of the files it is made from (all of them are read each
    time: about a second per GB in the page cache), and is shared: read it, change nothing in it. Tensors keep their
    dtype. Raises CheckpointError if the checkpoint is incomplete or damaged, is not InternLM2, has no safetensors
    weights, or cannot be rewritten exactly, or if the cache cannot be written.
    """
    config = read_json_object(source / "config.json")
    given = config.get("architectures")
    if not is_internlm2(config):
        raise CheckpointError(
            f"{shown(source)} is not an InternLM2 checkpoint (architectures: {shown(given, 100)}).",
            remedy="Only InternLM2 checkpoints can be rewritten as Llama.",
        )
    weights = inspect_weights(source)
    settings = [source / name for name in _SETTINGS if (source / name).is_file()]

    def make(target: Path) -> None:
        say("converting the checkpoint to Llama (kept for next time)")
        _rewrite(source, config, weights, target, say)

    say("looking for an earlier conversion of this checkpoint")
    key = content_key(_LLAMA, [*settings, *weights.files])
    return cached_directory(cache_root, key, make, source=source, what="converted checkpoint", say=say)


def _rewrite(
    source: Path, config: Mapping[str, Any], weights: Weights, target: Path, say: Callable[[str], None]
) -> None:
    llama = _llama_config(config)
    sizes = Sizes.from_config(config)
    if any(file.suffix != ".safetensors" for file in weights.files):
        raise CheckpointError(
            f"{shown(source)}: its weights are PyTorch .bin files; only safetensors can be converted.",
            remedy="Download the safetensors version, or save the model again with safe_serialization=True.",
        )
    check_tensors(source, config, weights.tensors)
    require_space(target.parent, weights.size, "the converted checkpoint", ELSEWHERE)
    say("converting the tokenizer")
    end_of_turn = convert_tokenizer(source, target, sizes.vocab, say)
    from safetensors.torch import load_file, save_file  # imported late: takes seconds, and only a new rewrite needs it

    written: dict[str, str] = {}
    total = 0
    for n, path in enumerate(weights.files, start=1):
        say(
            f"converting the weights to Llama's layout, file {n} of {len(weights.files)} "
            f"({path.stat().st_size / 1e6:,.0f} MB)"
        )
        tensors = dict(_llama_tensors(load_file(path), sizes))
        save_file(tensors, target / path.name, metadata={"format": "pt"})
        written |= dict.fromkeys(tensors, path.name)
        total += sum(tensor.nbytes for tensor in tensors.values())
    if len(weights.files) > 1 or (source / SAFETENSORS_INDEX).is_file():
        write_json(target / SAFETENSORS_INDEX, {"metadata": {"total_size": total}, "weight_map": written})
    write_generation_config(source, target, config, end_of_turn)
    write_json(target / "config.json", llama)


def _llama_tensors(tensors: Mapping[str, "torch.Tensor"], sizes: Sizes) -> Iterator[tuple[str, "torch.Tensor"]]:
    """The Llama tensors that InternLM2's become: three for a wqkv, one for any other."""
    for name, tensor in tensors.items():
        stem, kind = name.rsplit(".", 1)
        layer, fused, _ = stem.rpartition("attention.wqkv")
        if name.endswith("rotary_emb.inv_freq"):  # in old checkpoints; it follows from the configuration
            continue
        if fused:
            # For each key/value head: its query heads, its key, its value.
            groups = tensor.unflatten(0, (sizes.kv_heads, -1, sizes.head_dim))
            parts = {"q_proj": groups[:, :-2], "k_proj": groups[:, -2:-1], "v_proj": groups[:, -1:]}
            for projection, part in parts.items():
                yield f"{layer}self_attn.{projection}.{kind}", part.flatten(0, 2).contiguous()
        elif stem in _RENAMED:
            yield f"{_RENAMED[stem]}.{kind}", tensor
        else:
            model, layers, number, rest = stem.split(".", 3)
            yield f"{model}.{layers}.{number}.{_RENAMED[rest]}.{kind}", tensor


def _llama_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of the Llama model that computes what this InternLM2 model does.

    Raises CheckpointError if the model has something that Llama has not.
    """
    if config.get("quantization_config") is not None:
        raise CheckpointError(
            "config.json: quantized weights cannot be converted.",
            remedy="Use the checkpoint that has not been quantized, or the lmdeploy engine.",
        )
    s = Sizes.from_config(config)
    config = {**_DEFAULTS, **config}
    rope = config.get("rope_parameters") or {}  # where transformers 5 has saved it
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": bool(config["bias"]),
        "mlp_bias": False,
        "hidden_act": config.get("hidden_act", "silu"),
        "hidden_size": s.hidden,
        "intermediate_size": s.intermediate,
        "num_attention_heads": s.heads,
        "num_hidden_layers": s.layers,
        "num_key_value_heads": s.kv_heads,
        "vocab_size": s.vocab,
        "tie_word_embeddings": bool(config.get("tie_word_embeddings", False)),
        "initializer_range": config.get("initializer_range", 0.02),
        "max_position_embeddings": config["max_position_embeddings"],
        "rms_norm_eps": config["rms_norm_eps"],
        "bos_token_id": config.get("bos_token_id", 1),
        "eos_token_id": config.get("eos_token_id", 2),
        "pad_token_id": config["pad_token_id"],
        "torch_dtype": config.get("torch_dtype", config.get("dtype")),
        "use_cache": True,
        # Both keys are understood by every transformers that knows Llama; 5 makes its rope_parameters of them.
        "rope_theta": rope.get("rope_theta", config["rope_theta"]),
        "rope_scaling": _rope_scaling(rope or config.get("rope_scaling")),
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
    if kind == "default":
        return None
    if kind not in ("linear", "dynamic") or isinstance(factor, bool) or not isinstance(factor, int | float):
        raise CheckpointError(
            f"config.json: rope_scaling {shown(scaling)} is not supported by InternLM2.", remedy=USE_LMDEPLOY
        )
    return {"rope_type": kind, "factor": float(factor)}


def write_generation_config(source: Path, target: Path, config: Mapping[str, Any], end_of_turn: int | None) -> None:
    """Write the checkpoint's own generation_config.json, in which a reply ends where a turn does.

    transformers asks neither the tokenizer nor the chat template what ends a reply.
    """
    own = source / "generation_config.json"
    defaults = {"bos_token_id": config.get("bos_token_id", 1), "pad_token_id": config.get("pad_token_id", 0)}
    generation = read_json_object(own) if own.is_file() else defaults
    eos = generation.get("eos_token_id", config.get("eos_token_id", 2))
    ends = [*(eos if isinstance(eos, list) else [eos]), end_of_turn]
    ids = list(dict.fromkeys(end for end in ends if isinstance(end, int)))
    write_json(target / own.name, {**generation, "eos_token_id": ids})


def without_code(source: Path, cache_root: Path, *, say: Callable[[str], None] = lambda line: None) -> Path:
    """A directory that serves as ``source`` does and holds none of its code; or the one made earlier.

    ``say`` gets each step that takes time, and what could not be converted. Raises CheckpointError if its
    tokenizer needs the code, or the cache cannot be written.
    """
    source = source.resolve()
    config = read_json_object(source / "config.json")
    weights = inspect_weights(source)
    linked = [*weights.files, *(path for path in source.glob("*.index.json") if path.is_file())]

    def make(target: Path) -> None:
        say("converting the tokenizer, so that none of the checkpoint's code has to run (kept for next time)")
        try:
            end_of_turn = convert_tokenizer(source, target, Sizes.from_config(config).vocab, say)
        except CheckpointError as error:
            raise CheckpointError(
                f"{shown(source)} cannot be served without its Python code: {error.message}",
                remedy="Read the code. If you trust it, add --trust-remote-code.",
                details=error.details,
            ) from error
        for path in linked:
            (target / path.name).symlink_to(path)
        write_generation_config(source, target, config, end_of_turn)
        (target / CONFIGURATION).write_bytes(configuration_code())
        auto_map = {"AutoConfig": f"{CONFIGURATION.removesuffix('.py')}.InternLM2Config"}
        write_json(target / "config.json", {**_DEFAULTS, "model_type": "internlm2", **config, "auto_map": auto_map})

    key = content_key(_WITHOUT_CODE, [path for name in _SETTINGS if (path := source / name).is_file()])
    # The links lead to this directory and no other.
    where = hashlib.sha256("\0".join([key, *map(str, linked)]).encode()).hexdigest()[:32]
    return cached_directory(cache_root, where, make, source=source, say=say)


def configuration_code() -> bytes:
    """Our own configuration class."""
    return resources.files("bundle.checkpoints.internlm2").joinpath("files", CONFIGURATION).read_bytes()
