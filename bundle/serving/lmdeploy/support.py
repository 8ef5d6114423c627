"""What lmdeploy serves: architectures, kinds of quantized weights, and the GPUs that its own engine has code for.

The installed lmdeploy's source is read: importing it would take seconds.

The library of that engine, TurboMind, in the wheels on PyPI holds code for sm_70 to sm_90a in 0.12, and for sm_100a and
sm_120a as well from 0.13 on. lmdeploy takes it for every architecture that it knows, whatever the GPU.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from bundle.checkpoints import language_configs
from bundle.serving.gpus import Gpu
from bundle.system.files import text_if_there

Version = tuple[int, ...]

_PYTORCH: Final = re.compile(r"'(\w+)':\s*f'\{LMDEPLOY_PYTORCH_MODEL_PATH\}")
_TURBOMIND: Final = re.compile(r"^\s+(\w+)='", re.MULTILINE)
_QUANTIZED_BY: Final = re.compile(r"quant_method == '([\w-]+)'")
_TURBOMIND_SOURCES: Final = ("converter.py", "deploy/converter.py")
_GROUP_SIZES: Final = {"awq": (128,), "gptq": (128,), "compressed-tensors": (32, 128)}
"""Of TurboMind's kernels, 0.12 to 0.18 (``_SUPPORTED_GROUP_SIZES`` in its converter)."""
_CODE_FOR_ONE: Final = {(9, 0): (0, 12), (10, 0): (0, 13), (12, 0): (0, 13)}
_CODE_FROM: Final = ((7, 0), (7, 5), (8, 0))
"""Compute capabilities that TurboMind has code for: for one alone, since a version of lmdeploy; or from one on."""

WINDOW_BY_LAYER: Final = frozenset({"GptOssForCausalLM", "Gemma3ForConditionalGeneration"})
"""The architectures whose sliding window it applies to the layers that have one, and to no other.

For others, TurboMind applies none, and the PyTorch engine drops from the cache, for all layers, what lies before it.
"""
_WINDOWS: Final = dict.fromkeys(
    ("mistral", "gemma2", "gemma3_text", "qwen2", "qwen2_moe", "qwen2_vl", "qwen3", "qwen3_moe"), 4096
) | {"gpt_oss": 128}
"""By model_type, what transformers takes where config.json has no sliding_window."""


def sliding_window(config: Mapping[str, Any]) -> int | None:
    """How many tokens a layer of the model sees at most, as transformers reads config.json.

    None if it sees all, or lmdeploy computes just that, as of DeepSeek-V4.
    """
    for one in language_configs(config):
        kind = str(one.get("model_type"))
        if kind == "deepseek_v4":
            return None
        window = one.get("sliding_window", _WINDOWS.get(kind))
        if isinstance(window, int) and window > 0 and one.get("use_sliding_window", not kind.startswith("qwen")):
            return window
    return None


def has_other_positions_in_turbomind(config: Mapping[str, Any]) -> bool:
    """Whether TurboMind would compute other positions than transformers, vLLM and the PyTorch backend.

    For YaRN it divides ``max_position_embeddings`` by the original number, whatever the ``factor`` is, as where a model
    was given one by hand (Qwen's own advice); and where there are ``rope_parameters``, it looks for ``rope_theta`` in
    them alone, in 0.14 to 0.18 (``parse_rope_param``).
    """
    new, positions = config.get("rope_parameters"), config.get("max_position_embeddings")
    scaling = new or config.get("rope_scaling")
    if isinstance(new, Mapping) and "rope_theta" in config and "rope_theta" not in new:
        return True
    if not isinstance(scaling, Mapping) or scaling.get("rope_type", scaling.get("type")) != "yarn":
        return False
    original = scaling.get("original_max_position_embeddings")
    return bool(original and positions) and positions != scaling.get("factor", 1) * original


def architectures(package: Path) -> frozenset[str] | None:
    """What it serves with either backend; None if that is unknown."""
    pytorch = text_if_there(package / "pytorch" / "models" / "module_map.py")
    return frozenset(_PYTORCH.findall(pytorch)) | turbomind_architectures(package) or None


def turbomind_architectures(package: Path) -> frozenset[str]:
    """What TurboMind serves, and lmdeploy serves with TurboMind unless another backend is chosen."""
    source = text_if_there(package / "turbomind" / "supported_models.py")
    return frozenset(_TURBOMIND.findall(source.partition("SUPPORTED_ARCHS")[2].partition(")\n")[0]))


def refused_quantization(
    package: Path, settings: Mapping[str, Any], architecture: str, backend: str | None
) -> str | None:
    """Why lmdeploy cannot serve weights that are quantized in this way; None if it can, or that is unknown.

    ``package`` is the directory of the installed lmdeploy, ``settings`` are the checkpoint's ``quantization_config``,
    and ``backend`` is as in ``--backend``: None where lmdeploy chooses.
    """
    method = settings["quant_method"]
    pytorch = _named_in(package / "pytorch" / "nn" / "linear" / "__init__.py")
    turbomind = frozenset[str]().union(*(_named_in(package / "turbomind" / name) for name in _TURBOMIND_SOURCES))
    if not pytorch or not turbomind:
        return None
    # Mixtures of experts are computed in more ways than single layers.
    pytorch |= _named_in(package / "pytorch" / "nn" / "moe" / "__init__.py")
    # Left to itself, lmdeploy takes TurboMind for what TurboMind serves, and sees only later how it is quantized.
    served_by_turbomind = architecture in turbomind_architectures(package) and method != "smooth_quant"
    chosen = backend or ("turbomind" if served_by_turbomind else "pytorch")
    if chosen == "turbomind":
        why = _unknown_to_turbomind(method, settings) if method in turbomind else _takes("TurboMind", turbomind, method)
        return f"{why}; its other backend may (`-- --backend pytorch`)" if why and method in pytorch else why
    if method == "fp8" and _splits_its_attention_unusually(package, architecture):
        return (
            "its PyTorch backend takes no fp8 weights of this architecture; TurboMind does on GPUs that compute in fp8"
        )
    return None if method in pytorch else _takes("PyTorch", pytorch, method)


def scores_texts(package: Path) -> bool:
    """Whether the PyTorch backend says how likely a text is that it is given, as it does since 0.18."""
    return "logprob_start_len" in text_if_there(package / "serve" / "openai" / "endpoints" / "generate.py")


def activation(package: Path, architecture: str) -> str | None:
    """The activation that it computes for an architecture, whatever config.json says; None if that is asked."""
    source = _model(package, architecture)
    return "silu" if "SiluAndMul(" in source and "hidden_act" not in source else None


def ties_always(package: Path, architecture: str) -> bool:
    """Whether the PyTorch backend takes the embeddings for the output projection, whatever config.json says."""
    source = _model(package, architecture)
    return "lm_head.weight = self.model.embed_tokens.weight" in source and "tie_word_embeddings" not in source


def has_turbomind_code(capability: Version, lmdeploy: Version) -> bool:
    """Whether the TurboMind of this lmdeploy contains code for a GPU of this compute capability.

    Code runs on every GPU of the same major capability that is not older than what it was built for; that of 9.0a,
    10.0a and 12.0a on these alone (CUDA C++ Programming Guide, "Binary Compatibility").
    """
    if capability in _CODE_FOR_ONE:
        return lmdeploy >= _CODE_FOR_ONE[capability]
    return any(built[0] == capability[0] and built <= capability for built in _CODE_FROM)


def without_turbomind(gpus: Iterable[Gpu], capabilities: Mapping[str, Version], lmdeploy: Version) -> str | None:
    """The first GPU that TurboMind has no code for, according to the driver; None if it has code for all."""
    for gpu in gpus:
        capability = capabilities.get(gpu.uuid)
        if capability is not None and not has_turbomind_code(capability, lmdeploy):
            return f"{gpu.name} (compute capability {dotted(capability)})"
    return None


def dotted(version: Version) -> str:
    """A version or a capability as people write it."""
    return ".".join(map(str, version))


def _splits_its_attention_unusually(package: Path, architecture: str) -> bool:
    """Whether the PyTorch backend would fail at an assertion while it loads fp8 weights, as for InternLM2's wqkv."""
    if "layout='hgd'" not in _model(package, architecture):
        return False
    return "assert layout == 'default'" in text_if_there(package / "pytorch" / "nn" / "linear" / "blocked_fp8.py")


def _model(package: Path, architecture: str) -> str:
    """The source of the PyTorch backend's model of an architecture; nothing if there is none."""
    models = package / "pytorch" / "models"
    named = re.search(
        rf"'{architecture}':\s*f'\{{LMDEPLOY_PYTORCH_MODEL_PATH\}}\.(\w+)", text_if_there(models / "module_map.py")
    )
    return text_if_there(models / f"{named[1]}.py") if named else ""


def _takes(backend: str, methods: frozenset[str], method: str) -> str:
    return f"its {backend} backend takes weights quantized by {', '.join(sorted(methods))}, not by {method}"


def _unknown_to_turbomind(method: str, settings: Mapping[str, Any]) -> str | None:
    """What TurboMind asserts of a method's settings while it loads the weights."""
    group_size: object = settings.get("group_size") or None
    if method == "awq" and settings.get("version") != "gemm":
        return f'TurboMind takes AWQ weights of version "gemm", not {settings.get("version")!r}'
    if method == "gptq" and (settings.get("desc_act") or not settings.get("sym", True)):
        return "TurboMind takes only symmetric GPTQ weights without desc_act"
    if method == "gptq" and settings.get("checkpoint_format") == "gptq_v2":
        return 'TurboMind reads the zeros of GPTQ weights as those of the older format ("checkpoint_format": "gptq")'
    if method == "compressed-tensors":
        try:
            group = settings["config_groups"]["group_0"]
            weights, stored = group["weights"], group["format"]
            kind = (weights["num_bits"], weights["type"])
            group_size = weights["group_size"]
        except (KeyError, TypeError) as error:
            return f"TurboMind cannot read this compressed-tensors configuration ({error!r} in its config_groups)"
        if stored != "pack-quantized" or kind != (4, "int"):
            return (
                f"TurboMind takes compressed-tensors only as 4-bit integers in the format pack-quantized, not {stored}"
            )
    sizes = _GROUP_SIZES.get(method)
    if sizes and group_size is not None and group_size not in sizes:
        return f"TurboMind takes {method} weights in groups of {' or '.join(map(str, sizes))}, not of {group_size}"
    return None


def _named_in(source: Path) -> frozenset[str]:
    """The methods that a file of lmdeploy's compares a ``quant_method`` with."""
    return frozenset(_QUANTIZED_BY.findall(text_if_there(source)))
