"""Checkpoints as engines can serve them: InternLM2 as Llama, and in which dtype on the CPU."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bundle.checkpoints import Checkpoint, is_internlm2
from bundle.system.files import cache_path

INTERNLM2: Final = "InternLM2ForCausalLM"
CONVERTED: Final = "llama"
"""Directory of converted checkpoints in the cache."""

_CPU_INFO: Final = Path("/proc/cpuinfo")
_BFLOAT16_INSTRUCTIONS: Final = frozenset({"avx512_bf16", "amx_bf16"})


@dataclass(frozen=True, slots=True)
class Servable:
    """A directory that an engine can load.

    Attributes:
        own_code: Whether the directory's Python code is needed and may run: the checkpoint's, or ours.
        keep: Must be kept for as long as servers read the directory: a lock; None if it is the checkpoint's own.
    """

    directory: Path
    own_code: bool
    keep: object | None


def servable(checkpoint: Checkpoint, *, trust_remote_code: bool, say: Callable[[str], None]) -> Servable:
    """The checkpoint; an InternLM2 one converted to Llama, which needs none of its Python code.

    Raises CheckpointError if it cannot be converted.
    """
    # Imported here, because lmdeploy does not wait for what converts checkpoints.
    from bundle.checkpoints.cache import hold
    from bundle.checkpoints.internlm2 import rewrite_as_llama

    if not is_internlm2(checkpoint.config):
        return Servable(checkpoint.path, trust_remote_code, None)
    directory = rewrite_as_llama(checkpoint.path, cache_directory() / CONVERTED, say=say)
    return Servable(directory, False, hold(directory))


def servable_without_code(checkpoint: Checkpoint, *, trust_remote_code: bool, say: Callable[[str], None]) -> Servable:
    """The checkpoint; of an InternLM2 one whose own code may not run, a directory without it.

    For engines that have InternLM2's model themselves. Raises CheckpointError if it needs its code.
    """
    if trust_remote_code or not checkpoint.remote_code or not is_internlm2(checkpoint.config):
        return Servable(checkpoint.path, trust_remote_code, None)
    # Imported here, because most checkpoints do not wait for it.
    from bundle.checkpoints.cache import hold
    from bundle.checkpoints.internlm2 import without_code

    say(f"none of the checkpoint's own Python code runs ({', '.join(checkpoint.remote_code_names)})")
    directory = without_code(checkpoint.path, cache_directory() / CONVERTED, say=say)
    return Servable(directory, True, hold(directory))


def cache_directory() -> Path:
    """Where converted checkpoints are kept: BUNDLE_CACHE, or ``bundle`` in the user's cache directory."""
    if given := os.environ.get("BUNDLE_CACHE"):
        return cache_path(given, "BUNDLE_CACHE")
    return cache_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "BUNDLE_CACHE") / "bundle"


def cpu_dtype(config: Mapping[str, Any]) -> str:
    """The dtype to compute in on this machine's CPU: "bfloat16" or "float32".

    bfloat16 halves the work where the processor has instructions for it; others are slower emulating it. Weights in
    float16 or float32 would lose digits in it. float32 holds every weight exactly.
    """
    stored = config.get("dtype", config.get("torch_dtype"))
    return "bfloat16" if stored == "bfloat16" and _cpu_flags() & _BFLOAT16_INSTRUCTIONS else "float32"


def _cpu_flags() -> frozenset[str]:
    """What the processor can do, as Linux on x86 lists it; nothing elsewhere."""
    try:
        lines = _CPU_INFO.read_text(errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())
