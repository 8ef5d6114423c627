"""Tells what is installed in the environment of the interpreter that runs it, as a line of JSON; imports none of it.

Run by path, in an interpreter that need not be ours: only the standard library is used.

    PYTHON environment_probe.py PACKAGE…

The object has ``python`` (its version), ``versions`` (of everything installed, by its normalised name), ``requires``
(what the packages named ask for) and ``cuda`` (the CUDA that torch was built for, null where it is none or not known).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import sys
from typing import Any


def describe(packages: list[str]) -> dict[str, Any]:
    """What is installed, what ``packages`` ask for, and the CUDA of torch."""
    versions: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:  # half of an uninstalled package has none
            versions.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution.version)
    requires = {
        package: importlib.metadata.requires(package) or [] for package in packages if package.lower() in versions
    }
    return {"python": platform.python_version(), "versions": versions, "requires": requires, "cuda": torch_cuda()}


def torch_cuda() -> str | None:
    """The CUDA version that torch was built for, read from its file of versions: importing it takes seconds."""
    try:
        found = importlib.util.find_spec("torch")
        folders = found.submodule_search_locations if found is not None else None
        if not folders:
            return None
        with open(os.path.join(list(folders)[0], "version.py"), encoding="utf-8") as file:  # noqa: PTH118, PTH123, RUF015
            told = re.search(r"^cuda\b[^=\n]*=\s*['\"]([\d.]+)['\"]", file.read(), re.MULTILINE)
    except (OSError, ValueError, ImportError):
        return None
    return told[1] if told else None


def main() -> None:
    """Describe the packages named on the command line."""
    # A script's own directory comes first on the path; the modules in this one are not for it to find.
    del sys.path[0]
    print(json.dumps(describe(sys.argv[1:])))


if __name__ == "__main__":
    main()
