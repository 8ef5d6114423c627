"""A run directory while it is written. Everything is written at once, so that it is there whatever happens next."""

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bundle.errors import RunError
from bundle.runs.files import PREDICTIONS, PROMPTS, RECORD, SERVER_LOG, unwritable, write_json, write_whole
from bundle.runs.finding import is_run
from bundle.runs.predictions import Prediction, read_predictions
from bundle.runs.record import RunRecord
from bundle.runs.results import Results
from bundle.runs.row_writer import RowWriter
from bundle.runs.same_settings import require_same
from bundle.system.files import read_regular
from bundle.system.locks import Lock
from bundle.system.text import shortened


class Run:
    """A run directory that this process writes to, and no other. Use it as a context manager.

    Raises RunError if it is in use, or cannot be read or written.

    Attributes:
        known: The predictions with a reply that it held when it was opened.
        earlier: The results of the sessions before; None without any.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = Lock(directory)
        try:
            self._lock.take()
            try:
                self.earlier = Results.read(directory)
                self.known = _keep_replies(directory / PREDICTIONS, self.earlier)
                self._predictions = RowWriter(directory / PREDICTIONS)
            except BaseException:
                self._lock.release()
                raise
        except BlockingIOError:
            raise _in_use(directory) from None
        except OSError as error:
            raise unwritable(directory, error) from None

    @classmethod
    def create(cls, out: Path, label: str) -> Self:
        """Create a new directory in ``out``, named after the time and ``label``.

        Raises RunError if it cannot be created.
        """
        stem = datetime.now().strftime("%Y%m%d-%H%M%S-") + _file_name(label)
        attempt = 1
        while True:
            directory = out / (stem if attempt == 1 else f"{stem}-{attempt}")
            try:
                out.mkdir(parents=True, exist_ok=True)
                # It will hold questions that may be private, and the server's log.
                directory.mkdir(mode=0o700)
                return cls(directory)
            except FileExistsError as error:
                if not out.is_dir():
                    raise unwritable(directory, error) from None
                attempt += 1
            except OSError as error:
                raise unwritable(directory, error) from None

    @classmethod
    def resume(cls, directory: Path) -> Self:
        """Open the directory of an earlier run to continue it.

        Raises RunError if it is not a run's, is in use, or is damaged.
        """
        if not is_run(directory):
            raise RunError(
                f"Cannot resume {directory}: it contains no {RECORD}.",
                remedy="Use the directory that the run printed on its last line.",
            )
        with contextlib.ExitStack() as opened:
            opened.enter_context(run := cls(directory))
            if run.earlier is not None:
                run.earlier.require_same(directory, RunRecord.read(directory).scored_tasks, run.known)
            opened.pop_all()
        return run

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._predictions.close()
        self._remove_if_nothing_happened()
        self._lock.release()

    def _remove_if_nothing_happened(self) -> None:
        """Remove a directory without content, as when something was wrong before the server was started."""
        content = [self.directory / name for name in (RECORD, PREDICTIONS, SERVER_LOG)]
        if any(path.exists() and path.stat().st_size > 0 for path in content):
            return
        with contextlib.suppress(OSError):
            for name in (PREDICTIONS, SERVER_LOG):
                (self.directory / name).unlink(missing_ok=True)
            self._lock.remove_stand_in()
            self.directory.rmdir()

    @property
    def server_log(self) -> Path:
        return self.directory / SERVER_LOG

    def begin(self, record: RunRecord, prompts: bytes, *, keep: bool = False) -> None:
        """Write down what is about to be asked.

        Raises RunError if the run was started with other settings, or a file cannot be written. ``keep`` leaves
        what an earlier session wrote, because nothing will be asked.
        """
        if (self.directory / RECORD).exists():
            require_same(RunRecord.read(self.directory), record)
            if keep and _holds(self.directory / PROMPTS, prompts):
                return
        # The record comes last: where there is one, it is known which questions the run has.
        write_whole(self.directory / PROMPTS, prompts)
        if keep:
            return
        write_json(self.directory / RECORD, record.to_json())

    def write_prompts(self, prompts: bytes) -> None:
        """Write ``prompts.jsonl`` again, where questions were sent with fewer examples than planned."""
        write_whole(self.directory / PROMPTS, prompts)

    def amend(self, record: RunRecord) -> None:
        """Write down more about what is asked than was known in `begin`."""
        write_json(self.directory / RECORD, record.to_json())

    def append(self, prediction: Prediction) -> None:
        """Write a row within a fiftieth of a second; from then on, killing this process does not lose it.

        Raises RunError if this row or an earlier one cannot be written, as on a full disk.
        """
        try:
            self._predictions.put(prediction.to_json)
        except OSError as error:
            raise unwritable(self.directory / PREDICTIONS, error) from None

    def flush(self) -> None:
        """Wait until all rows are written. Raises RunError if one cannot be."""
        try:
            self._predictions.flush()
        except OSError as error:
            raise unwritable(self.directory / PREDICTIONS, error) from None

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file completely or not at all. Raises RunError if it cannot be written."""
        write_json(self.directory / name, content)


def require_unused(directory: Path) -> None:
    """Refuse a run that another process writes to, before anything is started for it. Raises RunError if one does."""
    if Lock(directory).is_held():
        raise _in_use(directory)


def _in_use(directory: Path) -> RunError:
    return RunError(f"{directory} is in use by another process.", remedy="Wait until that one has ended.")


def _holds(path: Path, content: bytes) -> bool:
    try:
        return read_regular(path, len(content)) == content
    except OSError:
        return False


def _file_name(label: str) -> str:
    return shortened(re.sub(r"[^\w.-]+", "-", label).strip("-.") or "run")


def _keep_replies(path: Path, earlier: Results | None) -> Sequence[Prediction]:
    """The rows with a reply, the last of every question; the others are removed, so that they are asked again."""
    exists = os.path.lexists(path)
    rows = read_predictions(path.parent) if exists else []
    # The last one counts: a question is asked again where its first reply turned out to be none.
    known = tuple({row.key: row for row in rows if row.error is None}.values())
    if earlier is not None:
        earlier.require_replies(path.parent, len(known))
    content = b"".join(row.to_json().encode() + b"\n" for row in known)
    if exists and content != read_regular(path, len(content)):
        write_whole(path, content)
    return known
