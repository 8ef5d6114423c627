"""Directories derived from some files, kept under a name that follows from the content of those files.

Beside a directory ``KEY`` are ``KEY.json``, which records its sources and when it was last used, and ``KEY.lock``,
which is locked while the directory is looked up, made or removed. A reader holds a shared lock on the directory itself
(``hold``), so it is not removed under a server that loads it.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bundle.checkpoints._files import reading, shown
from bundle.errors import CheckpointError
from bundle.system.files import NO_ROOM
from bundle.system.locks import Lock

# Written last, into the finished directory: the size of every other file in it.
_MANIFEST = "bundle-cache.json"
ELSEWHERE = "choose another disk with BUNDLE_CACHE=DIR"


@dataclass(frozen=True, slots=True)
class Entry:
    """A directory of the cache.

    Attributes:
        size: The size of its files, in bytes.
        last_used: When it was last used, in seconds since the epoch.
    """

    key: str
    size: int
    sources: tuple[Path, ...]
    last_used: float


def content_key(version: str, files: Iterable[Path]) -> str:
    """A name for what ``version`` of a program makes from ``files``.

    It hashes their content (SHA-256, which processors do in hardware: 1 to 2 GB/s per core), not their times: weights
    overwritten in place are noticed, and the same weights in two places are recognized. Raises CheckpointError if a
    file cannot be read.
    """

    def digest(path: Path) -> bytes:
        with reading(path), path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()

    ordered = sorted(files, key=lambda path: path.name)
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        digests = pool.map(digest, ordered)
        key = hashlib.sha256(version.encode())
        for path, content in zip(ordered, digests, strict=True):
            key.update(b"\0" + path.name.encode() + b"\0" + content)
    return key.hexdigest()[:32]


def cached_directory(
    root: Path,
    key: str,
    make: Callable[[Path], None],
    *,
    source: Path,
    what: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """The directory ``key`` under ``root``, made by ``make`` if it does not exist or is no longer whole.

    ``make`` gets an empty directory, which takes its place under ``root`` only once it is finished; a second process
    that wants the same key says so and waits for the first. ``source`` is recorded as what it is used for. Where
    one made earlier is used, that is said by the name ``what``, if given. Raises CheckpointError if the cache cannot be
    written.
    """
    finished = root / key
    try:
        # A checkpoint may be private, and then so is what is made from it.
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(root, key, lambda: say(f"waiting for another process to finish writing {finished}")):
            if not _is_whole(finished):
                _make(finished, make)
            elif what is not None:
                say(f"using the {what} in {shown(finished)}")
            _note_use(root, key, source.resolve())
    except OSError as error:
        room = NO_ROOM.get(error.errno or 0)
        raise CheckpointError(
            f"The cache {shown(root)} cannot be written: {shown(error.strerror or error)}.",
            remedy=f"{room}, or {ELSEWHERE}."
            if room
            else "Choose a directory that can be written with BUNDLE_CACHE=DIR.",
        ) from error
    return finished


def _make(finished: Path, make: Callable[[Path], None]) -> None:
    partial = _partial(finished.parent, finished.name)
    for leftover in (partial, finished):
        if leftover.exists():
            shutil.rmtree(leftover)
    partial.mkdir()
    try:
        make(partial)
        sizes = {str(path.relative_to(partial)): path.stat().st_size for path in partial.rglob("*") if path.is_file()}
        (partial / _MANIFEST).write_text(json.dumps(sizes, indent=2) + "\n", encoding="utf-8")
        partial.replace(finished)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def hold(directory: Path) -> Lock:
    """Keep a directory of the cache from being removed until this process ends, or the lock returned is released.

    Raises OSError if it does not exist any more.
    """
    lock = Lock(directory)
    lock.take(shared=True)
    return lock


def entries(root: Path) -> list[Entry]:
    """The finished directories under ``root``, longest unused first."""
    try:
        directories = [path for path in root.iterdir() if (path / _MANIFEST).is_file()]
    except OSError:
        return []
    return sorted((_entry(directory) for directory in directories), key=lambda entry: entry.last_used)


def unfinished(root: Path) -> list[str]:
    """The keys of directories that were left unfinished."""
    keys = (path.name.removeprefix(".").removesuffix(".partial") for path in root.glob(".*.partial"))
    return [key for key in keys if Lock(root / f"{key}.lock").is_held(shared_too=True) is False]


def remove(root: Path, key: str, *, may_go: Callable[[Entry], bool] = lambda entry: True) -> bool:
    """Remove a directory, finished or not, with the files beside it. Returns whether that was done.

    It is left alone if a process uses or makes it, or if ``may_go`` refuses what it is by now. Raises OSError if it
    cannot be removed.
    """
    try:
        with _locked(root, key, None):
            finished, partial = root / key, _partial(root, key)
            if finished.exists():
                if not may_go(_entry(finished)) or Lock(finished).is_held(shared_too=True) is not False:
                    return False
                # In one step, so that it is never there with half of its files.
                shutil.rmtree(partial, ignore_errors=True)
                finished.replace(partial)
            if partial.exists():
                shutil.rmtree(partial)
            for beside in (_note(root, key), root / f"{key}.lock"):
                beside.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _locked(root: Path, key: str, waiting: Callable[[], None] | None) -> Iterator[None]:
    """Hold the lock of ``key``; if another process has it, call ``waiting`` and wait.

    Raises BlockingIOError if another process has it, and ``waiting`` is None.
    """
    path = root / f"{key}.lock"
    while True:
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting is None:
                    raise
                waiting()
                fcntl.flock(lock, fcntl.LOCK_EX)
            # Its last holder may have removed the file with all the rest; the next process then locks another.
            if not _is_open(path, lock.fileno()):
                continue
            yield
            return


def _is_open(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _note(root: Path, key: str) -> Path:
    return root / f"{key}.json"


def _partial(root: Path, key: str) -> Path:
    return root / f".{key}.partial"


def _note_use(root: Path, key: str, source: Path) -> None:
    sources = dict.fromkeys([*_read_note(root, key)[0], str(source)])
    _note(root, key).write_text(
        json.dumps({"sources": list(sources), "last_used": time.time()}, indent=2) + "\n", encoding="utf-8"
    )


def _read_note(root: Path, key: str) -> tuple[list[str], float | None]:
    """A key's sources, and when it was last used; nothing if the note is damaged."""
    try:
        note = json.loads(_note(root, key).read_bytes())
        return [str(source) for source in note["sources"]], float(note["last_used"])
    except (OSError, ValueError, KeyError, TypeError):
        return [], None


def _entry(directory: Path) -> Entry:
    sources, last_used = _read_note(directory.parent, directory.name)
    files = [path.lstat() for path in directory.iterdir()]  # weights may be links
    return Entry(
        directory.name,
        sum(file.st_size for file in files),
        tuple(map(Path, sources)),
        directory.stat().st_mtime if last_used is None else last_used,
    )


def _is_whole(directory: Path) -> bool:
    """Whether every file has its full size; cleaning tools and power cuts take single files."""
    try:
        sizes = json.loads((directory / _MANIFEST).read_bytes())
        return all((directory / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False
