"""Which engine serves a checkpoint here."""

import os
from collections.abc import Sequence
from pathlib import Path

from bundle.checkpoints import Checkpoint
from bundle.config.model_files import ModelFile
from bundle.errors import UsageError
from bundle.serving.engines import Engine
from bundle.serving.gpus import visible_gpus
from bundle.serving.lmdeploy.engine import LmdeployEngine
from bundle.serving.machine import Machine
from bundle.system.text import did_you_mean, printable

ENGINES = ("auto", "lmdeploy", "transformers")


def choose_engine(
    name: str,
    checkpoint: Checkpoint,
    model: ModelFile,
    arguments: Sequence[str],
    *,
    trust_remote_code: bool,
    gpu: str | None,
    machine: Machine,
) -> Engine:
    """The engine of this name, ready to be prepared; "auto" is lmdeploy where ``machine`` has a GPU, else transformers.

    Raises:
        UsageError: There is no engine of this name.
    """
    if name not in ENGINES:
        hint = did_you_mean(name, ENGINES, f"The engines are {', '.join(ENGINES)}.")
        raise UsageError(f"There is no engine {name!r}.", remedy=hint)
    if name == "auto":
        name = "lmdeploy" if visible_gpus(machine.gpus) else "transformers"
    if name == "lmdeploy":
        served = printable(checkpoint.path.name) or "model"
        return LmdeployEngine(checkpoint, served, model.lmdeploy, arguments, trust_remote_code, gpu, machine)
    if gpu is not None:
        raise UsageError("--gpu has no meaning for the CPU engine.", remedy="Leave it out, or use --engine lmdeploy.")
    # Imported here, because a server on a GPU need not wait for what rewrites checkpoints.
    from bundle.serving.transformers_engine import TransformersEngine, hub_name

    served = hub_name(checkpoint.path)
    return TransformersEngine(checkpoint, served, model.transformers, arguments, trust_remote_code, cache_directory())


def cache_directory() -> Path:
    """Where rewritten checkpoints are kept: BUNDLE_CACHE, or ``bundle`` in the user's cache directory."""
    if given := os.environ.get("BUNDLE_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bundle"
