"""Serve a checkpoint, evaluate it, leave nothing behind.

import bundle

run = bundle.evaluate(model_dir="./sft-2000", task="ceval_gen", limit=5)
run.scores["ceval"].accuracy
bundle.load("sft-1000").to_pandas()
"""

from typing import TYPE_CHECKING, Any

from bundle.version import __version__ as __version__

if TYPE_CHECKING:
    from bundle.pipeline.from_python import evaluate, load
    from bundle.runs.recorded_run import RecordedRun

__all__ = ["RecordedRun", "evaluate", "load"]

_HOMES = {
    "evaluate": "bundle.pipeline.from_python",
    "load": "bundle.pipeline.from_python",
    "RecordedRun": "bundle.runs.recorded_run",
}


def __getattr__(name: str) -> Any:
    """Import what is used when it is used: the command line needs none of it to begin."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib  # imported late: only this needs it

    return getattr(importlib.import_module(_HOMES[name]), name)
