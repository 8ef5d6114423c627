"""Scripts of this package, run in the interpreter of a server."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bundle.system.child_environment import without_keys

_HERE = Path(__file__).parent


class ProbeError(Exception):
    """A script did not tell what it was to find out. The text says what it did instead."""


def run_probe(interpreter: str, script: str, arguments: Sequence[str], *, limit_s: float) -> dict[str, Any]:
    """The JSON object that a script of this package prints.

    Raises:
        ProbeError: It prints none, or not in time; it is ended then.
    """
    environment = {**without_keys(os.environ), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    try:
        result = subprocess.run(
            [interpreter, str(_HERE / script), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ProbeError(f"was not done within {limit_s:g} s") from None
    except OSError as error:
        raise ProbeError(f"could not be run: {error.strerror}") from None
    try:
        answer = json.loads(result.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        said = result.stderr.strip().splitlines()
        raise ProbeError(f"ended with status {result.returncode}: {said[-1] if said else 'it said nothing'}") from None
    if not isinstance(answer, dict):
        raise ProbeError("printed something else than a JSON object")
    return answer
