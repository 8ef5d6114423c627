"""The files of a run directory: their names, reading them, and writing them whole."""

import contextlib
import errno
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from bundle.errors import RunError
from bundle.system.files import NO_ROOM, open_for_writing, open_regular, read_regular, sync

RECORD: Final = "run.json"
PROMPTS: Final = "prompts.jsonl"
PREDICTIONS: Final = "predictions.jsonl"
RESULTS: Final = "results.json"
GPUS: Final = "gpus.jsonl"
SERVER_LOG: Final = "server.log"
SERVER_LOGS: Final = "servers"
"""Directory of the logs of further servers."""

DAMAGED: Final = "The run is damaged; start a new one."

LARGEST_JSON: Final = 64 * 2**20
"""Bytes."""
_LONGEST_LINE = 64 * 2**20
"""Bytes. A reply has at most 16 million, and no more than twice as many where they must be escaped."""
_LARGEST_NUMBER = 2**63
_encode = json.JSONEncoder(ensure_ascii=False).encode


def read_json(path: Path, remedy: str = DAMAGED) -> dict[str, Any]:
    """Read one of a run's JSON files. Raises RunError if it cannot be read, or is not a JSON object."""
    try:
        content = parse_json(read_regular(path, LARGEST_JSON))
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}.", remedy=remedy) from None
    except RecursionError:
        why = "nested too deeply"
    except ValueError as error:
        why = str(error)
    else:
        if isinstance(content, dict):
            return content
        why = "not a JSON object"
    raise RunError(f"{path} is damaged: {why}.", remedy=remedy)


def read_lines(path: Path, opened: BinaryIO | None = None) -> Iterator[bytes]:
    """The lines of a run's file, each with its newline, which only the last may lack.

    ``opened`` is the file, where it is open already: it may have been removed since.

    Raises FileNotFoundError if it does not exist; RunError if it cannot be read, or has a line that is longer than any
    that this program writes.
    """
    try:
        with open_regular(path) if opened is None else contextlib.nullcontext(opened) as file:
            file.seek(0)
            number = 0
            while line := file.readline(_LONGEST_LINE + 1):
                number += 1
                if len(line) > _LONGEST_LINE:
                    raise RunError(f"{path}, line {number}, is longer than {_LONGEST_LINE:,} bytes.", remedy=DAMAGED)
                yield line
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RunError(
            f"{path} cannot be read: {error.strerror or error}.", remedy="Check the run directory and its permissions."
        ) from None


def parse_json(text: bytes | str) -> Any:
    """Read JSON as strictly as this program writes it: numbers are finite and take 64 bits.

    Raises ValueError if it is not such JSON.
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    return _decoder.decode(text)


def _not_finite(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number")


def _finite(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError("a number is too large")
    return number


def _whole(digits: str) -> int:
    # Before they are converted, which takes time quadratic in their number.
    if len(digits) > len(str(-_LARGEST_NUMBER)) or abs(number := int(digits)) >= _LARGEST_NUMBER:
        raise ValueError("a number is too large")
    return number


_decoder = json.JSONDecoder(parse_constant=_not_finite, parse_float=_finite, parse_int=_whole)


def to_json(content: Any, *, indent: int | None = None) -> str:
    """JSON with Chinese as it is; a lone surrogate, as replies and paths may hold, is escaped to keep it UTF-8."""
    text = _encode(content) if indent is None else json.dumps(content, ensure_ascii=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(content, indent=indent)
    return text


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file completely or not at all. Raises RunError if it cannot be written."""
    write_whole(path, [to_json(content, indent=1).encode(), b"\n"])


def write_whole(path: Path, content: Iterable[bytes]) -> None:
    """Write a file, given in pieces, completely or not at all. Raises RunError if it cannot be written."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.unlink(missing_ok=True)  # of a process that was killed, or a link to somewhere else
        with os.fdopen(open_for_writing(part, os.O_CREAT | os.O_EXCL), "wb") as stream:
            stream.writelines(content)
            stream.flush()
            sync(stream.fileno())
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise unwritable(path, error) from None


def unwritable(path: Path, error: OSError) -> RunError:
    """The error for a file or directory that cannot be written."""
    limit = "Raise the limit on open files (`ulimit -n`)."
    remedies = {
        errno.EMFILE: limit,
        errno.ENFILE: limit,
        errno.ENOENT: "The run's directory was removed or moved. Of a moved one, `bundle resume PATH` asks the rest.",
        errno.ENAMETOOLONG: "Choose a directory with a shorter path with --out (reports: -o).",
    }
    remedies |= {one: f"{why}, or choose another directory with --out (reports: -o)." for one, why in NO_ROOM.items()}
    remedy = remedies.get(error.errno or 0, "Choose a writable directory with --out (reports: -o).")
    return RunError(f"{path} cannot be written: {error.strerror or error}.", remedy=remedy)
