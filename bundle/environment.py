"""What a run was made with, for its record."""

import importlib.metadata
import os
import platform

import bundle

_PACKAGES = ("openai", "datasets", "lmdeploy", "transformers", "torch")


def versions() -> dict[str, str]:
    """Versions of this program, of Python, and of those packages a result can depend on that are installed."""
    found = {"bundle": bundle.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, str | int | None]:
    """The machine: operating system, processor and its cores."""
    return {
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
    }
