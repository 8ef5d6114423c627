"""Run by path: prints ``RESULT`` and what `probe` reports, as JSON, on a line of its own."""

from __future__ import annotations

import json
import os
import sys
from types import ModuleType

RESULT = b"\x1eresult "  # as in ``confined``; no other line begins like this


def main() -> None:
    """Probe the directory given on the command line, with the arguments in the file given after it."""
    directory, file = sys.argv[1:]
    with open(file, encoding="utf-8") as stream:  # noqa: PTH123
        given = json.load(stream)
    find_this_folder_alone()
    from bundle.checkpoints.tokenizer_probe.probe import probe  # imported late: it is found only now

    result = probe(directory, **given)
    sys.stdout.flush()
    os.write(1, b"\n" + RESULT + json.dumps(result).encode() + b"\n")


def find_this_folder_alone() -> None:
    """Let this folder be imported by its name, but neither the code of those above it nor its modules by theirs."""
    folder = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != folder]  # noqa: PTH100
    for name in ("bundle.checkpoints", "bundle"):
        folder = os.path.dirname(folder)  # noqa: PTH120
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = [folder]


if __name__ == "__main__":
    main()
