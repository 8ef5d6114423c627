"""A checkpoint, as a run would take it: whether it can be served here, and whether its tokenizer is sound."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bundle.checkpoints import (
    inspect_checkpoint,
    lmdeploy_architectures,
    prove_tokenizer,
    require_architecture,
    require_trust,
)
from bundle.checkpoints.internlm2 import is_internlm2
from bundle.config.model_files import model_file_for
from bundle.doctor.findings import Finding, failing, ok, warning
from bundle.doctor.words import gib, size
from bundle.errors import TokenizerError
from bundle.serving.gpus import Gpu
from bundle.serving.installation import Installation

# What lmdeploy's engine asks for beside the weights.
_OVERHEAD_MIB: Final = 2048


def look_at_checkpoint(
    directory: Path,
    gpus: list[Gpu],
    lmdeploy: Installation | str,
    limit_s: float,
) -> Iterator[Finding]:
    """Everything a run looks at before it asks a question, but for the server itself.

    Args:
        directory: The checkpoint.
        gpus: Those that may be used.
        lmdeploy: The lmdeploy there is, or why there is none.
        limit_s: Most seconds the tokenizer may take.

    Raises:
        BundleError: It cannot be served.
    """
    checkpoint = inspect_checkpoint(directory)
    named = model_file_for(checkpoint.architecture)
    trusted = named is not None and named[1].trust_remote_code
    require_trust(checkpoint, trusted=trusted)
    unchecked = checkpoint.weights_unchecked
    compared = "as config.json implies" if unchecked is None else f"not compared with config.json ({unchecked})"
    weights = f"{size(checkpoint.weight_bytes)} of weights, {compared}"
    yield ok(f"{checkpoint.path}: {checkpoint.architecture}, {weights}")
    interpreter = sys.executable
    if gpus and not isinstance(lmdeploy, str):
        interpreter = lmdeploy.interpreter
        if lmdeploy.package is not None:
            require_architecture(checkpoint, lmdeploy_architectures(lmdeploy.package), "lmdeploy")
        yield _memory(checkpoint.weight_bytes, max(gpus, key=lambda gpu: gpu.free_mib))
    elif is_internlm2(checkpoint.config):
        yield ok("its tokenizer is written anew for the CPU engine, and proved then")
        return
    try:
        proof = asyncio.run(
            prove_tokenizer(checkpoint.path, python=interpreter, trust_remote_code=trusted, timeout=limit_s)
        )
    except TokenizerError as error:
        if "because transformers does not work" in error.message:
            yield warning(error.message, error.remedy, error.details)
        else:
            yield failing(error.message, error.remedy, error.details)
    else:
        yield ok(f"its tokenizer gives back what it is given, under transformers {proof.transformers}")
        if proof.warning is not None:
            yield warning(proof.warning, "Add the id to eos_token_id in the checkpoint's generation_config.json.", ())


def _memory(weight_bytes: int, gpu: Gpu) -> Finding:
    needed = weight_bytes // 2**20 + _OVERHEAD_MIB
    text = f"it needs about {gib(needed)} of GPU memory, and GPU {gpu.index} has {gib(gpu.free_mib)} free"
    if gpu.free_mib >= needed:
        return ok(text)
    return failing(text, "End what holds the memory, or spread the weights over several GPUs with `-- --tp 2`.")
