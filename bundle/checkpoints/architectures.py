"""Which architectures an installed server knows, read from its source: importing it would take seconds."""

import re
from pathlib import Path

_LMDEPLOY_PYTORCH = re.compile(r"'(\w+)':\s*f'\{LMDEPLOY_PYTORCH_MODEL_PATH\}")
_LMDEPLOY_TURBOMIND = re.compile(r"^\s+(\w+)='", re.MULTILINE)
_TRANSFORMERS = re.compile(r'"(\w+(?:ForCausalLM|LMHeadModel|ForConditionalGeneration))"')


def lmdeploy_architectures(package: Path) -> frozenset[str] | None:
    """What the lmdeploy installed in the folder ``package`` serves with either backend; None where it does not tell."""
    pytorch = _read(package / "pytorch" / "models" / "module_map.py")
    turbomind = _read(package / "turbomind" / "supported_models.py").partition("SUPPORTED_ARCHS")[2].partition(")\n")[0]
    names = _LMDEPLOY_PYTORCH.findall(pytorch) + _LMDEPLOY_TURBOMIND.findall(turbomind)
    return frozenset(names) or None


def transformers_architectures(package: Path) -> frozenset[str] | None:
    """What the transformers installed in the folder ``package`` generates text with; None where it does not tell."""
    return frozenset(_TRANSFORMERS.findall(_read(package / "models" / "auto" / "modeling_auto.py"))) or None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
