"""Values in a checkpoint's JSON files that no engine can work with, or that engines take for different things."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeGuard

from bundle.checkpoints._files import shown
from bundle.checkpoints._implied_tensors import Family, architecture_of, family_of
from bundle.errors import CheckpointError

# Where multimodal configurations keep that of their language model.
_TEXT_CONFIGS: Final = ("text_config", "llm_config", "language_config", "thinker_config")

Rules = Mapping[str, tuple[str, Callable[[Any], bool]]]
"""What a value must be, in words, and whether it is that. One that is not there, or null, has a default."""


def vocab_size(config: Mapping[str, Any]) -> int | None:
    """The number of token ids a model knows, from its ``config.json``; None if it does not say."""
    return first_number(config, "vocab_size", "padded_vocab_size")


def first_number(config: Mapping[str, Any], *keys: str) -> int | None:
    """The first positive integer under one of the keys, here or in the language model's own configuration."""
    values = (one.get(key) for one in language_configs(config) for key in keys)
    return next(filter(is_size, values), None)


def language_configs(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A configuration, and within a multimodal one its language model's own."""
    yield config
    for name in _TEXT_CONFIGS:
        if isinstance(nested := config.get(name), dict):
            yield from language_configs(nested)


def check_settings(directory: Path, configs: Mapping[str, Mapping[str, Any]], architecture: str) -> None:
    """Check the values in a checkpoint's files, by their names; raises CheckpointError if one cannot be right."""
    config = configs["config.json"]
    if config.get("use_sliding_window") is False:  # then transformers 5 may write 0
        config = {**config, "sliding_window": None}
    end = _ends(vocab_size(config))
    wrong = wrong_value(config, end)
    if wrong is None and (family := family_of(config)) is not None:
        wrong = wrong_value(config, _CONFIG) or _wrong_rope(config, family) or _wrong_layer_types(config)
        wrong = wrong or _wrong_model_type(config, architecture, family)
    if wrong is not None:
        raise wrong_setting(directory / "config.json", wrong)
    if (wrong := wrong_value(configs.get("generation_config.json", {}), end)) is not None:
        raise wrong_setting(directory / "generation_config.json", wrong)


def wrong_setting(path: Path, what: str) -> CheckpointError:
    """The error for a value in a file."""
    return CheckpointError(f"{shown(path)}: {what}.", remedy="Compare it with the one the model was published with.")


def wrong_value(settings: Mapping[str, Any], rules: Rules) -> str | None:
    """What is wrong with the first value that breaks its rule; None if none does."""
    for name, (what, is_right) in rules.items():
        value = settings.get(name)
        if value is not None and not is_right(value):
            return f"{name} must be {what}, not {shown(repr(value), 80)}"
    return None


def is_size(value: object) -> TypeGuard[int]:
    """Whether it is a positive integer."""
    return type(value) is int and value > 0


def is_list_of(kind: Callable[[Any], bool], value: object, length: int | None = None) -> bool:
    """Whether it is a list of such items, as many as asked."""
    return isinstance(value, list) and all(map(kind, value)) and length in (None, len(value))


def is_a(kind: type) -> Callable[[object], bool]:
    """Whether a value is of a type."""
    return lambda value: isinstance(value, kind)


def is_positive(value: object) -> bool:
    """Whether it is a positive number, and not infinite."""
    return type(value) in (int, float) and 0 < float(str(value)) < float("inf")


_ACTIVATIONS: Final = (
    *("gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_pytorch_tanh"),
    *("gelu_python_tanh", "quick_gelu", "relu", "relu2", "relu6", "sigmoid", "silu", "swish", "tanh", "xielu"),
)
_DTYPES: Final = (
    *("bfloat16", "float16", "float32", "float64", "half", "float", "double"),
    *("float8_e4m3fn", "float8_e5m2", "int8", "uint8"),
)
_CONFIG: Final[Rules] = {
    **dict.fromkeys(("hidden_act", "hidden_activation"), ("an activation's name", lambda x: x in _ACTIVATIONS)),
    **dict.fromkeys(("torch_dtype", "dtype"), ("the name of a dtype", lambda x: x in _DTYPES)),
    **dict.fromkeys(("max_position_embeddings", "num_experts_per_tok"), ("a positive integer", is_size)),
    **dict.fromkeys(("rope_theta", "rms_norm_eps"), ("a positive number", is_positive)),
    **dict.fromkeys(("tie_word_embeddings", "use_sliding_window"), ("true or false", is_a(bool))),
    "sliding_window": ("a positive integer", is_size),
    "layer_types": ("a list", is_a(list)),
    "is_causal": ("true", lambda x: x is True),  # transformers 5 looks at it, and other engines do not
    **dict.fromkeys(("rope_scaling", "rope_parameters"), ("an object", is_a(dict))),
}
"""Of a config.json, where the architecture is one of transformers' own."""

_FACTOR: Final[Rules] = {"factor": ("a positive number", is_positive)}
_LISTS: Final[Rules] = dict.fromkeys(
    ("short_factor", "long_factor"), ("a list of numbers", lambda x: is_list_of(is_positive, x))
)
_ROPE: Final[Mapping[str, Rules]] = {
    "default": {},
    "mrope": {},
    "proportional": {},
    **dict.fromkeys(("linear", "dynamic", "ntk", "yarn"), _FACTOR),
    **dict.fromkeys(("longrope", "su"), _LISTS),
    "llama3": {
        **_FACTOR,
        **dict.fromkeys(("low_freq_factor", "high_freq_factor"), ("a positive number", is_positive)),
        "original_max_position_embeddings": ("a positive integer", is_size),
    },
}
"""What each kind of scaled positions must give (transformers' ``modeling_rope_utils``)."""
_ROPE_KEYS: Final = ("rope_scaling", "rope_parameters")
_POSITIONS_OF_LLAMA_2: Final = 4096
"""Models for longer texts have another rope_theta, or say so: left out, the weights fit all the same."""
_SAME_ROPE: Final = {"su": "longrope", "mrope": "default"}


def scalings(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], object]]:
    """How positions are scaled: the key that says so, its settings, and their kind."""
    for key in _ROPE_KEYS:
        given = config.get(key) or {}
        nested = [one for one in given.values() if isinstance(one, dict)]  # by the kind of a layer's attention
        for settings in nested or [given]:
            kind = settings.get("rope_type", settings.get("type", None if "factor" in settings else "default"))
            yield key, settings, kind


def _wrong_rope(config: Mapping[str, Any], family: Family) -> str | None:
    """What is wrong with how positions are scaled; None if nothing is. An engine may ignore what it does not know."""
    for key, settings, kind in scalings(config):
        if not isinstance(kind, str) or kind not in _ROPE:
            return f"{key} has the rope_type {shown(repr(kind), 40)}; known are {', '.join(_ROPE)}"
        older = settings.get("type", kind)
        if older != kind and _SAME_ROPE.get(str(older), older) != _SAME_ROPE.get(kind, kind):
            return f"{key} has the rope_type {kind} and the type {shown(repr(older), 40)}"
        absent = [name for name in _ROPE[kind] if settings.get(name) is None]
        wrong = f"lacks {', '.join(absent)}" if absent else wrong_value(settings, _ROPE[kind])
        if wrong is not None:
            return f"in {key} of the type {kind}, {wrong}" if not absent else f"{key} of the type {kind} {wrong}"
    for key in _ROPE_KEYS:
        given = config.get(key) or {}
        part = given.get("partial_rotary_factor", config.get("partial_rotary_factor"))
        if part not in (None, 1) and not family.rotates_a_part:  # then transformers ignores it, and lmdeploy does not
            name = shown(architecture_of(config))
            return f"{name} has no partial_rotary_factor, and engines differ in what they make of it"
    bases = [config.get("rope_theta"), *(settings.get("rope_theta") for _, settings, _ in scalings(config))]
    positions = config.get("max_position_embeddings") or 0
    if not any(bases) and not config.get("rope_scaling") and positions > _POSITIONS_OF_LLAMA_2:
        return f"it gives no rope_theta, and engines would take Llama 2's 10000 for {positions} positions"
    return _contradicted_rope(config)


def _contradicted_rope(config: Mapping[str, Any]) -> str | None:
    """How transformers 5's ``rope_parameters`` contradict the older keys: lmdeploy looks at nothing else then."""
    given = config.get("rope_parameters") or {}
    scaling = dict(config.get("rope_scaling") or {})
    theta = config.get("rope_theta")
    inner = scaling.get("rope_theta", theta)  # which transformers 5 takes, and other engines do not look at
    if not given and inner != theta:
        return f"rope_theta is {shown(repr(theta), 40)}, and {shown(repr(inner), 40)} within rope_scaling"
    if not given or any(isinstance(one, dict) for one in given.values()):
        return None
    kind = scaling.pop("type", None)
    older = {"rope_type": kind, **scaling} if kind else scaling
    if theta is not None:
        older["rope_theta"] = theta
    given = {"rope_type": given.get("type", "default"), **given}
    for name, value in older.items():
        if given.get(name) != value:
            return (
                f"rope_parameters and the older keys beside it differ in {shown(name, 40)}: "
                f"{shown(repr(given.get(name)), 40)} and {shown(repr(value), 40)}"
            )
    return None


def _wrong_layer_types(config: Mapping[str, Any]) -> str | None:
    """How ``layer_types``, as transformers 5 writes it, contradicts the older keys, which other engines look at."""
    kinds, count = config.get("layer_types") or [], config.get("num_hidden_layers")
    if kinds and len(kinds) != count:
        return f"layer_types has {len(kinds)} entries, num_hidden_layers is {shown(repr(count), 40)}"
    if config.get("use_sliding_window") is False and "sliding_attention" in kinds:
        return "use_sliding_window is false, but layer_types has sliding_attention"
    return None


def _wrong_model_type(config: Mapping[str, Any], architecture: str, family: Family) -> str | None:
    """How ``model_type``, by which transformers chooses the model's class, contradicts ``architectures``.

    Other engines choose by ``architecture``, which ``architectures`` names and is one of transformers' own.
    """
    expected = family.model_type or architecture.removesuffix("ForCausalLM").lower()
    given = config.get("model_type", expected)
    if given == expected or "auto_map" in config:
        return None
    return f"model_type is {shown(repr(given), 80)}, but that of {shown(architecture)} is {expected!r}"


def _ends(vocab_size: int | None) -> Rules:
    """The rule for what ends a reply, in config.json and generation_config.json."""
    below = f" below the vocab_size of {vocab_size}" if vocab_size else ""

    def is_id(value: object) -> bool:
        return type(value) is int and (vocab_size is None or value < vocab_size)

    return {
        "eos_token_id": (f"a token id{below}, or a list of them", lambda x: is_id(x) or is_list_of(is_id, x)),
        "pad_token_id": ("a token id", lambda x: type(x) is int),
    }
