"""How quantized weights are stored: what takes the place of a module's ``weight``, and what that cannot do without.

Layouts are those of published checkpoints, as vLLM's and transformers' loaders read them. Which modules were left alone
(``modules_to_not_convert``, ``ignored_layers``, ``ignore``, ``dynamic``) need not be known: a module may have either.
"""

import json
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from bundle.checkpoints._files import read_json_object, shown
from bundle.checkpoints._safetensors import StoredTensor
from bundle.checkpoints._settings import Rules, is_a, is_list_of, is_size, language_configs, wrong_setting, wrong_value
from bundle.errors import CheckpointError

_KV_SCALES: Final = {"k_scale", "v_scale", "q_scale", "kv_scale", "k_zero_point", "v_zero_point", "output_scale"}
_BESIDE: Final[dict[str, set[str]]] = {
    "awq": {"qweight", "qzeros", "scales", "bias"},
    "gptq": {"qweight", "qzeros", "scales", "g_idx", "bias"},
    "fp8": {"weight_scale", "weight_scale_inv", "input_scale", "activation_scale", "act_scale"},
    "compressed-tensors": {
        *("weight_packed", "weight_shape", "weight_scale", "weight_zero_point", "weight_g_idx", "weight_global_scale"),
        *("input_scale", "input_zero_point", "input_global_scale", "output_zero_point"),
    },
    "bitsandbytes": {
        *("absmax", "quant_map", "nested_absmax", "nested_quant_map", "bitsandbytes__nf4", "bitsandbytes__fp4"),
        *("SCB", "weight_format"),
    },
    "smooth_quant": {"scale"},  # lmdeploy's own (``QLinear``)
}
"""The last parts of the names of tensors that stand beside, or in place of, a weight, by ``quant_method``."""
_PACKED: Final = {"awq": "qweight", "gptq": "qweight", "compressed-tensors": "weight_packed"}
_FORMATS: Final = (
    *("dense", "pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision"),
    *("nvfp4-pack-quantized", "mxfp4-pack-quantized", "mxfp8-quantized"),
)
_QUANTIZED_BY_ENGINES: Final = {"bitnet", "experts_int8", "fouroversix", "fp_quant"}
"""Methods whose checkpoints may hold full-precision weights, which an engine then quantizes as it loads them."""
_LEFT_ALONE: Final = ("modules_to_not_convert", "ignored_layers", "llm_int8_skip_modules", "dynamic")
"""Settings that say which modules are not quantized."""
_FILES: Final = {"quantize_config.json": "gptq", "quant_config.json": "awq"}
"""Of AutoGPTQ and AutoAWQ, before transformers had ``quantization_config``."""
_RENAMED: Final = {"w_bit": "bits", "q_group_size": "group_size"}
_IS_OTHER: Final = re.compile("model|damp|meta")
_MODELOPT: Final = "hf_quant_config.json"
_STATE: Final = ("quant_state.bitsandbytes__nf4", "quant_state.bitsandbytes__fp4")


_SETTINGS: Final[Rules] = {
    **dict.fromkeys(("bits", "w_bit"), ("a positive integer", is_size)),
    **dict.fromkeys(("group_size", "q_group_size"), ("a positive integer or -1", lambda x: x == -1 or is_size(x))),
    **dict.fromkeys(("zero_point", "sym", "desc_act", "load_in_4bit", "load_in_8bit"), ("true or false", is_a(bool))),
    **dict.fromkeys(_LEFT_ALONE[:3], ("a list of names", lambda x: is_list_of(is_a(str), x))),
    **dict.fromkeys(("config_groups", "dynamic"), ("an object", is_a(dict))),
    "activation_scheme": ('"dynamic" or "static"', lambda x: x in ("dynamic", "static")),
    "weight_block_size": ("two positive integers", lambda x: is_list_of(is_size, x, 2)),
}
_OF_A_GROUP: Final[Rules] = {
    "num_bits": _SETTINGS["bits"],
    "group_size": _SETTINGS["group_size"],
    "symmetric": _SETTINGS["sym"],
}


def read_quantization(directory: Path, names: Collection[str], config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """How the weights are quantized, with a ``quant_method``; None if they are not.

    Raises CheckpointError if that is in no form that engines read, or a value in it cannot be right.
    """
    found = (one.get("quantization_config") for one in language_configs(config))
    settings = next((one for one in found if one is not None), None)
    if settings is None and _MODELOPT in names:
        # ModelOpt's older exports write it there alone, where vLLM looks for it too.
        settings = {"quant_method": "modelopt", **read_json_object(directory / _MODELOPT)}
    if settings is None:
        return None
    if isinstance(settings, Mapping) and (settings.get("load_in_4bit") or settings.get("load_in_8bit")):
        settings = {"quant_method": "bitsandbytes", **settings}  # as transformers takes it
    if not isinstance(settings, Mapping) or not isinstance(settings.get("quant_method"), str):
        if config.get("quantization") == settings:
            raise CheckpointError(
                f"{shown(directory)} is quantized in the format of MLX, which runs only on Apple silicon.",
                remedy="Give the checkpoint it was converted from.",
            )
        raise CheckpointError(
            f"{shown(directory / 'config.json')} has a quantization_config without a quant_method.",
            remedy='Add the method the weights are quantized with, such as "quant_method": "awq".',
        )
    if settings["quant_method"] in _BESIDE:
        groups = (wrong_value(one, _OF_A_GROUP) for one in _of_groups(settings))
        if (wrong := next(filter(None, (wrong_value(settings, _SETTINGS), *groups)), None)) is not None:
            raise wrong_setting(directory / "config.json", f"in quantization_config, {wrong}")
    return settings


def _of_groups(settings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What ``config_groups`` say of weights, for each of these."""
    groups = settings.get("config_groups")
    groups = groups.values() if isinstance(groups, Mapping) else ()
    weights = [one.get("weights") or {} for one in groups if isinstance(one, Mapping)]
    return [one for one in weights if isinstance(one, Mapping)]


def settings_elsewhere(directory: Path, config: Mapping[str, Any]) -> str | None:
    """What to do about settings that older tools left where not every engine looks for them; None if there are none."""
    if "compression_config" in config:
        return "Rename compression_config in config.json, as it was called in 2024, to quantization_config."
    for name, method in _FILES.items():
        if (directory / name).is_file():
            found = read_json_object(directory / name)
            settings = {_RENAMED.get(key, key): value for key, value in found.items() if not _IS_OTHER.search(key)}
            if "version" in settings:
                settings["version"] = str(settings["version"]).lower()
            written = json.dumps({"quant_method": method, **settings})
            return f'Add the settings in {name} to config.json, where engines look: "quantization_config": {written}.'
    return None


class QuantizedLayout:
    """The layout of a ``quantization_config``; without one, that of weights that are not quantized.

    Attributes:
        method: Its ``quant_method``; None without one.
        unknown: Why nothing can be said of it; None if something can.
        beside: What the names of tensors beside weights end with.
        packed: What those of packed weights end with, in place of ``weight``.
    """

    def __init__(self, settings: object) -> None:
        self._settings: Mapping[str, Any] = settings if isinstance(settings, Mapping) else {}
        method = self._settings.get("quant_method")
        self.method: str | None = None if method is None else shown(method)
        self.unknown = None if method is None else self._why_unknown()
        self.beside = _KV_SCALES | _BESIDE[self.method] if self.method in _BESIDE else frozenset[str]()
        self.packed = _PACKED.get(self.method or "")
        self._weights = _of_groups(self._settings)

    @property
    def is_of_weights(self) -> bool:
        """Whether the weights must be quantized where they are stored: not the cache alone, and not by the engine."""
        if self.method is None or self.method in _QUANTIZED_BY_ENGINES:
            return False
        if self.method == "compressed-tensors":
            return any(self._weights)
        return not _names_the_cache(self._settings)

    def leaves_alone(self, module: str) -> bool:
        """Whether a module may have its full-precision weight, as far as the settings say which are quantized."""
        if self.method in (None, "compressed-tensors") or self._settings.get("modules_in_block_to_quantize"):
            return True
        names = [self._settings.get(name) or () for name in _LEFT_ALONE]
        # Patterns are left to the engine.
        return any(isinstance(some, Mapping) or any("*" in one or one in module for one in some) for some in names)

    def _why_unknown(self) -> str | None:
        settings, method = self._settings, self.method
        if method not in _BESIDE:
            return f"unknown tensor layout of the quantization method {method}"
        stored: object = None
        if method == "gptq":
            stored = "marlin" if settings.get("is_marlin_format") else settings.get("checkpoint_format")
            stored = None if stored in ("gptq", "gptq_v2", "") else stored
        elif method == "compressed-tensors":
            sparsity = settings.get("sparsity_config")
            formats = [settings.get("format"), sparsity.get("format") if isinstance(sparsity, Mapping) else None]
            stored = next((one for one in formats if one is not None and one not in _FORMATS), None)
        return None if stored is None else f"unknown tensor layout of {method} weights in the format {shown(stored)}"

    def find(
        self, module: str, shape: tuple[int, ...], tensors: Mapping[str, StoredTensor]
    ) -> tuple[str, tuple[int, ...] | None] | None:
        """The name of the tensor that holds a module's weight; None if it is not there.

        With it the shape it should have, None where that does not follow; ``shape`` is that before quantization.
        """
        name = f"{module}.weight"
        if name in tensors:
            packed = self.method == "bitsandbytes" and any(f"{name}.{part}" in tensors for part in _STATE)
            return name, None if packed else shape
        packed_name = f"{module}.{self.packed}"
        if packed_name in tensors and len(shape) == 2:
            # Some pack into bytes, or into 16 bits.
            return packed_name, self._packed_shape(*shape) if tensors[packed_name].dtype == "I32" else None
        return None

    def lacking(self, module: str, shape: tuple[int, ...], tensors: Mapping[str, StoredTensor]) -> list[str]:
        """The tensors without which a module's weight, which is there, cannot be read."""
        weight = tensors.get(f"{module}.weight")
        if weight is None:
            needed = self._beside_packed()
        elif self.method == "bitsandbytes":
            needed = self._beside_bitsandbytes(f"{module}.weight", shape, tensors)
        elif self.method is not None and weight.dtype.startswith(("F8", "I8")):
            # The second with blocks, as DeepSeek has introduced it.
            scales = ("scale",) if self.method == "smooth_quant" else ("weight_scale", "weight_scale_inv")
            needed = [scales[::-1] if self._settings.get("weight_block_size") else scales]
            if self.method == "fp8" and self._settings.get("activation_scheme") == "static":
                needed.append(("input_scale", "activation_scale", "act_scale"))
        else:
            return []
        return [f"{module}.{names[0]}" for names in needed if not any(f"{module}.{one}" in tensors for one in names)]

    def expected_scales(
        self, module: str, shape: tuple[int, ...], tensors: Mapping[str, StoredTensor]
    ) -> tuple[str, tuple[int, ...]] | None:
        """The name of a quantized weight's scales, and the shape they have with the settings' groups or blocks.

        None if they are not there, or their shape does not follow.
        """
        if len(shape) != 2:
            return None
        rows, columns = shape
        name, tall, wide = "", None, None  # one scale for so many rows and columns
        if self.method in ("awq", "gptq") and self._packed_shape(rows, columns) is not None:
            name, tall, wide = "scales", self._settings.get("group_size", self._settings.get("q_group_size")), 1
            rows, columns = columns, rows  # they are stored like their weight, transposed
        elif self.method == "fp8":
            name, (tall, wide) = "weight_scale_inv", self._settings.get("weight_block_size") or (None, None)
        elif self.method == "compressed-tensors" and self._packed_shape(rows, columns) is not None:
            sizes = {one.get("group_size") for one in self._weights if one.get("strategy") == "group"}
            name, tall, wide = "weight_scale", 1, sizes.pop() if len(sizes) == len(self._weights) == 1 else None
        if tall is None or wide is None or f"{module}.{name}" not in tensors:
            return None
        return f"{module}.{name}", (1 if tall == -1 else -(-rows // tall), -(-columns // wide))

    def _beside_packed(self) -> list[tuple[str, ...]]:
        """Kinds of tensors of which a packed weight needs one each, by the names it may have."""
        settings = self._settings
        if self.method == "compressed-tensors":
            asymmetric = self._weights and all(one.get("symmetric") is False for one in self._weights)
            return [
                ("weight_scale",),
                *([("weight_global_scale",)] if settings.get("format") == "nvfp4-pack-quantized" else []),
                *([("weight_zero_point",)] if asymmetric else []),
            ]
        # The zeros of symmetric weights follow, and without act-order the groups are in their order.
        no_zeros = settings.get("sym", True) if self.method == "gptq" else settings.get("zero_point") is False
        return [
            ("scales",),
            *([] if no_zeros else [("qzeros",)]),
            *([("g_idx",)] if self.method == "gptq" and settings.get("desc_act") else []),
        ]

    @staticmethod
    def _beside_bitsandbytes(
        name: str, shape: tuple[int, ...], tensors: Mapping[str, StoredTensor]
    ) -> list[tuple[str, ...]]:
        if tensors[name].dtype == "I8":
            return [("SCB",)]
        if tensors[name].shape == shape and not any(f"{name}.{part}" in tensors for part in _STATE):
            return []  # one of those left alone
        scales = tensors.get(f"{name}.absmax")
        nested = ("nested_absmax", "nested_quant_map") if scales is not None and scales.dtype == "U8" else ()
        return [
            *((f"weight.{part}",) for part in ("absmax", "quant_map", *nested)),
            tuple(f"weight.{s}" for s in _STATE),
        ]

    def _packed_shape(self, rows: int, columns: int) -> tuple[int, ...] | None:
        """The shape of a packed weight (int32 of several numbers each); None if it does not follow."""
        settings = self._settings
        if self.method == "compressed-tensors":
            bits = [one.get("num_bits") for one in self._weights]
            if settings.get("format") != "pack-quantized" or bits not in ([4] * len(bits), [8] * len(bits)) or not bits:
                return None
            return rows, math.ceil(columns * bits[0] / 32)
        each = settings.get("bits", settings.get("w_bit", 4))
        if type(each) is not int or settings.get("version", "gemm") not in ("gemm", "GEMM"):
            return None
        # Rules for single modules, as GPTQModel writes them, may give them other numbers of bits, or other groups.
        if re.search("bits|group_size", str(settings.get("dynamic"))) or settings.get("pack_dtype") not in (
            None,
            "int32",
        ):
            return None
        return (columns, rows * each // 32) if self.method == "awq" else (columns * each // 32, rows)


def _names_the_cache(settings: object) -> bool:
    """Whether settings say how the cache of keys and values is quantized."""
    return isinstance(settings, Mapping) and any(
        (value and "kv_cache" in str(key)) or _names_the_cache(value) for key, value in settings.items()
    )
