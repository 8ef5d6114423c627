"""Libraries that take seconds to import: every worker imports all tests, and only a few of those need these."""

import importlib
import importlib.util
from importlib.metadata import version
from typing import Any

import pytest
from packaging.version import Version


class _Late:
    """Stands for a module, which is imported when something of it is first wanted."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_") and attribute != "__version__":  # pytest looks at all that stands in a module
            raise AttributeError(attribute)
        return getattr(importlib.import_module(self._name), attribute)


def late(name: str, at_least: str = "0") -> Any:
    """The module of this name; where it is not installed, or too old, the file of tests that asks for it is skipped."""
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        pytest.skip(f"{name} is not installed; `make test` installs it without a GPU", allow_module_level=True)
    if at_least != "0" and Version(version(name)) < Version(at_least):
        pytest.skip(f"{name} {version(name)} is older than {at_least}", allow_module_level=True)
    return _Late(name)
