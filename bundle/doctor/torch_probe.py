"""Tells whether torch can use the GPUs, as a line of JSON: imports it, which can take many seconds.

Run by path, in the server's own interpreter: only the standard library and torch are used. The object has ``torch``
(its version, null where it cannot be imported), ``cuda`` (what it was built for), ``devices`` (how many GPUs it can
use), ``architectures`` (compute capabilities it has code for, as in ``sm_90``) and ``why`` (what it said on the way).
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from typing import Any


def look() -> dict[str, Any]:
    """Import torch and ask it."""
    seen: dict[str, Any] = {"torch": None, "cuda": None, "devices": 0, "architectures": [], "why": ""}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            import torch

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
    del sys.path[0]
    # What libraries print must not be taken for the result.
    result = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    with result:
        result.write(json.dumps(look()) + "\n")


if __name__ == "__main__":
    main()
