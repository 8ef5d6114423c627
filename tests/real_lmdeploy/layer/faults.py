"""Faults of the engine: the first word of the file that LMDEPLOY_ON_CPU_FAULT names happens once, and the file goes."""

import os
import signal
import time
from pathlib import Path
from typing import Any

_FILE = Path(os.environ.get("LMDEPLOY_ON_CPU_FAULT", "/nonexistent"))


def take() -> str | None:
    """The fault that is due, if any; each is taken once."""
    try:
        fault = _FILE.read_text(encoding="utf-8").strip()
        _FILE.unlink()
    except OSError:
        return None
    return fault or None


def happen(fault: str, torch: Any) -> None:
    """Let a fault happen in this process: raise, oom, cuda, hang, kill or abort."""
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
    if fault == "hang":
        time.sleep(100_000)
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "abort":
        os.abort()
    raise ValueError(f"no such fault: {fault}")
