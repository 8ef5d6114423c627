"""Change a module right after its own code has run, without touching its source."""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
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


def tolerate_a_manager_that_ended(managers: Any) -> None:
    """Let a lock's release pass when its manager is gone.

    lmdeploy's parent process may end the manager before the engine's process has had the answer to its release of the
    start-up lock; 6 of 20 starts failed of it on two cores.
    """
    leave = managers.AcquirerProxy.__exit__

    def tolerant(self: Any, *arguments: Any) -> Any:
        try:
            return leave(self, *arguments)
        except (EOFError, ConnectionError):
            return None

    managers.AcquirerProxy.__exit__ = tolerant


sys.meta_path.insert(0, _Finder())
