"""What a measurement was made on."""

import datetime
import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from bundle import __version__


def surroundings(runs: int, packages: Iterable[str] = ()) -> dict[str, Any]:
    """When, on which machine, beside how much other load, with which versions and in how many runs."""
    return {
        "at": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": {
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "system": f"{platform.system()} {platform.release()}",
            "python": platform.python_version(),
        },
        "load": os.getloadavg()[0],
        "versions": {"bundle": __version__, **versions(packages)},
        "runs": runs,
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The installed versions of these packages; those that are not installed are left out."""
    found: dict[str, str] = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
