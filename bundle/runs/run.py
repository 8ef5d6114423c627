"""A run directory while it is written. Everything is written at once, so that it is there whatever happens next."""

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from bundle.errors import RunError
from bundle.runs.files import PREDICTIONS, PROMPTS, RECORD, SERVER_LOG, unwritable, write_json, write_whole
from bundle.runs.finding import is_run
from bundle.runs.predictions import Prediction, ends_in_a_row, iter_predictions
from bundle.runs.prompts import prompt_lines
from bundle.runs.record import RunRecord
from bundle.runs.results import Results
from bundle.runs.row_writer import RowWriter
from bundle.runs.same_settings import require_same
from bundle.system.files import open_regular
from bundle.system.locks import Lock
from bundle.system.text import shortened
from bundle.tasks.scores import Key
from bundle.tasks.task import Question


def require_writable(out: Path) -> None:
    """Raises RunError if no run can be created in ``out``; creates nothing."""
    # What is there already of its path. Path.exists would raise where a directory may not be entered.
    there = next(path for path in (out.absolute(), *out.absolute().parents) if os.path.exists(path))  # noqa: PTH110
    if not there.is_dir():
        raise unwritable(out, NotADirectoryError(errno.ENOTDIR, f"{there} is a file"))
    if not os.access(there, os.W_OK | os.X_OK):
        why = errno.EROFS if os.statvfs(there).f_flag & os.ST_RDONLY else errno.EACCES
        raise unwritable(out, OSError(why, os.strerror(why)))


def new_directory(out: Path, label: str) -> Path:
    """Create a directory in ``out`` that is named after the time and ``label``, and nobody else's.

    Raises RunError if it cannot be created.
    """
    stem = f"{datetime.now():%Y%m%d-%H%M%S}-{label}"
    attempt = 1
    while True:
        directory = out / (stem if attempt == 1 else f"{stem}-{attempt}")
        try:
            out.mkdir(parents=True, exist_ok=True)
            # It will hold questions that may be private, and the server's log.
            directory.mkdir(mode=0o700)
        except FileExistsError as error:
            if not out.is_dir():
                raise unwritable(directory, error) from None
            attempt += 1
        except OSError as error:
            raise unwritable(directory, error) from None
        else:
            return directory


class Run:
    """A run directory that this process writes to, and no other. Use it as a context manager.

    Raises RunError if it is in use, or cannot be read or written.

    Attributes:
        known: How many rows it held when it was opened, each with a reply and of another question.
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
                self._count = self.known
                self._predictions = RowWriter(directory / PREDICTIONS)
                self._written = open_regular(directory / PREDICTIONS)
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
        return cls(new_directory(out, shortened(re.sub(r"[^\w.-]+", "-", label).strip("-.") or "run")))

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
                run.earlier.require_same(directory, RunRecord.read(directory).scored_tasks, run.rows())
            opened.pop_all()
        return run

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._predictions.close()
        self._written.close()
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

    def begin(self, record: RunRecord, questions: Sequence[Question], *, keep: bool = False) -> None:
        """Write down what is about to be asked.

        Raises RunError if the run was started with other settings, or a file cannot be written. ``keep`` leaves
        what an earlier session wrote, because nothing will be asked.
        """
        if (self.directory / RECORD).exists():
            require_same(RunRecord.read(self.directory), record, asks=not keep)
            if keep and _holds(self.directory / PROMPTS, prompt_lines(questions)):
                return
        # The record comes last: where there is one, it is known which questions the run has.
        self.write_prompts(questions)
        if not keep:
            self.write(RECORD, record.to_json())

    def write_prompts(self, questions: Sequence[Question]) -> None:
        """Write ``prompts.jsonl``; again, where questions were sent with fewer examples than planned."""
        write_whole(self.directory / PROMPTS, prompt_lines(questions))

    def append(self, prediction: Prediction) -> int:
        """Write a row within a fiftieth of a second; from then on, killing this process does not lose it.

        Returns its number among `rows`.

        Raises RunError if this row or an earlier one cannot be written, as on a full disk.
        """
        self._predictions.put(prediction.to_json)
        self._count += 1
        return self._count - 1

    def rows(self, wanted: Callable[[int], object] | None = None) -> Iterator[Prediction]:
        """The rows that have been written, or those whose numbers are wanted; they are kept in no other place.

        Raises RunError if they cannot be read. One such iterator is used at a time.
        """
        self._predictions.settle()
        return iter_predictions(self.directory, wanted, None if self._written.closed else self._written)

    def flush(self) -> None:
        """Wait until all rows are written. Raises RunError if one cannot be."""
        self._predictions.flush()

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file completely or not at all. Raises RunError if it cannot be written."""
        write_json(self.directory / name, content)


def require_unused(directory: Path) -> None:
    """Refuse a run that another process writes to, before anything is started for it. Raises RunError if one does."""
    if Lock(directory).is_held():
        raise _in_use(directory)


def _in_use(directory: Path) -> RunError:
    return RunError(f"{directory} is in use by another process.", remedy="Wait until that one has ended.")


def _holds(path: Path, content: Iterable[bytes]) -> bool:
    try:
        with open_regular(path) as file:
            return all(file.read(len(piece)) == piece for piece in content) and not file.read(1)
    except OSError:
        return False


def _keep_replies(path: Path, earlier: Results | None) -> int:
    """Remove all rows but those with a reply, the last of every question, so that the rest is asked again.

    Returns how many are left.
    """
    if not os.path.lexists(path):
        return 0
    # The last one counts: a question is asked again where its first reply turned out to be none.
    rows = 0
    last: dict[Key, int] = {}
    for number, row in enumerate(iter_predictions(path.parent)):
        rows = number + 1
        if row.error is None:
            last[row.key] = number
    if earlier is not None:
        earlier.require_replies(path.parent, len(last))
    if len(last) < rows or not ends_in_a_row(path):
        kept = set(last.values())
        write_whole(path, (f"{row.to_json()}\n".encode() for row in iter_predictions(path.parent, kept.__contains__)))
    return len(last)
