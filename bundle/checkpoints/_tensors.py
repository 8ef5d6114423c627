"""Whether the weights are the tensors that config.json implies.

An engine that finds a tensor missing may fill it with random numbers or zeros and serve on, so names and shapes in the
safetensors headers are compared before it starts.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from bundle.checkpoints._files import listed, mismatch, shown
from bundle.checkpoints._implied_tensors import Shapes, family_of, implied_tensors, is_internlm2
from bundle.checkpoints._layers import examine_layers
from bundle.checkpoints._quantized import QuantizedLayout, settings_elsewhere
from bundle.checkpoints._safetensors import FLOATS, StoredTensor
from bundle.errors import CheckpointError

_ONE_DOWNLOAD: Final = "Take config.json and all weight files from the same download of the model, or save it again."
_IN_NO_SHAPE: Final = ("num_hidden_layers", "num_attention_heads")
"""A default that is wrong here fits the weights: engines would leave layers out, or cut heads at other places."""
_FACTOR: Final = re.compile(r"\.lora_[AB]\.(?:default\.)?weight$")
_WRAPPED: Final = re.compile(
    r"^(?:module|base_model\.model|v_head)\.|(?:^|\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
    r"|\.modules_to_save\."
)
"""Names of torch's, peft's and TRL's wrappers. Not so ``base_layer``, which Phi-4-multimodal has as published."""
_LAYER: Final = re.compile(r"model\.layers\.(\d+)\.")
_PROJECTION: Final = re.compile(r"\.layers\.\d+\..*(?:_proj|\.w\d|\.wqkv|\.wo)$")


def tied_tensors(config: Mapping[str, Any], stored: Mapping[str, StoredTensor]) -> tuple[str, str] | None:
    """Embeddings and output projection, where a config.json says that they are one and both are stored."""
    if not _are_tied(config):
        return None
    first, second = "model.embed_tokens.weight", "lm_head.weight"
    if is_internlm2(config):
        first, second = "model.tok_embeddings.weight", "output.weight"
    both = first in stored and second in stored and stored[first] == stored[second]
    return (first, second) if both else None


def _are_tied(config: Mapping[str, Any]) -> bool:
    family = family_of(config)
    return bool(config.get("tie_word_embeddings", family is not None and family.is_tied))


def check_tensors(directory: Path, config: Mapping[str, Any], stored: Mapping[str, StoredTensor]) -> str | None:
    """Compare stored tensors with config.json; return why that cannot be done, or None if it was and they are whole.

    Raises CheckpointError if some are missing, left over, or of another shape or kind.
    """
    _require_own_names(directory, stored)
    layout = QuantizedLayout(config.get("quantization_config"))
    dtypes = {tensor.dtype for tensor in stored.values()}
    if layout.is_of_weights and stored and dtypes <= FLOATS:
        save_compressed = ", or save them with save_compressed=True" * (layout.method == "compressed-tensors")
        raise CheckpointError(
            f"{shown(directory)}: quantization_config says that the weights are quantized by {layout.method}, but all "
            f"{len(stored)} tensors are {' or '.join(sorted(dtypes))}.",
            remedy="If they are the model in full precision, remove quantization_config from config.json (or delete "
            f"hf_quant_config.json); else give the quantized weights{save_compressed}.",
        )
    implied = implied_tensors(config)
    unknown = implied if isinstance(implied, str) else layout.unknown
    if isinstance(implied, str) or layout.unknown is not None:
        problems, compared = examine_layers(config, stored, layout)
        absent = [key for key in _IN_NO_SHAPE if config.get(key) is None] if family_of(config) is not None else []
        if absent and any(map(_LAYER.match, stored)):
            problems.insert(0, f"it does not give {listed(absent)}, and engines would take another model's")
        packed = [
            name
            for name, tensor in stored.items()
            if name.endswith((".qweight", ".weight_packed"))
            or (name.endswith(".weight") and tensor.dtype not in (*FLOATS, "unknown"))
        ]
        if packed and layout.method is None:
            problems.insert(0, f"quantized tensors without a quantization_config ({len(packed)}): {listed(packed)}")
    else:
        problems, compared = _problems(config, implied, stored, layout), ""
    if problems:
        remedy = None if layout.method or dtypes <= FLOATS else settings_elsewhere(directory, config)
        raise mismatch(directory, problems[0], remedy or _ONE_DOWNLOAD, problems[1:])
    return None if unknown is None else f"{unknown}; {compared}"


def _naming(implied: Shapes, stored: Mapping[str, StoredTensor]) -> str:
    """How the names differ from those that the architecture has; empty if they do not, or otherwise than in front."""
    first = next(iter(implied))
    for name in () if first in stored else stored:
        if name.endswith(f".{first}"):
            return (
                f"their names begin with {shown(name.removesuffix(first))!r}, which those of this architecture do not"
            )
        if first.endswith(f".{name}"):
            return f"their names lack the {first.removesuffix(name)!r} in front that those of this architecture have"
    return ""


def _reshaped(name: str, expected: tuple[int, ...], stored: Mapping[str, StoredTensor]) -> list[str]:
    found = stored[name].shape
    return [f"{name} has the shape {list(found)}, config.json gives {list(expected)}"] if found != expected else []


def _problems(
    config: Mapping[str, Any], implied: Shapes, stored: Mapping[str, StoredTensor], layout: QuantizedLayout
) -> list[str]:
    """What is wrong with the stored tensors, the most informative first."""
    optional = {"lm_head.weight", "output.weight"} if _are_tied(config) else set()
    missing: list[str] = []
    reshaped: list[str] = []
    plain: list[str] = []
    for name, shape in implied.items():
        module = name.removesuffix(".weight")
        found = layout.find(module, shape, stored) if name.endswith(".weight") else (name, shape)
        if found is None or found[0] not in stored:
            missing += [] if name in optional else [name]
            continue
        missing += layout.lacking(module, shape, stored) if name.endswith(".weight") else ()
        name, expected = found
        if _PROJECTION.search(module) and stored[name] == (stored[name].dtype, shape) and stored[name].dtype in FLOATS:
            plain += [] if layout.leaves_alone(module) else [name]
        other_shapes = [] if expected is None else _reshaped(name, expected, stored)
        if not other_shapes and (scales := layout.expected_scales(module, shape, stored)) is not None:
            other_shapes = _reshaped(*scales, stored)
        reshaped += other_shapes
    extra = [
        name
        for name in stored
        # Old checkpoints hold RoPE's frequencies, which follow from the configuration.
        if name not in implied
        and name.rpartition(".")[2] not in layout.beside
        and not name.endswith("rotary_emb.inv_freq")
    ]
    odd = [f"{name} is {found.dtype}" for name, found in stored.items() if found.dtype not in FLOATS]
    layers = {int(match[1]) for name in stored if (match := _LAYER.match(name))}
    found_layers = max(layers, default=-1) + 1
    told = {
        _naming(implied, stored): missing,
        f"they have {found_layers} layers, config.json gives {config['num_hidden_layers']}": found_layers
        != config["num_hidden_layers"],
        f"non-floating-point tensors without a quantization_config ({len(odd)}): {listed(odd)}": odd
        and layout.method is None,
        f"missing tensors ({len(missing)} of {len(implied)}): {listed(missing)}": missing,
        f"weights in full precision that quantization_config does not except ({len(plain)}): {listed(plain)}": plain,
        f"unexpected tensors ({len(extra)}): {listed(extra)}": extra,
        f"tensors with another shape ({len(reshaped)}): {listed(reshaped)}": reshaped,
    }
    return [problem for problem, applies in told.items() if problem and applies]


def _require_own_names(directory: Path, stored: Iterable[str]) -> None:
    """Check that tensors' names are the model's own: an engine may start without those that it has no name for.

    Raises CheckpointError if they are those of what the model was wrapped in for its training.
    """
    if factors := [name for name in stored if _FACTOR.search(name)]:
        raise CheckpointError(
            f"The weights in {shown(directory)} hold a LoRA adapter that is not merged ({len(factors)} tensors): "
            f"{listed(factors)}.",
            remedy="Merge it before saving: `model.merge_and_unload().save_pretrained(DIR)`.",
        )
    if wrapped := [name for name in stored if _WRAPPED.search(name)]:
        raise CheckpointError(
            f"The weights in {shown(directory)} have names of what the model was wrapped in for its training "
            f"({len(wrapped)} tensors): {listed(wrapped)}.",
            remedy="Save the model within: `accelerator.unwrap_model(model).save_pretrained(DIR)`, with peft after "
            "merge_and_unload(), of one with a value head (v_head) its pretrained_model.",
        )
