"""The files of a run directory: their names, reading them, and writing them whole."""

import contextlib
import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bundle.errors import RunError

RECORD: Final = "run.json"
PROMPTS: Final = "prompts.jsonl"
PREDICTIONS: Final = "predictions.jsonl"
RESULTS: Final = "results.json"
SERVER_LOG: Final = "server.log"

DAMAGED: Final = "The run is damaged; start a new one."


def read_json(path: Path) -> dict[str, Any]:
    """Read one of a run's JSON files.

    Raises:
        RunError: It cannot be read, or is not a JSON object.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}.", remedy=DAMAGED) from None
    except RecursionError:
        raise RunError(f"{path} cannot be read: nested too deeply.", remedy=DAMAGED) from None
    if not isinstance(content, dict):
        raise RunError(f"{path} is damaged: not a JSON object.", remedy=DAMAGED)
    return content


def read_lines(path: Path) -> list[bytes]:
    """The lines of a run's file; whatever follows the last newline is the last of them.

    Raises:
        FileNotFoundError: It does not exist.
        RunError: It cannot be read.
    """
    try:
        return path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RunError(
            f"{path} cannot be read: {error.strerror}.", remedy="Check the permissions of the run directory."
        ) from None


def to_json(content: Any, *, indent: int | None = None) -> str:
    """JSON with Chinese as it is; a lone surrogate, as replies and paths may hold, is escaped to keep it UTF-8."""
    text = json.dumps(content, ensure_ascii=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(content, indent=indent)
    return text


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file completely or not at all.

    Raises:
        RunError: It cannot be written.
    """
    write_whole(path, to_json(content, indent=1).encode() + b"\n")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file completely or not at all.

    Raises:
        RunError: It cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise unwritable(path, error) from None


def unwritable(path: Path, error: OSError) -> RunError:
    """The error for a file or directory that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        remedy = "Free some space, or choose another directory with --out."
    elif error.errno in (errno.EMFILE, errno.ENFILE):
        remedy = "Raise the limit on open files (`ulimit -n`)."
    else:
        remedy = "Choose a writable directory with --out."
    return RunError(f"{path} cannot be written: {error.strerror or error}.", remedy=remedy)
