"""Files that runs cut off by SIGKILL or lost power have left: temporary directories, and half-written files."""

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bundle.system.locks import Lock

# How long a thing must not have changed before it counts as left behind. Each is in use for seconds at most, and the
# first kind is locked besides.
_TEMPORARY: Final = {"bundle-tokenizer-*": 300.0, "bundle-server-*": 300.0, "bundle-parquet-*": 3600.0}
_HALF_WRITTEN_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file or directory that nobody uses any more.

    Attributes:
        path: Where it is.
        size: What it takes, in bytes.
        age_s: Seconds since it was last changed.
    """

    path: Path
    size: int
    age_s: float

    def remove(self) -> None:
        """Remove it.

        Raises:
            OSError: It cannot be removed.
        """
        if self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)


def temporary_directories() -> Iterator[Leftover]:
    """Directories of ours in the system's directory for temporary files."""
    root = Path(tempfile.gettempdir())
    for pattern, quiet_s in _TEMPORARY.items():
        for path in root.glob(pattern):
            # Anybody can make a name in there: only real directories of this user's are ours to remove.
            yield from _left(path, quiet_s, directory=True)


def half_written_results(out: Path) -> Iterator[Leftover]:
    """Files in run directories under ``out`` that were to take another's place, of runs that nobody is writing to."""
    for path in out.glob("*/.*.part"):
        if Lock(path.parent).is_held() is False:
            yield from _left(path, _HALF_WRITTEN_S, directory=False)


def half_written_downloads(cache: Path) -> Iterator[Leftover]:
    """Downloads from ModelScope that did not end."""
    for path in cache.glob("*/*/*.part"):
        yield from _left(path, _HALF_WRITTEN_S, directory=False)


def hub_views(root: Path) -> Iterator[Leftover]:
    """Views of rewritten checkpoints that are not there any more, and views that were never finished."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for path in sorted(root.iterdir()):
            unfinished = path.name.startswith("tmp")
            if unfinished or any(link.is_symlink() and not link.exists() for link in path.rglob("*")):
                yield from _left(path, _HALF_WRITTEN_S, directory=True)


def _left(path: Path, quiet_s: float, *, directory: bool) -> Iterator[Leftover]:
    try:
        status = path.lstat()
        kind_fits = stat.S_ISDIR(status.st_mode) if directory else stat.S_ISREG(status.st_mode)
        if not kind_fits or status.st_uid != os.getuid():
            return
        files = [file.lstat() for file in path.rglob("*")] if directory else []
        age_s = time.time() - max(one.st_mtime for one in (status, *files))
        if age_s >= quiet_s and Lock(path).is_held() is False:
            yield Leftover(path, sum(one.st_size for one in files or [status]), age_s)
    except OSError:
        return  # It went away while we were looking, or is none of our business.
