"""What a stand-in server was asked, in all of its lives: one JSON line for everything that happened. Standard library
only."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Journal:
    """Written by a server. Every line goes out in one piece, so that a server can be killed at any moment.

    Attributes:
        life: How often such a server has been started, this time counted.
    """

    def __init__(self, path: str | None) -> None:
        self.life = 1 + (len(read_journal(Path(path)).lives) if path else 0)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) if path else None

    def note(self, **event: Any) -> None:
        """Write down what happened in this life."""
        if self._file is not None:
            os.write(self._file, json.dumps({"life": self.life, **event}, ensure_ascii=False).encode() + b"\n")


@dataclass(frozen=True)
class Story:
    """What a journal tells."""

    events: Sequence[dict[str, Any]]

    @property
    def lives(self) -> list[int]:
        """The server's pid in each of its lives."""
        return [event["pid"] for event in self.events if "pid" in event]

    def asked(self, life: int | None = None) -> list[str]:
        """The questions that arrived, each as often as it did, in one life or all."""
        return [event["asked"] for event in self.events if "asked" in event and life in (None, event["life"])]

    def all_of(self, key: str) -> list[Any]:
        """What was noted under ``key``."""
        return [event[key] for event in self.events if key in event]


def read_journal(path: Path) -> Story:
    """A journal, which may be written to meanwhile."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return Story([json.loads(line) for line in lines])
