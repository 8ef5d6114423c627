"""Files made of a run, before and while they are written."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.errors import RunError


@dataclass(frozen=True, slots=True)
class Export:
    """What a run becomes in another tool's format.

    Attributes:
        files: Text by path, relative to the directory it is for, with "/" between parts.
        remarks: What has to be known of the files and they do not say themselves, a line each.
        obsolete: Paths of files that an earlier export of the same run may have left and that are no longer true.
    """

    files: Mapping[str, str]
    remarks: tuple[str, ...] = ()
    obsolete: tuple[str, ...] = ()

    def write_to(self, directory: Path) -> None:
        """Write all files.

        Raises:
            RunError: One cannot be written.
        """
        for name, text in self.files.items():
            write_text(directory / name, text)
        for name in self.obsolete:
            (directory / name).unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file and the directories it needs, as UTF-8 with the newlines it has.

    Raises:
        RunError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise RunError(
            f"{error.filename or path} cannot be written: {error.strerror or error}.",
            remedy="Free some space, or choose another place with --out.",
        ) from None


def to_json(content: Any, *, indent: int | None = None) -> str:
    """JSON with Chinese as it is; a lone surrogate, which a reply may hold, is escaped, so that it can be UTF-8."""
    text = json.dumps(content, ensure_ascii=False, indent=indent)
    return text if text.isascii() or _encodable(text) else json.dumps(content, indent=indent)


def file_name(name: str) -> str:
    """A name as a part of a path: what paths, shells or a line of CSV could take for something else becomes "_"."""
    return re.sub(r"[^\w.+@=-]+", "_", name).strip(".") or "_"


def unanswered(missing: int, n: int) -> str:
    """How to say it: "3 of 24 questions have no reply"."""
    return f"{missing} of {n} questions {'has' if missing == 1 else 'have'} no reply"


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
