"""Files made from a run, before and while they are written."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bundle.errors import RunError
from bundle.system.text import shortened


@dataclass(frozen=True, slots=True)
class Export:
    """A run in some format.

    Attributes:
        files: Text by path, relative to the directory it is for, with "/" between parts.
        remarks: What the reader must know and the files do not say, one line each.
        obsolete: Paths of files that an earlier export of the same run may have left and that are no longer right.
    """

    files: Mapping[str, str]
    remarks: tuple[str, ...] = ()
    obsolete: tuple[str, ...] = ()

    def write(self, path: Path, *, is_directory: bool) -> None:
        """Write all files.

        Args:
            path: The directory, or the only file; where there are several after all, they are put beside it.
            is_directory: Whether it is a directory.

        Raises:
            RunError: One cannot be written.
        """
        if not is_directory and len(self.files) == 1:
            write_text(path, next(iter(self.files.values())))
        else:
            self.write_to(path if is_directory else path.parent)

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
    """Write a file and the directories it needs, in UTF-8, with newlines as they are.

    Raises:
        RunError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise RunError(
            f"{path} cannot be written: {error.strerror or error}.",
            remedy="Choose another path with --out.",
        ) from None


def file_name(name: str) -> str:
    """A name as part of a path: characters with a meaning in paths, shells or CSV become "_", and a long one is cut."""
    return shortened(re.sub(r"[^\w.+@=-]+", "_", name).strip(".") or "_")


def unanswered(missing: int, n: int) -> str:
    """As in "3 of 24 questions have no reply"."""
    return f"{missing} of {n} questions {'has' if missing == 1 else 'have'} no reply"
