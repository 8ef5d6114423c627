"""Which interpreter runs a command that is a Python script."""

import re
import shutil
import sys
from pathlib import Path

_SHEBANG = re.compile(r"#!\s*(?:/usr/bin/env\s+(?:-S\s+)?)?(\S*python[\d.]*)")
# pip writes this in place of a shebang that would be too long or holds a space.
_PIP_SHEBANG = re.compile(r"""'''exec'\s+"?([^"\n]*?python[\d.]*)"?\s""")


def find_script(name: str) -> Path | None:
    """The script of this name beside our own interpreter, where our environment's are, or else on PATH."""
    beside = Path(sys.executable).parent / name
    if beside.is_file():
        return beside
    found = shutil.which(name)
    return Path(found) if found else None


def interpreter_of(script: Path) -> str | None:
    """The Python interpreter that runs ``script``, or None where it is no Python script."""
    with script.open("rb") as stream:
        head = stream.read(1024).decode("utf-8", "replace")
    match = _SHEBANG.match(head) or (_PIP_SHEBANG.search(head) if head.startswith("#!/bin/sh") else None)
    return shutil.which(match.group(1)) if match else None
