"""Change a module right after its own code has run, without touching its source."""

import importlib.abc
import importlib.machinery
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

_patches: dict[str, Callable[[Any], None]] = {}


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        patch = _patches.get(fullname)
        if patch is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                patch(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def after_import(name: str, patch: Callable[[Any], None]) -> None:
    """Call ``patch`` with the module of this name as soon as it has been imported."""
    _patches[name] = patch


def decide_the_race(managers: Any) -> None:
    """Let the child win the race in the start of lmdeploy's engine process, or lose it if the file of the race exists.

    lmdeploy's parent process may end the manager before the engine's process has had the answer to its release of the
    start-up lock; 6 of 20 starts failed of it on two cores. The file goes when the race is lost.
    """
    leave = managers.AcquirerProxy.__exit__
    lost = Path(os.environ.get("LMDEPLOY_ON_CPU_RACE", "/nonexistent"))

    def decided(self: Any, *arguments: Any) -> Any:
        try:
            left = leave(self, *arguments)
        except (EOFError, ConnectionError):
            left = None
        if multiprocessing.parent_process() is not None and lost.exists():
            lost.unlink()
            raise EOFError
        return left

    managers.AcquirerProxy.__exit__ = decided


sys.meta_path.insert(0, _Finder())
