"""Faults of the engine: a line "COUNT FAULT" for each in the file that LMDEPLOY_ON_CPU_FAULTS names, one a life.

The first happens in the process of the engine that computes its COUNT-th prompt, and its line goes: the next is for the
next life. So nothing outside has to hit the moment.
"""

import os
import signal
import time
from pathlib import Path
from typing import Any

_FILE = Path(os.environ.get("LMDEPLOY_ON_CPU_FAULTS", "/nonexistent"))
_prompts = 0


def take(prompts: int) -> str | None:
    """The fault that is due now that so many more prompts are computed, if any."""
    global _prompts
    _prompts += prompts
    try:
        count, fault, *rest = _FILE.read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return None
    if _prompts < int(count):
        return None
    part = _FILE.with_suffix(".part")
    part.write_text(" ".join(rest), encoding="utf-8")
    part.rename(_FILE)
    return fault


def happen(fault: str, torch: Any) -> None:
    """Let a fault happen in this process, or in its parent, the API server."""
    if fault == "raise":
        raise RuntimeError("injected failure in the engine")
    if fault == "oom":
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 1.28 GiB. GPU 0 has a total capacity of 79.11 GiB of which 12.00 "
            "MiB is free."
        )
    if fault == "cuda":
        raise getattr(torch, "AcceleratorError", RuntimeError)(
            "CUDA error: an illegal memory access was encountered\n"
            "CUDA kernel errors might be asynchronously reported at some other API call."
        )
    if fault == "abort":
        os.abort()
    if fault == "hang":
        time.sleep(100_000)
    elif fault in _SIGNALS:
        victim, number = _SIGNALS[fault]
        os.kill(victim, number)
    else:
        raise ValueError(f"no such fault: {fault}")


_SIGNALS = {
    "kill": (os.getpid(), signal.SIGKILL),
    "stop": (os.getpid(), signal.SIGSTOP),
    "kill_server": (os.getppid(), signal.SIGKILL),
    "stop_server": (os.getppid(), signal.SIGSTOP),
}
