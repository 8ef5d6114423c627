"""What a run was asked and made with: the content of ``run.json``, and whether two of them are the same."""

import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import bundle
from bundle.errors import RunError
from bundle.tasks.catalog import Task
from bundle.tasks.sources import Tables

_PACKAGES = ("openai", "datasets", "lmdeploy", "transformers", "torch")

_IDENTITY = ("tasks", "model", "engine", "sampling")
"""The parts of a record that must agree for one run to go on where another ended …"""
_INCIDENTAL = frozenset({"model.path", "engine.version"})
"""… but for these: a checkpoint may have been moved, or its server upgraded."""


def describe_tasks(
    tasks: Sequence[Task],
    tables: Sequence[Tables],
    shapes: Mapping[str, str],
    subjects: Sequence[str] | None,
    limit: int | None,
) -> dict[str, Any]:
    """What was asked, and of which data."""
    fingerprints = [one.fingerprint for one in tables]
    return {
        "task": ",".join(task.name for task in tasks),
        "data": {
            "source": ",".join(dict.fromkeys(one.source for one in tables)),
            "origin": "; ".join(dict.fromkeys(one.origin for one in tables)),
            "fingerprint": fingerprints[0]
            if len(fingerprints) == 1
            else hashlib.sha256("".join(fingerprints).encode()).hexdigest(),
        },
        "tasks": [
            {
                **task.to_json(),
                "shape": shapes[task.name],
                "subjects": None if subjects is None else list(subjects),
                "limit": limit,
                "data_fingerprint": one.fingerprint,
            }
            for task, one in zip(tasks, tables, strict=True)
        ],
    }


def describe_machine() -> dict[str, Any]:
    """Versions of this program, of Python and of the packages a result can depend on; system, processor and cores."""
    versions = {"bundle": bundle.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    hardware = {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
    }
    return {"versions": versions, "hardware": hardware}


def _processor() -> str:
    """The processor's name; of `platform.processor`, which starts a program to find it out, no use is made."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.machine()


def require_same(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with a run that was asked something else.

    Raises:
        RunError: Task, data, model or sampling differ; it says which.
    """
    before = {key: value for part in _IDENTITY for key, value in _leaves(then.get(part), part)}
    after = {key: value for part in _IDENTITY for key, value in _leaves(now.get(part), part)}
    keys = sorted((before.keys() | after.keys()) - _INCIDENTAL)
    differing = [key for key in keys if before.get(key) != after.get(key)]
    if differing:
        details = [f"{key}: {_short(before.get(key))} then, {_short(after.get(key))} now" for key in differing]
        raise RunError(
            f"The run cannot be gone on with: it was asked something else ({', '.join(differing[:3])}).",
            remedy="Give the same options as then, or begin a new run without --resume.",
            details=details,
        )


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}")
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{key}[{number}]")
    else:
        yield key, value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
