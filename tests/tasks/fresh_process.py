"""`load_tables` in a process of its own, because huggingface_hub reads its environment once, when it is imported."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bundle.tasks.benchmarks import Benchmark
from bundle.tasks.sources import Row
from tests.patience import PATIENCE_S

_PROGRAM = """
import json, sys, time
from bundle.errors import DataError
from bundle.tasks.benchmarks import BENCHMARKS
from bundle.tasks.sources import load_tables

asked = json.load(sys.stdin)
benchmark = BENCHMARKS[asked["benchmark"]]
said, begin, outcome = [], time.monotonic(), {}
try:
    tables = load_tables(asked["source"], benchmark, [tuple(pair) for pair in asked["wanted"]], said.append)
    outcome |= {"origin": tables.origin, "fingerprint": tables.fingerprint,
                "rows": [[*pair, rows] for pair, rows in tables.rows.items()]}
except DataError as error:
    outcome |= {"error": error.message, "remedy": error.remedy}
json.dump(outcome | {"said": said, "seconds": time.monotonic() - begin, "modules": list(sys.modules)}, sys.stdout)
"""


@dataclass(frozen=True)
class Outcome:
    """What came of it: tables, or an error and its remedy; what was said; how long it took; what was imported."""

    rows: dict[tuple[str, str], list[Row]]
    origin: str
    fingerprint: str
    error: str
    remedy: str
    said: list[str]
    seconds: float
    modules: frozenset[str]
    printed: str


def load_in_fresh_process(source: str, benchmark: Benchmark, wanted: list[tuple[str, str]], **environ: str) -> Outcome:
    """Load with these environment variables and no other that would change where data comes from."""
    mine = ("HF_", "MODELSCOPE_", "HUGGING", "TRANSFORMERS_")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(mine) and not name.lower().endswith("_proxy")
    }
    asked = {"source": source, "wanted": wanted, "benchmark": benchmark.name}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
        env={**kept, **environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    return Outcome(
        rows={(subject, split): rows for subject, split, rows in answer.get("rows", [])},
        origin=answer.get("origin", ""),
        fingerprint=answer.get("fingerprint", ""),
        error=answer.get("error", ""),
        remedy=answer.get("remedy", ""),
        said=answer["said"],
        seconds=answer["seconds"],
        modules=frozenset(answer["modules"]),
        printed=done.stderr,
    )
