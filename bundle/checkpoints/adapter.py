"""A LoRA adapter: what its directory holds, and whether it can be merged into the model it was trained on."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from bundle.checkpoints._directory import directories_with, require_directory
from bundle.checkpoints._files import list_names, listed, read_json_object, shown
from bundle.checkpoints._lora_config import ADAPTER_CONFIG, LoraConfig, read_lora_config
from bundle.checkpoints._safetensors import FLOATS, Weights
from bundle.checkpoints._values import is_finite, is_zero, read_values
from bundle.checkpoints._weights import ADAPTER_WEIGHTS, read_weights
from bundle.checkpoints.inspection import Checkpoint
from bundle.errors import CheckpointError
from bundle.system.files import model_name

_PREFIX: Final = "base_model.model."
_FACTOR: Final = re.compile(r"(.+)\.lora_(?:([AB])\.weight|embedding_([AB]))")
_NOT_ALWAYS_ADAPTED: Final = re.compile(r"\.experts\.|\.gate$|(?:^|\.)(?:embed_tokens|tok_embeddings|lm_head|output)$")
"""Modules that are none in every release of transformers, and those that "all-linear" leaves out."""
_EMBEDDINGS: Final = re.compile(r"(?:embed_tokens|tok_embeddings)\.weight$")
_HEAD: Final = re.compile(r"(?:lm_head|output)(?:\.|$)")
_OWN_BASE: Final = (
    "Give the base model that it was trained on; if its vocabulary was resized for the training, the resized one."
)
_UNTIE: Final = (
    "The adapter brings an output layer, the base's is its embeddings: save the base with an lm_head.weight of its own "
    "and tie_word_embeddings = false, then give that one."
)
_WRAPPED: Final = re.compile(rf"(?:{re.escape(_PREFIX)}|_orig_mod\.|_wrapped_module\.|\.lora_[AB]\.default\.)")
"""Names of what a model was wrapped in for its training, beside peft's wrapper."""
_SAVE_WITH_PEFT: Final = (
    "Its names are not those that peft saves an adapter with: save it again, with "
    "`accelerator.unwrap_model(model).save_pretrained(DIR)`."
)
_INCOMPLETE: Final = "The file is incomplete: save or copy the adapter again."
_ONE_RUN: Final = "Take both files from the same training run."


class Product(NamedTuple):
    """What is added to a tensor of the base: its factors' names in the adapter's file, and their product's scale.

    That of an embedding's factors is transposed: the embedding has a row for each token.
    """

    a: str
    b: str
    scale: float
    transposed: bool


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter.

    Attributes:
        weights: The file of its weights.
        products: Name of a tensor of the base -> what is added to it.
        replaced: Name of a tensor of the base -> that of the tensor that takes its place.
        notes: What the user should know of it.
    """

    path: Path
    weights: Path
    products: Mapping[str, Product]
    replaced: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        return model_name(self.path)


def inspect_adapter(path: Path, base: Checkpoint) -> Adapter:
    """Look at an adapter's directory, and hold it against its configuration and the base.

    The adapter's own tensors, which are small, are read; of the base's only what its headers say. Raises
    CheckpointError if it is not a LoRA adapter, is damaged, does not fit the base, or cannot be merged by adding.
    """
    path = require_directory(path, "--adapter", f"{ADAPTER_CONFIG} and {ADAPTER_WEIGHTS[0]}")
    names = list_names(path)
    if ADAPTER_CONFIG not in names:
        raise _no_adapter(path, names)
    config = read_lora_config(path)
    file = next((path / name for name in ADAPTER_WEIGHTS if name in names), None)
    if file is None:
        raise CheckpointError(
            f"{shown(path)} has no {ADAPTER_WEIGHTS[0]}.", remedy="Copy or save the adapter's weights as well."
        )
    _require_base(base, path)
    weights = read_weights(file)
    zeros = _zeros(weights)
    factors, wholes = _by_module(weights)
    products, replaced = _held_against_base(path, config, weights, factors, wholes, base)
    notes = _held_against_config(file, config, products, replaced, base)
    is_tied = not config.ensure_weight_tying and not any(map(_HEAD.match, (*factors, *wholes, *base.weights.tensors)))
    if is_tied and any(map(_EMBEDDINGS.search, (*products, *replaced))):
        notes.append(
            "warning: the adapter changes the embeddings, which are the base's output layer too: in training they "
            "were changed alone, but merging, as peft's does, changes both; for the model as it was trained, save the "
            "base with an lm_head.weight of its own and tie_word_embeddings = false"
        )
    if not replaced and all(one.a in zeros or one.b in zeros for one in products.values()):
        notes.append(
            f"warning: the adapter changes nothing: all of its lora_B (or lora_A) are zero, as before training; "
            f"the score is that of {base.name}"
        )
    return Adapter(path, file, products, replaced, tuple(notes))


def _require_base(base: Checkpoint, path: Path) -> None:
    """Raise CheckpointError if no adapter can be merged into a base, or this one has been already."""
    if base.quantization is not None:
        raise CheckpointError(
            f"{shown(base.path)} is quantized ({base.quantization}), so no adapter can be merged into it.",
            remedy="Give the checkpoint that it was quantized from.",
        )
    if ADAPTER_CONFIG in list_names(base.path) and read_json_object(base.path / ADAPTER_CONFIG) == read_json_object(
        path / ADAPTER_CONFIG
    ):
        raise CheckpointError(
            f"The adapter {shown(path)} is merged into {shown(base.path)} already: its {ADAPTER_CONFIG} lies there.",
            remedy="Evaluate that directory without --adapter, or give the base model; if it is the base, delete the "
            f"{ADAPTER_CONFIG} in it.",
        )
    if any(file.suffix != ".safetensors" for file in base.weights.files):
        raise CheckpointError(
            f"The weights in {shown(base.path)} are PyTorch .bin files; only safetensors can be merged.",
            remedy="Save the model again as safetensors.",
        )


def _no_adapter(path: Path, names: tuple[str, ...]) -> CheckpointError:
    if "config.json" in names:
        remedy = "Give a whole model as MODEL_DIR, without --adapter; --adapter none is the model alone."
    elif inside := directories_with(ADAPTER_CONFIG, path, names):
        remedy = f"Give {listed(inside)}."
    else:
        remedy = "Give the directory that peft saved the adapter to."
    return CheckpointError(f"{shown(path)} has no {ADAPTER_CONFIG}, so it is not a LoRA adapter.", remedy=remedy)


def _zeros(weights: Weights) -> set[str]:
    """The tensors of an adapter that are zero everywhere.

    Raises CheckpointError if there are values that none can have after training.
    """
    zeros, file = set(), weights.files[0]
    for name, tensor in weights.tensors.items():
        if tensor.dtype not in FLOATS:
            raise CheckpointError(
                f"{shown(file)}: {shown(name)} is {shown(tensor.dtype)}, not floating point.",
                remedy="Save the adapter again, in float32 or bfloat16.",
            )
        if name not in weights.places:
            raise CheckpointError(
                f"{shown(file)} holds {shown(name)} in several pieces.",
                remedy="Save the adapter again as safetensors (`model.save_pretrained(DIR)`).",
            )
        values = read_values(weights, name)
        if not is_finite(tensor.dtype, values):
            raise CheckpointError(
                f"{shown(file)}: {shown(name)} holds values that are not finite (NaN or infinite).",
                remedy="The training run has diverged: give an adapter that was saved before.",
            )
        if is_zero(values):
            zeros.add(name)
    return zeros


def _by_module(weights: Weights) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """The names of an adapter's factors, by module and ``A`` or ``B``; and of its other tensors, by the base's name."""
    factors: dict[str, dict[str, str]] = {}
    wholes: dict[str, str] = {}
    for name in weights.tensors:
        own = name.removeprefix(_PREFIX)
        if match := _FACTOR.fullmatch(own):
            factors.setdefault(match[1], {})[match[2] or match[3]] = name
        else:  # older ones keep peft's wrapper in such names
            wholes[re.sub(r"\.modules_to_save(?:\.default)?(?=\.)|\.base_layer(?=\.)", "", own)] = name
    return factors, wholes


def _held_against_base(
    path: Path,
    config: LoraConfig,
    weights: Weights,
    factors: Mapping[str, Mapping[str, str]],
    wholes: Mapping[str, str],
    base: Checkpoint,
) -> tuple[dict[str, Product], dict[str, str]]:
    tensors, stored, file = base.weights.tensors, weights.tensors, weights.files[0]
    replaced: dict[str, str] = {}
    absent = [name for module in factors if (name := f"{module}.weight") not in tensors]
    strange = []
    for whole, name in wholes.items():
        if whole not in tensors:
            # peft saves both after a change of the vocabulary
            absent += [] if whole == "lm_head.weight" and _is_its_embeddings(weights, wholes) else [whole]
        elif (own := tensors[whole].shape) != (brought := stored[name].shape):
            strange.append(f"{shown(whole)} is {list(own)}, the adapter's is {list(brought)}")
        else:
            replaced[whole] = name
    if absent or strange:
        remedy = _OWN_BASE
        if any(map(_WRAPPED.search, (*factors, *wholes))):
            remedy = _SAVE_WITH_PEFT
        elif any(map(_HEAD.match, (*factors, *wholes))) and not any(map(_HEAD.match, tensors)):
            remedy = _UNTIE
        why = f"the model has no {listed(dict.fromkeys(absent))}" if absent else listed(strange)
        raise _does_not_fit(path, base, why, remedy)
    if not factors:
        raise CheckpointError(f"{shown(file)} holds no LoRA weights.", remedy="Save the adapter again.")
    products = {}
    for module, pair in factors.items():
        if lacking := {"A", "B"} - pair.keys():
            raise CheckpointError(f"{shown(file)} lacks lora_{lacking.pop()} of {shown(module)}.", remedy=_INCOMPLETE)
        a, b, (dtype, shape) = stored[pair["A"]].shape, stored[pair["B"]].shape, tensors[f"{module}.weight"]
        rank = a[0] if a else 0
        transposed = not pair["A"].endswith(".weight")
        rows, columns = (shape[1:], shape[:1]) if transposed else (shape[:1], shape[1:])
        if (b, a) != ((*rows, rank), (rank, *columns)):
            raise _does_not_fit(path, base, f"{shown(module)} is {list(shape)}, its factors are {list(b)} x {list(a)}")
        if dtype not in FLOATS:
            raise _does_not_fit(path, base, f"{shown(module)} is {shown(dtype)}, not floating point")
        if config.rank(module) != rank:
            given = f"{shown(path / ADAPTER_CONFIG)} gives {shown(module)} rank {config.rank(module)}"
            raise CheckpointError(f"{given}; its weights have rank {rank}.", remedy=_ONE_RUN)
        products[f"{module}.weight"] = Product(pair["A"], pair["B"], config.scale(module), transposed)
    return products, replaced


def _is_its_embeddings(weights: Weights, wholes: Mapping[str, str]) -> bool:
    """Whether an adapter's output layer is a copy of the embeddings that it brings."""
    head, embeddings = wholes["lm_head.weight"], wholes.get("model.embed_tokens.weight")
    if embeddings is None or weights.tensors[embeddings] != weights.tensors[head]:
        return False
    return read_values(weights, head) == read_values(weights, embeddings)


def _does_not_fit(path: Path, base: Checkpoint, why: str, remedy: str = _OWN_BASE) -> CheckpointError:
    return CheckpointError(f"The adapter {shown(path)} does not fit {shown(base.path)}: {why}.", remedy=remedy)


def _held_against_config(
    file: Path, config: LoraConfig, products: Mapping[str, Product], replaced: Mapping[str, str], base: Checkpoint
) -> list[str]:
    """Check that an adapter's file holds what its configuration names; returns what the user should know."""
    notes = []
    named = config.base_model_name_or_path
    if named and model_name(named).casefold() != base.name.casefold():
        notes.append(f"the adapter was trained on {named}, according to its config, not on {base.path}")
    modules = [name.removesuffix(".weight") for name in products]
    if (lacking := _require_targets(file, config, modules, base)) is not None:
        notes.append(f"warning: the adapter {lacking}")
    for name in config.modules_to_save or ():
        # An output layer that is the embeddings may have been saved as these.
        is_tied_head = bool(_HEAD.match(f"{name}.")) and base.weights_unchecked is None
        is_saved = any(f"{name}." in one or (is_tied_head and _EMBEDDINGS.search(one)) for one in replaced)
        if not is_saved and (is_tied_head or any(f"{name}." in one for one in base.weights.tensors)):
            what = f"{shown(name)}, one of modules_to_save in {ADAPTER_CONFIG}"
            raise CheckpointError(f"{shown(file)} lacks {what}.", remedy=_INCOMPLETE)
    biases = [one for one in base.weights.tensors if one.endswith(".bias") and config.bias != "none"]
    if config.bias == "lora_only":
        biases = [one for one in biases if one.removesuffix(".bias") in modules]
    if kept := [one for one in biases if one not in replaced]:
        trained = f"{len(kept)} biases that were trained with it (bias: {config.bias})"
        notes.append(f"warning: the adapter lacks {trained}; the base's stay")
    return notes


def _require_targets(file: Path, config: LoraConfig, modules: list[str], base: Checkpoint) -> str | None:
    """Hold the modules that an adapter has factors of against those that its configuration targets.

    Returns how it may be incomplete: a file of an unknown layout may hold more modules than the model has.
    """
    targets = config.target_modules
    if targets is None:  # then the modules' own names are all that there is to go by
        targets = tuple({module.rpartition(".")[2] for module in modules})
    if other := [module for module in modules if not config.targets(module, targets)]:
        these = "these" if len(other) > 1 else "it"
        written = shown(repr(targets)) if isinstance(targets, str) else listed(targets) or "none"
        raise CheckpointError(
            f"{shown(file)} holds factors of {listed(other)}, but {ADAPTER_CONFIG} does not target {these} "
            f"(target_modules: {written}).",
            remedy=_ONE_RUN,
        )
    matrices = [name.removesuffix(".weight") for name, one in base.weights.tensors.items() if len(one.shape) == 2]
    targeted = [one for one in matrices if not _NOT_ALWAYS_ADAPTED.search(one) and config.targets(one, targets)]
    absent = [module for module in targeted if module not in modules]
    said = f"lacks the factors of {len(absent)} of the {len(targeted)} modules that {ADAPTER_CONFIG} targets"
    if absent and base.weights_unchecked is None:
        raise CheckpointError(f"{shown(file)} {said}: {listed(absent)}.", remedy=_INCOMPLETE)
    return f"{said}, if the model has them: {listed(absent)}" if absent else None
