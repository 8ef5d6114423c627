"""Work on files of a checkpoint that are programs: tokenizers, chat templates, sentencepiece models.

A tokenizer.json of 22 normalizers that each double a character never ends, and a chat template of one line can ask for
all the memory there is. So nothing of that kind is loaded by this program itself: it runs in a process under a
guardian, with bounds on time, memory and the size of files, without keys, and without what leads to a network.

Run by path, this file calls one function of ``bundle`` in such a process; see ``call_confined``.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

if __name__ == "__main__":  # started with -P, so that its own directory is not on the path; ``bundle`` is two above it
    sys.path.insert(0, str(Path(__file__).parents[2]))

from bundle import errors
from bundle.checkpoints._files import shown
from bundle.errors import BundleError, TokenizerError
from bundle.system.guarded import private_directory, run_guarded, without_keys

RESULT: Final = b"\x1eresult "  # no other line begins like this
MEMORY_BYTES: Final = 4 * 2**30
"""The tokenizers of the largest vocabularies take half a gigabyte, and code that loads torch another one."""
FILE_BYTES: Final = 100_000_000
_STACK_BYTES: Final = 8 * 2**20
"""Of each thread: with `ulimit -s 8000000` the first would take all of the memory."""
LIMITS: Final = {"RLIMIT_DATA": MEMORY_BYTES, "RLIMIT_FSIZE": FILE_BYTES, "RLIMIT_STACK": _STACK_BYTES}
_BOUNDS: Final = f"it may use {MEMORY_BYTES // 2**30} GiB of memory and write files of {FILE_BYTES // 10**6} MB"

_TAIL_BYTES: Final = 8192
_TAIL_LINES: Final = 15
_PROXY: Final = "_proxy"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a confined process reported, None if nothing whole; how it ended, for people; the last lines beside that."""

    result: dict[str, Any] | None
    ended: str
    tail: list[str]


async def run_confined(command: Sequence[str], given: object, *, limit_s: float) -> Outcome:
    """Run a program that prints ``RESULT`` and a JSON object; nothing of it is left when this returns or raises.

    The path of a file with ``given``, as JSON, is added to the command. Raises TimeoutError if it takes longer than
    ``limit_s`` seconds, OSError if it cannot be run.
    """
    directory = private_directory("bundle-tokenizer-")
    file = directory / "given.json"
    try:
        file.write_text(json.dumps(given), encoding="utf-8")
    except OSError as error:
        shutil.rmtree(directory, ignore_errors=True)
        raise TokenizerError(
            f"Temporary files cannot be written: {shown(error)}.", remedy="Free some space, or set TMPDIR=DIR."
        ) from error
    # transformers copies a checkpoint's code into a cache before it runs it. The server does so at the same moment, and
    # neither may find the other's half-written files.
    environment = {**_environment(), "HF_MODULES_CACHE": str(directory)}
    with tempfile.TemporaryFile() as output:
        status = await run_guarded(
            [*command, str(file)], environment, output.fileno(), limit_s=limit_s, directory=directory, limits=LIMITS
        )
        result, tail = _read(output)
    ended = "its guardian was killed" if status is None else f"exit code {status}"
    if status is not None and status < 0:
        ended = f"killed by signal {-status}; {_BOUNDS}"
    return Outcome(result, ended, tail)


def call_confined(
    module: str, function: str, *arguments: object, limit_s: float = 120.0, what: str = "the tokenizer's files"
) -> Any:
    """Call a function of ``bundle`` in a confined process. Not for threads in which an event loop runs.

    It takes and returns JSON. Raises BundleError if the function raised one, with the same message, or did not return
    within ``limit_s`` seconds; ``what`` says what it reads.
    """
    command = [sys.executable, "-P", __file__]
    try:
        outcome = asyncio.run(run_confined(command, [module, function, arguments], limit_s=limit_s))
    except TimeoutError:
        raise TokenizerError(
            f"Reading {what} took longer than {limit_s:g} seconds.",
            remedy="They may be damaged or malicious: download them again from a source you trust.",
        ) from None
    except OSError as error:
        raise TokenizerError(f"{shown(sys.executable)} cannot be run: {shown(error)}.") from error
    match outcome.result:
        case {"value": value}:
            return value
        case {"error": str(kind), "message": str(message), "remedy": remedy, "details": list(details)}:
            raise getattr(errors, kind)(message, remedy=remedy, details=details)
    raise TokenizerError(
        f"{what[0].upper()}{what[1:]} could not be read ({outcome.ended}).",
        remedy="They may be damaged: download them again.",
        details=outcome.tail,
    )


def report(result: object) -> None:
    """Print what a confined process reports, on a line of its own."""
    sys.stdout.flush()
    os.write(1, b"\n" + RESULT + json.dumps(result).encode() + b"\n")


def _environment() -> dict[str, str]:
    """The environment: ours, but quiet, and without keys, network or GPU."""
    kept = {
        name: value
        for name, value in without_keys(os.environ).items()
        if not name.lower().endswith(_PROXY) and name not in ("HF_ENDPOINT", "HF_MODULES_CACHE")
    }
    return {
        **kept,
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "USE_TORCH": "0",  # transformers 4 then loads tokenizers in a third of the time; 5 takes no notice
        "CUDA_VISIBLE_DEVICES": "",
    }


def _read(output: IO[bytes]) -> tuple[dict[str, Any] | None, list[str]]:
    """The report, if there is a whole one, and the last lines of what was printed besides."""
    output.seek(0)
    result, others = None, []
    for line in output.read().splitlines():
        if line.startswith(RESULT):
            with contextlib.suppress(ValueError):
                result = json.loads(line.removeprefix(RESULT))
        elif line.strip():
            others.append(line[-_TAIL_BYTES:])
    tail = [shown(line.decode("utf-8", "replace"), 300) for line in others[-_TAIL_LINES:]]
    return result if isinstance(result, dict) else None, tail


def _main(file: str) -> None:
    module, function, arguments = json.loads(Path(file).read_text(encoding="utf-8"))
    try:
        report({"value": getattr(importlib.import_module(module), function)(*arguments)})
    except BundleError as error:
        kind = type(error).__name__
        report({"error": kind, "message": error.message, "remedy": error.remedy, "details": list(error.details)})


if __name__ == "__main__":
    _main(sys.argv[1])
