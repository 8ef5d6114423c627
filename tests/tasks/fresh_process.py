"""`load_tables` in a process of its own, because huggingface_hub reads its environment once, when it is imported."""

import atexit
import functools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bundle.tasks.benchmarks import Benchmark
from bundle.tasks.sources import Row

# What takes long to import and knows nothing of the Hub is imported once; every load is a fork of that.
_PROGRAM = """
import contextlib, importlib, json, os, sys, tempfile, time
from bundle.errors import DataError
from bundle.tasks.benchmarks import BENCHMARKS
from bundle.tasks.sources import load_tables

for name in ("pandas", "pyarrow.dataset", "fsspec", "httpx", "httpx2", "httpcore2", "yaml", "multiprocess"):
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
assert not {"datasets", "huggingface_hub"} & set(sys.modules)

def load(asked):
    said, begin, outcome = [], time.monotonic(), {}
    try:
        benchmark, wanted = BENCHMARKS[asked["benchmark"]], [tuple(pair) for pair in asked["wanted"]]
        tables = load_tables(asked["source"], benchmark, wanted, said.append)
        outcome |= {"origin": tables.origin, "fingerprint": tables.fingerprint,
                    "rows": [[*pair, rows] for pair, rows in tables.rows.items()]}
    except DataError as error:
        outcome |= {"error": error.message, "remedy": error.remedy}
    return outcome | {"said": said, "seconds": time.monotonic() - begin, "modules": list(sys.modules)}

for line in sys.stdin:
    asked = json.loads(line)
    with tempfile.TemporaryFile("w+") as answer, tempfile.TemporaryFile("w+") as printed:
        if (child := os.fork()) == 0:
            os.dup2(printed.fileno(), 1)
            os.dup2(printed.fileno(), 2)
            os.environ.clear()
            os.environ.update(asked["environ"])
            code = 1
            try:
                json.dump(load(asked), answer)
                answer.flush()
                code = 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        status = os.waitpid(child, 0)[1]
        answer.seek(0)
        printed.seek(0)
        told = {"code": os.waitstatus_to_exitcode(status), "answer": answer.read(), "printed": printed.read()}
        print(json.dumps(told), flush=True)
"""


@functools.cache
def _forking() -> "subprocess.Popen[str]":
    """The process that forks."""
    mine = ("HF_", "MODELSCOPE_", "HUGGING", "TRANSFORMERS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**kept, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    atexit.register(process.communicate)  # it ends with its input
    return process


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
    asked = {"source": source, "wanted": wanted, "benchmark": benchmark.name, "environ": {**kept, **environ}}
    process = _forking()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(asked) + "\n")
    process.stdin.flush()
    done = json.loads(process.stdout.readline())
    assert done["code"] == 0, done["printed"]
    answer = json.loads(done["answer"])
    return Outcome(
        rows={(subject, split): rows for subject, split, rows in answer.get("rows", [])},
        origin=answer.get("origin", ""),
        fingerprint=answer.get("fingerprint", ""),
        error=answer.get("error", ""),
        remedy=answer.get("remedy", ""),
        said=answer["said"],
        seconds=answer["seconds"],
        modules=frozenset(answer["modules"]),
        printed=done["printed"],
    )
