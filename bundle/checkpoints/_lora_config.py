"""peft's ``adapter_config.json``: what of it decides how an adapter is merged, and for which modules it is."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, ValidationError

from bundle.checkpoints._files import read_json_object, shown
from bundle.config.faults import first_fault
from bundle.errors import CheckpointError

ADAPTER_CONFIG: Final = "adapter_config.json"
MERGE_WITH_PEFT: Final = (
    "Merge it with peft (`PeftModel.from_pretrained(base, DIR).merge_and_unload().save_pretrained(OUT)`, and save the "
    "tokenizer there too); then give that directory."
)
_MORE_THAN_A_PRODUCT: Final = {
    "use_dora": "uses DoRA",
    "fan_in_fan_out": "is for transposed weights (fan_in_fan_out)",
    "layer_replication": "replicates layers",
    "alora_invocation_tokens": "is an activated LoRA",
    "arrow_config": "is a mixture of adapters",
    "use_bdlora": "is block-diagonal",
    "use_qalora": "uses QA-LoRA",
    "kasa_config": "uses KaSA",
    "monteclora_config": "uses MonteCLoRA",
    "lora_bias": "has biases of its own (lora_bias)",
    "target_parameters": "changes parameters that are not modules (target_parameters)",
    "trainable_token_indices": "changes single tokens' embeddings (trainable_token_indices)",
}
"""Settings with which merging is more than adding a product, and what they make of the adapter."""
_BASE_UNCHANGED: Final = (None, True, False, "gaussian", "eva", "orthogonal")
"""Ways to initialize an adapter that leave the base's weights as they are; PiSSA, OLoRA, CorDA and LoftQ do not."""
_JUDGES: Final = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")
_ALL_LINEAR: Final = "all-linear"
_LAYER: Final = re.compile(r".*?\.[^.]*\.(\d+)\.")

_Value = TypeVar("_Value")


def _is_expression(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{shown(repr(pattern), 80)} is not a valid regular expression ({error})") from None
    return pattern


def _are_names(value: object) -> str | tuple[str, ...] | None:
    if isinstance(value, str):
        return _is_expression(value)
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(value)
    if value is None:
        return None
    raise ValueError(f"must be a list of module names, or a regular expression, not {value!r}")


def _are_patterns(patterns: Mapping[str, _Value]) -> Mapping[str, _Value]:
    for pattern in patterns:
        _is_expression(pattern)
    return patterns


_Rank = Annotated[int, Field(ge=1, strict=True)]
# None was ever trained with a larger one, and what it makes of the weights is no longer a number.
_Alpha = Annotated[float, Field(gt=0, le=1e6, strict=True, allow_inf_nan=False)]
_Names = Annotated[str | tuple[str, ...] | None, BeforeValidator(_are_names)]
_Indices = Annotated[
    list[Annotated[int, Field(strict=True)]], BeforeValidator(lambda one: one if isinstance(one, list) else [one])
]
_ByModule = Annotated[
    Mapping[str, _Value], AfterValidator(_are_patterns), BeforeValidator(lambda value: {} if value is None else value)
]


class LoraConfig(BaseModel):
    """How an adapter is merged, and for which modules it is (``LoraConfig`` in peft)."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    base_model_name_or_path: str | None = None
    r: _Rank
    lora_alpha: _Alpha
    use_rslora: StrictBool = False
    rank_pattern: _ByModule[_Rank] = {}
    alpha_pattern: _ByModule[_Alpha] = {}
    bias: Literal["none", "all", "lora_only"] = "none"
    target_modules: _Names = None
    exclude_modules: _Names = None
    modules_to_save: _Names = None
    ensure_weight_tying: bool | None = None
    layers_to_transform: _Indices | None = None
    layers_pattern: _Names = None

    def rank(self, module: str) -> int:
        """The rank of a module's factors."""
        return _own(self.rank_pattern, module, self.r)

    def scale(self, module: str) -> float:
        """What the product of a module's factors is multiplied by (``LoraLayer.update_layer`` in peft)."""
        rank = self.rank(module)
        return _own(self.alpha_pattern, module, self.lora_alpha) / (math.sqrt(rank) if self.use_rslora else rank)

    def targets(self, module: str, names: str | tuple[str, ...]) -> bool:
        """Whether an adapter with these ``target_modules`` is for a module (``check_target_module_exists`` in peft)."""
        if _is_named(self.exclude_modules, module) or any(
            re.match(rf"(^|.*\.){re.escape(whole)}($|\..*)", module) for whole in self.modules_to_save or ()
        ):
            return False
        if isinstance(names, str) and names.lower() == _ALL_LINEAR:
            return True
        return _is_named(names, module) and (isinstance(names, str) or module in names or self._is_in_layers(module))

    def _is_in_layers(self, module: str) -> bool:
        if not self.layers_to_transform:
            return True
        patterns = (self.layers_pattern,) if isinstance(self.layers_pattern, str) else self.layers_pattern or ()
        found = [re.match(rf"(?:^|.*?\.){re.escape(pattern)}\.(\d+)\.", module) for pattern in patterns if pattern]
        match = next(filter(None, found or [_LAYER.match(module)]), None)
        return match is not None and int(match[1]) in self.layers_to_transform


def _own(patterns: Mapping[str, _Value], module: str, otherwise: _Value) -> _Value:
    """A module's own value, or the one for all (``get_pattern_key`` in peft)."""
    own = (value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module))
    return next(own, otherwise)


def _is_named(names: str | tuple[str, ...] | None, module: str) -> bool:
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(f".{module}".endswith(f".{name}") for name in names or ())


def read_lora_config(directory: Path) -> LoraConfig:
    """Read an adapter's configuration.

    Raises CheckpointError if it is not one of a LoRA adapter that is merged by adding, or a value in it cannot be
    right.
    """
    file = directory / ADAPTER_CONFIG
    settings = read_json_object(file)
    _require_plain_lora(directory, settings)
    try:
        return LoraConfig.model_validate(settings)
    except ValidationError as error:
        fault = first_fault(error, LoraConfig).rstrip(".").replace("a table", "a JSON object")
        found = error.errors()[0]
        if found["type"] not in ("missing", "value_error", "literal_error"):
            fault += f", not {found['input']!r}"
        raise CheckpointError(
            f"{shown(file)} cannot be used: {shown(fault)}.",
            remedy="Take it from the training run again, or correct the value.",
        ) from None


def _require_plain_lora(directory: Path, settings: Mapping[str, Any]) -> None:
    kind = settings.get("peft_type")
    if kind != "LORA":
        what = f"names no peft_type in {ADAPTER_CONFIG}" if kind is None else f"is not a LoRA adapter but {shown(kind)}"
        raise CheckpointError(f"{shown(directory)} {what}.", remedy=MERGE_WITH_PEFT)
    if (task := settings.get("task_type")) in _JUDGES:
        raise CheckpointError(
            f"The adapter {shown(directory)} is for a classifier or a reward model (task_type {task}).",
            remedy="Give one that was trained to generate text (task_type CAUSAL_LM).",
        )
    more = next((what for setting, what in _MORE_THAN_A_PRODUCT.items() if settings.get(setting)), None)
    start = settings.get("init_lora_weights")
    if more is None and start not in _BASE_UNCHANGED:
        more = f"was initialized by {shown(start)}, which changes the base's weights"
    if more is not None:
        raise CheckpointError(f"The adapter {shown(directory)} {more}.", remedy=MERGE_WITH_PEFT)
