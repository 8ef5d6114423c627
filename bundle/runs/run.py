"""A run is a directory. What is known is written at once, so that whatever happens later, it is still there."""

import contextlib
import errno
import fcntl
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bundle.errors import RunError
from bundle.runs.predictions import Prediction
from bundle.runs.row_writer import RowWriter

_LOCK_ATTEMPTS, _LOCK_PAUSE_S = 5, 0.05
_LOCK_FILE = ".lock"

PREDICTIONS, RECORD, RESULTS, SERVER_LOG = "predictions.jsonl", "run.json", "results.json", "server.log"


class Run:
    """An open run directory, to be written to by this process and no other.

    Use as a context manager, so that it is given free again.

    Attributes:
        directory: Where it is.
        known: The predictions with a reply that were there when it was opened.

    Args:
        directory: An existing directory.

    Raises:
        RunError: It is in use, or cannot be read or written.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            self._lock = _lock(directory)
            try:
                self.known = _keep_replies(directory / PREDICTIONS)
                self._predictions = RowWriter(directory / PREDICTIONS)
            except BaseException:
                os.close(self._lock)
                raise
        except BlockingIOError:
            raise RunError(
                f"{directory} is in use: another run is writing to it.", remedy="Wait until that one has ended."
            ) from None
        except OSError as error:
            raise _unwritable(directory, error) from None

    @classmethod
    def create(cls, out: Path, label: str) -> Self:
        """Make a new directory ``out/RUN_ID``, named after the time and ``label``.

        Raises:
            RunError: It cannot be made.
        """
        stem = datetime.now().strftime("%Y%m%d-%H%M%S-") + (re.sub(r"[^\w.-]+", "-", label).strip("-.") or "run")
        attempt = 1
        while True:
            directory = out / (stem if attempt == 1 else f"{stem}-{attempt}")
            try:
                out.mkdir(parents=True, exist_ok=True)
                # It will hold questions that may be private, and what a server printed.
                directory.mkdir(mode=0o700)
                return cls(directory)
            except FileExistsError as error:
                if not out.is_dir():
                    raise _unwritable(directory, error) from None
                attempt += 1
            except OSError as error:
                raise _unwritable(directory, error) from None

    @classmethod
    def resume(cls, directory: Path) -> Self:
        """Open the directory of a run that was cut off, to go on with it.

        Raises:
            RunError: There is no run, it is in use, or it is damaged.
        """
        if not (directory / RECORD).is_file():
            raise RunError(
                f"{directory} holds no run to go on with: there is no {RECORD} in it.",
                remedy="Give the directory that the run named as its last line.",
            )
        return cls(directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._predictions.close()
        self._remove_if_nothing_happened()
        os.close(self._lock)

    def _remove_if_nothing_happened(self) -> None:
        """A directory that tells nothing, because something was wrong before the first question, is not kept."""
        told = [self.directory / name for name in (RECORD, PREDICTIONS, SERVER_LOG)]
        if any(path.exists() and path.stat().st_size > 0 for path in told):
            return
        with contextlib.suppress(OSError):
            for name in (PREDICTIONS, SERVER_LOG, _LOCK_FILE):
                (self.directory / name).unlink(missing_ok=True)
            self.directory.rmdir()

    @property
    def server_log(self) -> Path:
        """Where the server's output goes."""
        return self.directory / SERVER_LOG

    def append(self, prediction: Prediction) -> None:
        """Write a row down, within a fiftieth of a second; from then on, killing this process does not lose it.

        Raises:
            RunError: This row's or an earlier one's file cannot be written, as on a full disk.
        """
        try:
            self._predictions.put(prediction.to_json)
        except OSError as error:
            raise _unwritable(self.directory / PREDICTIONS, error) from None

    def flush(self) -> None:
        """Wait until all rows are written down.

        Raises:
            RunError: One cannot be.
        """
        try:
            self._predictions.flush()
        except OSError as error:
            raise _unwritable(self.directory / PREDICTIONS, error) from None

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file, whole or not at all.

        Raises:
            RunError: It cannot be written.
        """
        try:
            text = json.dumps(content, ensure_ascii=False, indent=1).encode()
        except UnicodeEncodeError:  # a lone surrogate, as in the name of a directory that is not UTF-8
            text = json.dumps(content, indent=1).encode()
        _replace(self.directory / name, text + b"\n")

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all.

        Raises:
            RunError: It cannot be written.
        """
        _replace(self.directory / name, content)

    def read_record(self) -> dict[str, Any]:
        """What was asked when the run was begun: the content of ``run.json``.

        Raises:
            RunError: It cannot be read.
        """
        return read_json(self.directory / RECORD)


def read_json(path: Path) -> dict[str, Any]:
    """One of a run's JSON files.

    Raises:
        RunError: It cannot be read.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}.", remedy="The run is damaged; begin a new one.") from None
    if not isinstance(content, dict):
        raise RunError(f"{path} is not what this program writes.", remedy="The run is damaged; begin a new one.")
    return content


def read_predictions(directory: Path) -> list[Prediction]:
    """The rows of a run, in the order they were written; a last row that was cut off is left out.

    Raises:
        RunError: A row is damaged.
    """
    path = directory / PREDICTIONS
    rows = []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}.", remedy="Check the run's directory.") from None
    for number, line in enumerate(lines[:-1], 1):
        try:
            rows.append(Prediction.from_json(line))
        except ValueError:
            raise RunError(
                f"{path}, line {number}, is damaged.", remedy="Remove that line; its question is then asked again."
            ) from None
    return rows


def _lock(directory: Path) -> int:
    """Take the lock of a run directory; it ends with the descriptor that is returned.

    The directory itself is locked, which stays the same whatever is replaced inside. NFS locks no directories, so there
    it is a file in it; and where there are no locks at all, as on many a cluster's Lustre, a run goes on without one.

    Raises:
        BlockingIOError: Another run has it. Who only looks whether one has, as `bundle runs`, lets it go at once.
        OSError: The directory cannot be opened.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not _take(descriptor):
            os.close(descriptor)
            descriptor = os.open(directory / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            _take(descriptor)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor


def _take(descriptor: int) -> bool:
    """Lock a file or directory; False where its file system does not do that."""
    attempt = 1
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt > _LOCK_ATTEMPTS:
                raise
            attempt += 1
            time.sleep(_LOCK_PAUSE_S)
        except OSError:
            return False
        else:
            return True


def _keep_replies(path: Path) -> Sequence[Prediction]:
    """The rows with a reply, the last of every question; the others are taken out of the file, to be asked again."""
    if not path.exists():
        return ()
    # The last one counts: a question is asked again where its first reply turned out to be none.
    known = tuple({row.key: row for row in read_predictions(path.parent) if row.error is None}.values())
    content = b"".join(row.to_json().encode() + b"\n" for row in known)
    if content != path.read_bytes():
        _replace(path, content)
    return known


def _replace(path: Path, content: bytes) -> None:
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
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> RunError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        remedy = "Free some space, or choose another directory with --out."
    elif error.errno in (errno.EMFILE, errno.ENFILE):
        remedy = "Allow more open files (`ulimit -n`)."
    else:
        remedy = "Choose a directory that can be written with --out."
    return RunError(f"{path} cannot be written: {error.strerror or error}.", remedy=remedy)
