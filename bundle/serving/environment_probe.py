"""Describes the Python environment of the interpreter that runs it, as a line of JSON.

Run by path, in an interpreter that need not be ours: only the standard library is used, and torch if asked for.

    PYTHON environment_probe.py packages NAME…
    PYTHON environment_probe.py torch

The first prints ``versions`` (of everything installed, by normalised name), ``requires`` (what the packages NAME
require) and ``cuda`` (the CUDA that torch was built for; null if none or unknown), and imports nothing. The second
imports torch, which can take many seconds, and prints ``torch`` (its version; null if it cannot be imported), ``cuda``,
``devices`` (how many GPUs it can use), ``architectures`` (compute capabilities it has code for, as in ``sm_90``) and
``why`` (what it printed about CUDA).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import sys
import warnings
from typing import Any


def describe(packages: list[str]) -> dict[str, Any]:
    """What is installed, what ``packages`` require, and the CUDA of torch."""
    versions: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:  # half of an uninstalled package has none
            versions.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution.version)
    requires = {name: importlib.metadata.requires(name) or [] for name in packages if name.lower() in versions}
    return {"versions": versions, "requires": requires, "cuda": torch_cuda()}


def torch_cuda() -> str | None:
    """The CUDA version that torch was built for, read from its source: importing it takes seconds."""
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


def look_at_torch() -> dict[str, Any]:
    """Import torch and ask it."""
    seen: dict[str, Any] = {"torch": None, "cuda": None, "devices": 0, "architectures": [], "why": ""}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            import torch  # imported late: it may be missing or broken, which is what is asked

            seen["torch"] = str(torch.__version__)
            seen["cuda"] = torch.version.cuda
            seen["devices"] = torch.cuda.device_count() if torch.cuda.is_available() else 0
            seen["architectures"] = torch.cuda.get_arch_list() if seen["devices"] else []
        except Exception as error:  # a broken library can raise anything
            seen["why"] = f"{type(error).__name__}: {error}"
        reasons = [str(one.message) for one in said if "cuda" in str(one.message).lower()]
    seen["why"] = " ".join((seen["why"] or " ".join(reasons)).split())
    return seen


def main() -> None:
    """Look, and print what was seen on what is standard output now."""
    # A script's own directory comes first on the path; the modules in this one are not for it to import.
    own = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != own]  # noqa: PTH100
    # What libraries print must not be taken for the result.
    result = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    what, *names = sys.argv[1:]
    with result:
        result.write(json.dumps(describe(names) if what == "packages" else look_at_torch()) + "\n")


if __name__ == "__main__":
    main()
