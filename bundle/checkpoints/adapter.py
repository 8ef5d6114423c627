"""A LoRA adapter, merged into the model it was trained on, as peft's ``merge_and_unload`` does.

Every engine serves the merged checkpoint, and with the same speed as any other. The base is not loaded: its weight
files are written again, one after the other, with the adapter's product added where it has one.
"""

import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bundle.checkpoints._files import list_names, listed, read_json_object, shown
from bundle.checkpoints._tensors import FLOATS
from bundle.checkpoints._weights import StoredTensor, read_safetensors_header
from bundle.checkpoints.cache import cached_directory, content_key, require_space, unwritable_cache
from bundle.checkpoints.inspection import Checkpoint
from bundle.errors import CheckpointError
from bundle.system.files import model_name, user_path

if TYPE_CHECKING:
    import torch

ADAPTER_CONFIG: Final = "adapter_config.json"
_WEIGHTS: Final = "adapter_model.safetensors"
# Goes up with every change to what is written.
_VERSION: Final = "merged-lora 1"
_PREFIX: Final = "base_model.model."
_TOKENIZER_FILES: Final = re.compile(
    r"tokenizer.*\.json|tokenizer\.model|vocab\.(?:json|txt)|merges\.txt|special_tokens_map\.json|added_tokens\.json|"
    r"chat_template\.jinja|tokenization_\w+\.py"
)
_NAME_PATTERN: Final = re.compile(r"\^?[\w.]+\$?")
_MERGE_WITH_PEFT: Final = (
    "Merge it with peft (`PeftModel.from_pretrained(base, DIR).merge_and_unload().save_pretrained(OUT)`, and save the "
    "tokenizer there too); then give that directory."
)
_UNLIKE_LORA: Final = {
    "use_dora": "uses DoRA",
    "fan_in_fan_out": "is for transposed weights (fan_in_fan_out)",
    "layer_replication": "replicates layers",
    "alora_invocation_tokens": "is an activated LoRA",
    "arrow_config": "is a mixture of adapters",
    "use_bdlora": "is block-diagonal",
}
"""Settings with which merging is more than adding a product, and what they make of the adapter."""
_BASE_UNCHANGED: Final = (None, True, False, "gaussian", "eva", "orthogonal")
"""Ways to initialize an adapter that leave the base's weights as they are; PiSSA, OLoRA, CorDA and LoftQ do not."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter.

    Attributes:
        base_name: The model that it was trained on, by its own word; None if it does not say.
        scales: Name of a tensor of the base -> what the product of its two factors is multiplied by.
        replaced: Names of tensors of the base that it brings as a whole.
    """

    path: Path
    base_name: str | None
    scales: Mapping[str, float]
    replaced: tuple[str, ...]

    @property
    def name(self) -> str:
        return model_name(self.path)


def inspect_adapter(path: Path, base: Checkpoint) -> Adapter:
    """Look at an adapter's directory, and hold it against the base. Only headers are read.

    Raises:
        CheckpointError: It is not a LoRA adapter, is damaged, does not fit the base, or cannot be merged by adding.
    """
    path = user_path(path).resolve()
    names = list_names(path)
    if ADAPTER_CONFIG not in names:
        raise CheckpointError(
            f"{shown(path)} has no {ADAPTER_CONFIG}, so it is not a LoRA adapter.",
            remedy="Give a whole model as MODEL_DIR, without --adapter."
            if "config.json" in names
            else "Give the directory that peft saved the adapter to.",
        )
    settings = read_json_object(path / ADAPTER_CONFIG)
    _require_plain_lora(path, settings)
    if _WEIGHTS not in names:
        raise CheckpointError(
            f"{shown(path)} has no {_WEIGHTS}.",
            remedy="Save the adapter again as safetensors (`model.save_pretrained(DIR)` with a peft since 0.7)."
            if "adapter_model.bin" in names
            else "Copy or save the adapter's weights as well.",
        )
    if base.quantization is not None:
        raise CheckpointError(
            f"{shown(base.path)} is quantized ({base.quantization}), so no adapter can be merged into it.",
            remedy="Give the checkpoint that it was quantized from.",
        )
    stored = read_safetensors_header(path / _WEIGHTS).tensors
    scales, replaced = _held_against_base(path, settings, stored, base)
    base_name = settings.get("base_model_name_or_path")
    return Adapter(path, base_name if isinstance(base_name, str) and base_name else None, scales, replaced)


def _require_plain_lora(path: Path, settings: Mapping[str, Any]) -> None:
    if settings.get("peft_type") != "LORA":
        raise CheckpointError(
            f"{shown(path)} is not a LoRA adapter but {shown(settings.get('peft_type'))}.", remedy=_MERGE_WITH_PEFT
        )
    unlike = next((what for setting, what in _UNLIKE_LORA.items() if settings.get(setting)), None)
    start = settings.get("init_lora_weights")
    if unlike is None and start not in _BASE_UNCHANGED:
        unlike = f"was initialized by {shown(start)}, which changes the base's weights"
    if unlike is not None:
        raise CheckpointError(f"The adapter {shown(path)} {unlike}.", remedy=_MERGE_WITH_PEFT)


def _held_against_base(
    path: Path, settings: Mapping[str, Any], stored: Mapping[str, StoredTensor], base: Checkpoint
) -> tuple[dict[str, float], tuple[str, ...]]:
    tensors = base.tensors
    if any(file.suffix != ".safetensors" for file in base.weight_files):
        raise CheckpointError(
            f"The weights in {shown(base.path)} are PyTorch .bin files; only safetensors can be merged.",
            remedy="Save the model again as safetensors.",
        )
    factors: dict[str, dict[str, StoredTensor]] = {}
    replaced, strange = [], []
    for name, tensor in stored.items():
        own = name.removeprefix(_PREFIX)
        if match := re.fullmatch(r"(.+)\.lora_([AB])\.weight", own):
            factors.setdefault(f"{match[1]}.weight", {})[match[2]] = tensor
        elif ".lora_" in own or tensors.get(_whole(own), tensor).shape != tensor.shape:
            strange.append(name)
        elif _whole(own) in tensors:
            replaced.append(_whole(own))
        else:
            strange.append(name)
    if absent := [name for name in factors if name not in tensors]:
        raise _does_not_fit(path, base, f"the model has no {listed(absent)}")
    if strange:
        raise _does_not_fit(path, base, f"{listed(strange)} cannot be placed in it")
    if not factors:
        raise CheckpointError(f"{shown(path / _WEIGHTS)} holds no LoRA weights.", remedy="Save the adapter again.")
    scales = {}
    for name, pair in factors.items():
        a, b, whole = pair.get("A"), pair.get("B"), tensors[name]
        if a is None or b is None:
            raise _does_not_fit(path, base, f"{shown(name)} has only one of its two factors")
        if (
            len(a.shape) != 2
            or len(b.shape) != 2
            or (b.shape[0], a.shape[1]) != whole.shape
            or a.shape[0] != b.shape[1]
        ):
            raise _does_not_fit(
                path, base, f"{shown(name)} is {list(whole.shape)}, its factors are {list(b.shape)} x {list(a.shape)}"
            )
        if whole.dtype not in FLOATS:
            raise _does_not_fit(path, base, f"{shown(name)} is {shown(whole.dtype)}, not plain floating point")
        scales[name] = _scale(path, settings, name.removesuffix(".weight"), a.shape[0])
    return scales, tuple(replaced)


def _whole(name: str) -> str:
    """The base's name of a tensor that an adapter brings as a whole (older ones keep peft's wrapper in it)."""
    return re.sub(r"\.modules_to_save(?:\.default)?(?=\.)|\.base_layer(?=\.)", "", name)


def _does_not_fit(path: Path, base: Checkpoint, why: str) -> CheckpointError:
    return CheckpointError(
        f"The adapter {shown(path)} does not fit {shown(base.path)}: {why}.",
        remedy="Give the base model that it was trained on.",
    )


def _scale(path: Path, settings: Mapping[str, Any], module: str, rank: int) -> float:
    """What the product of a module's factors is multiplied by (``LoraLayer.update_layer`` in peft)."""
    alpha = _pattern(path, settings, "alpha_pattern", module, settings.get("lora_alpha"))
    expected = _pattern(path, settings, "rank_pattern", module, settings.get("r"))
    if type(alpha) not in (int, float) or expected != rank:
        raise CheckpointError(
            f"{shown(path / ADAPTER_CONFIG)} gives {shown(module)} rank {shown(expected)} and lora_alpha "
            f"{shown(alpha)}; its weights have rank {rank}.",
            remedy="Take both files from the same training run.",
        )
    return float(alpha) / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _pattern(path: Path, settings: Mapping[str, Any], name: str, module: str, otherwise: object) -> Any:
    """A module's own value, or the one for all (``get_pattern_key`` in peft, for patterns that are names)."""
    patterns = settings.get(name) or {}
    if not isinstance(patterns, dict) or not all(_NAME_PATTERN.fullmatch(pattern) for pattern in patterns):
        raise CheckpointError(
            f"{shown(path / ADAPTER_CONFIG)}: {name} has entries that are not module names.", remedy=_MERGE_WITH_PEFT
        )
    own = (value for key, value in patterns.items() if f".{module}".endswith(f".{key.strip('^$')}"))
    return next(own, otherwise)


def merge_adapter(
    base: Checkpoint, adapter: Adapter, cache_root: Path, *, say: Callable[[str], None] = lambda line: None
) -> Path:
    """The directory of the base with the adapter merged into it, or the one made earlier.

    It is kept under ``cache_root`` by the content of both. A tokenizer in the adapter's directory, which is the one it
    was trained with, takes the place of the base's.

    Returns:
        The merged checkpoint's directory. It is shared: read it, change nothing in it.

    Raises:
        CheckpointError: The cache cannot be written, or has too little space.
    """
    own = [adapter.path / name for name in list_names(adapter.path) if _TOKENIZER_FILES.fullmatch(name)]
    brings_tokenizer = any(file.name in ("tokenizer.json", "tokenizer.model", "vocab.json") for file in own)
    beside = [
        file for file in _beside_weights(base) if not (brings_tokenizer and _TOKENIZER_FILES.fullmatch(file.name))
    ]
    beside += own if brings_tokenizer else []
    made: list[Path] = []

    def make(target: Path) -> None:
        made.append(target)
        require_space(target, base.weight_bytes, "the merged checkpoint")
        say("merging (kept for next time)")
        _write_merged(base, adapter, target, say)
        for file in beside:
            shutil.copyfile(file, target / file.name)

    say(f"looking for an earlier merge of the adapter {shown(adapter.name)} into {shown(base.name)}")
    if brings_tokenizer:
        say("tokenizer and chat template are the adapter's")
    try:
        files = [adapter.path / ADAPTER_CONFIG, adapter.path / _WEIGHTS, *beside, *base.weight_files]
        directory = cached_directory(cache_root, content_key(_VERSION, files), make, source=adapter.path, say=say)
    except OSError as error:
        raise unwritable_cache(cache_root, error) from error
    if not made:
        say(f"using the merged checkpoint in {shown(directory)}")
    return directory


def _beside_weights(base: Checkpoint) -> list[Path]:
    """The base's files besides its weights and what is no part of a model."""
    weights = {file.name for file in base.weight_files}
    suffixes = (".json", ".py", ".model", ".txt", ".jinja", ".tiktoken")
    return [
        file
        for name in list_names(base.path)
        if name not in weights and name.endswith(suffixes) and (file := base.path / name).is_file()
    ]


def _write_merged(base: Checkpoint, adapter: Adapter, target: Path, say: Callable[[str], None]) -> None:
    from safetensors.torch import load_file, save_file  # imported late: takes seconds, and only a new merge needs it

    parts = load_file(adapter.path / _WEIGHTS)
    whole = {_whole(name.removeprefix(_PREFIX)): part for name, part in parts.items() if ".lora_" not in name}
    for number, file in enumerate(base.weight_files, start=1):
        say(f"merging, file {number} of {len(base.weight_files)} ({file.stat().st_size / 1e6:,.0f} MB)")
        merged = dict(_merged(load_file(file), adapter, parts, whole))
        save_file(merged, target / file.name, metadata={"format": "pt"})


def _merged(
    tensors: Mapping[str, "torch.Tensor"],
    adapter: Adapter,
    parts: Mapping[str, "torch.Tensor"],
    whole: Mapping[str, "torch.Tensor"],
) -> Iterator[tuple[str, "torch.Tensor"]]:
    for name, tensor in tensors.items():
        if name in adapter.replaced:
            yield name, whole[name].to(tensor.dtype).contiguous()
        elif (scale := adapter.scales.get(name)) is not None:
            module = name.removesuffix(".weight")
            a, b = (
                next(
                    parts[key]
                    for key in (f"{_PREFIX}{module}.lora_{factor}.weight", f"{module}.lora_{factor}.weight")
                    if key in parts
                )
                for factor in "AB"
            )
            # peft loads factors as float32, whatever they are stored in, and rounds once.
            yield name, (tensor.float() + (b.float() @ a.float()) * scale).to(tensor.dtype)
        else:
            yield name, tensor
