"""The programs whose formats we write, in environments of their own: they want other versions than we do."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]


def ask(program: str, module: str, *arguments: object) -> Any:
    """Run a module by the interpreter of a program's environment, and return the JSON of the last line it prints.

    Where there is no such environment the test is skipped.
    """
    python = ROOT / ".venv-peers" / program / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{program} is not installed: `python -m benchmarks.peers.run --only {program}` installs it")
    result = subprocess.run(
        [python, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(result.stdout.splitlines()[-1])
