"""A run is a directory. What is known is written at once, so that whatever happens later, it is still there."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bundle.errors import RunError

SERVER_LOG = "server.log"


@dataclass(frozen=True, slots=True)
class Prediction:
    """One line of ``predictions.jsonl``: a question that was asked, and what came of it.

    Attributes:
        subject: The subject's name.
        id: Row number in the split, from 0.
        reply: The reply's text; None where there is none.
        answer: What the task's rule found in the reply, "" for nothing; None without a reply.
        gold: The right answer.
        correct: Whether they agree; None without a reply, which is not a wrong answer.
        finish_reason: Why the server stopped, as it said.
        decided_early: Whether the reply was cut off because its answer was certain.
        prompt_tokens: As counted by the server, None where it did not say.
        completion_tokens: Likewise.
        latency_s: Seconds from the last attempt's start to the reply's end.
        attempts: How often it was asked.
        error: Why there is no reply; None where there is one.
    """

    subject: str
    id: int
    reply: str | None
    answer: str | None
    gold: str
    correct: bool | None
    finish_reason: str | None
    decided_early: bool
    prompt_tokens: int | None
    completion_tokens: int | None
    latency_s: float
    attempts: int
    error: str | None = None

    def to_json(self) -> str:
        """The line, without its newline. A lone surrogate in a reply is escaped, so that the file stays UTF-8."""
        fields = asdict(self)
        if self.error is None:
            del fields["error"]
        try:
            line = json.dumps(fields, ensure_ascii=False)
            line.encode()
        except UnicodeEncodeError:
            line = json.dumps(fields)
        return line


class Run:
    """An open run directory, to be written to.

    Use as a context manager, so that the file of predictions is closed.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._predictions = (directory / "predictions.jsonl").open("ab", buffering=0)

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
                directory.mkdir(parents=True)
                return cls(directory)
            except FileExistsError:
                if not out.is_dir():
                    raise _unwritable(directory, "a file is in the way") from None
                attempt += 1
            except OSError as error:
                raise _unwritable(directory, error.strerror or str(error)) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._predictions.close()

    @property
    def server_log(self) -> Path:
        """Where the server's output goes."""
        return self.directory / SERVER_LOG

    def append(self, prediction: Prediction) -> None:
        """Write a row down. It is the system's once this returns: killing this process does not lose it.

        Raises:
            RunError: It cannot be written, as on a full disk.
        """
        line = prediction.to_json().encode() + b"\n"
        path = self.directory / "predictions.jsonl"
        try:
            written = self._predictions.write(line)
        except OSError as error:
            raise _unwritable(path, error.strerror or str(error)) from None
        if written != len(line):
            raise _unwritable(path, "the disk took only part of a row")

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file, whole or not at all.

        Raises:
            RunError: It cannot be written.
        """
        path = self.directory / name
        part = path.with_name(f".{name}.part")
        try:
            part.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
            part.replace(path)
        except OSError as error:
            raise _unwritable(path, error.strerror or str(error)) from None


def read_predictions(directory: Path) -> Iterator[dict[str, Any]]:
    """The rows of a run, in the order they were written; a last line that was cut off is left out."""
    with (directory / "predictions.jsonl").open("rb") as stream:
        for line in stream:
            if line.endswith(b"\n"):
                yield json.loads(line)


def _unwritable(path: Path, reason: str) -> RunError:
    return RunError(
        f"{path} cannot be written: {reason}.", remedy="Free some space or choose another directory with --out."
    )
