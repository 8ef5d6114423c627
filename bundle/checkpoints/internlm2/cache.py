"""Directories made once from some files, and kept under a name that those files' content gives.

Beside a directory ``KEY`` lie ``KEY.json``, which tells what it was made from and when it was last wanted, and
``KEY.lock``, which is locked while it is looked for, made or removed. Whoever reads it holds a shared lock on the
directory itself (``hold``), so that it is not removed under a server that loads it.
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

from bundle.system.locks import Lock

# Written last, into the finished directory: the size of every other file in it.
_MANIFEST = "bundle-cache.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """A directory of the cache.

    Attributes:
        key: Its name.
        size: The size of its files, in bytes.
        sources: The directories it is known to have been made or wanted for.
        last_used: When it was last wanted, in seconds since the epoch.
    """

    key: str
    size: int
    sources: tuple[Path, ...]
    last_used: float


def content_key(version: str, files: Iterable[Path]) -> str:
    """A name for what is made from ``files`` by the maker called ``version``.

    It hashes what the files hold (SHA-256, which processors do in hardware: 1 to 2 GB/s a core), not their times:
    weights copied over in place are told apart, and the same weights in two places are recognised.

    Raises:
        OSError: A file cannot be read.
    """

    def digest(path: Path) -> bytes:
        with path.open("rb") as file:
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
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """The directory ``key`` under ``root``, made by ``make`` where it is not there, or no longer whole.

    ``make`` is given an empty directory, which takes its place under ``root`` only once it is finished; a second
    process that wants the same key says so and waits for the first. ``source`` is written down as what it was wanted
    for.

    Raises:
        OSError: The cache cannot be written.
    """
    # A checkpoint may be for its owner's eyes alone, and what is made from it is as much so.
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    finished = root / key
    with _locked(root, key, lambda: say(f"waiting for another process that is writing {finished}")):
        if not _is_whole(finished):
            _make(finished, make)
        _note_use(root, key, source.resolve())
    return finished


def _make(finished: Path, make: Callable[[Path], None]) -> None:
    partial = _partial(finished.parent, finished.name)
    for leftover in (partial, finished):
        if leftover.exists():
            shutil.rmtree(leftover)
    partial.mkdir()
    try:
        make(partial)
        sizes = {path.name: path.stat().st_size for path in partial.iterdir()}
        (partial / _MANIFEST).write_text(json.dumps(sizes, indent=2) + "\n", encoding="utf-8")
        partial.replace(finished)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def hold(directory: Path) -> Lock:
    """Keep a directory of the cache from being removed until this process ends, or the lock returned is released.

    Raises:
        OSError: It does not exist any more.
    """
    lock = Lock(directory)
    lock.take(shared=True)
    return lock


def entries(root: Path) -> list[Entry]:
    """The finished directories under ``root``, those longest unused first; none where there is no such directory."""
    try:
        directories = [path for path in root.iterdir() if (path / _MANIFEST).is_file()]
    except OSError:
        return []
    return sorted((_entry(directory) for directory in directories), key=lambda entry: entry.last_used)


def unfinished(root: Path) -> list[str]:
    """The keys of directories that nobody is making any more and nobody has finished."""
    return [
        path.name.removeprefix(".").removesuffix(".partial")
        for path in root.glob(".*.partial")
        if Lock(root / f"{path.name.removeprefix('.').removesuffix('.partial')}.lock").is_held(shared_too=True) is False
    ]


def remove(root: Path, key: str, *, may_go: Callable[[Entry], bool] = lambda entry: True) -> bool:
    """Remove a directory, finished or not, with all that lies beside it. Returns whether that was done.

    It is left alone where somebody uses it or is making it, or ``may_go`` says no of what it is now.

    Raises:
        OSError: It cannot be removed.
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
    """Hold the lock of ``key``; where somebody else does, call ``waiting`` and wait for it.

    Raises:
        BlockingIOError: Somebody else does, and ``waiting`` is None.
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
            # Whoever held it may have removed the file with all the rest; the next one then locks another.
            if not _same_file(lock.fileno(), path):
                continue
            yield
            return


def _same_file(descriptor: int, path: Path) -> bool:
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
    """What is written down of a key: its sources, and when it was last used; of a damaged note nothing."""
    try:
        note = json.loads(_note(root, key).read_bytes())
        return [str(source) for source in note["sources"]], float(note["last_used"])
    except (OSError, ValueError, KeyError, TypeError):
        return [], None


def _entry(directory: Path) -> Entry:
    sources, last_used = _read_note(directory.parent, directory.name)
    files = [path.stat() for path in directory.iterdir()]
    return Entry(
        directory.name,
        sum(file.st_size for file in files),
        tuple(map(Path, sources)),
        directory.stat().st_mtime if last_used is None else last_used,
    )


def _is_whole(directory: Path) -> bool:
    """Whether every file is there in its full size; tidying-up tools and lost power take single files."""
    try:
        sizes = json.loads((directory / _MANIFEST).read_bytes())
        return all((directory / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False
