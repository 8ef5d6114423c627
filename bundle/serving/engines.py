"""The engines by name, and the choice between them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from bundle.checkpoints import require_architecture
from bundle.config.model_files import ModelFile
from bundle.errors import CheckpointError, ServerError, UsageError
from bundle.serving.engine import Engine, Job
from bundle.serving.lmdeploy.engine import LmdeployEngine
from bundle.serving.machine import Machine
from bundle.serving.missing_gpus import why_no_gpu
from bundle.serving.transformers_engine import TransformersEngine
from bundle.serving.vllm.engine import VllmEngine
from bundle.system.text import did_you_mean, printable

ENGINES: Final[Mapping[str, type[Engine]]] = {
    engine.name: engine for engine in (LmdeployEngine, VllmEngine, TransformersEngine)
}


def automatic_engine(machine: Machine) -> tuple[str, str | None]:
    """What ``--engine auto`` stands for: lmdeploy where there is a GPU we may use, transformers where there is none.

    Beside its name, why it is none for GPUs; None if it is. Raises UsageError if there is a GPU that cannot be used.
    """
    none = why_no_gpu(machine.nvidia)
    if none is None:
        return "lmdeploy", None
    if none.serve_on_cpu:
        return "transformers", none.why
    raise UsageError(
        f"A GPU cannot be used: {none.why}.",
        remedy=f"{none.remedy or ''} To serve on the CPU, which is slow, say so: --engine transformers.".strip(),
    )


def choose_engine(name: str, model: ModelFile, job: Job) -> Engine:
    """The engine of this name, or the one that "auto" stands for, for a job.

    Raises UsageError if the name is unknown, or "auto" finds a GPU that cannot be used; CheckpointError if the engine
    does not know the checkpoint's architecture, or how its weights are quantized or its positions scaled; ServerError
    if it is not installed.
    """
    if name != "auto" and name not in ENGINES:
        names = ["auto", *ENGINES]
        raise UsageError(
            f"Unknown engine {name!r}.", remedy=did_you_mean(name, names, f"Choose one of {', '.join(names)}.")
        )
    if name == "auto":
        name, _ = automatic_engine(job.machine)
    engine = ENGINES[name](replace(job, settings=getattr(model, name)))
    require_architecture(job.checkpoint, engine.architectures, name)
    if name != "vllm" and job.checkpoint.scaled_by_ntk:
        raise CheckpointError(
            f"{name} cannot serve {printable(str(job.checkpoint.path))}: by config.json its positions are scaled as "
            "'ntk', which only vLLM knows.",
            remedy="Use --engine vllm, or compare config.json with the one the model was published with.",
        )
    if (refused := engine.refused_quantization) is not None:
        others = [other for other in ENGINES if other != name and _may_take(ENGINES[other](job))]
        raise CheckpointError(
            f"{name} cannot serve {printable(str(job.checkpoint.path))}: {refused}.",
            remedy=f"Use --engine {' or '.join(others)}, or serve the checkpoint it was quantized from."
            if others
            else "Serve the checkpoint it was quantized from, or quantize that in another way.",
        )
    return engine


def _may_take(engine: Engine) -> bool:
    """Whether an engine is installed and not known to refuse how a checkpoint is quantized."""
    try:
        return engine.refused_quantization is None
    except ServerError:
        return False
