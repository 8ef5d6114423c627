"""Directories made once from some files, and kept under a name that those files' content gives."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Written last, into the finished directory: the size of every other file in it.
_MANIFEST = "bundle-cache.json"


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
    root: Path, key: str, make: Callable[[Path], None], *, say: Callable[[str], None] = lambda line: None
) -> Path:
    """The directory ``key`` under ``root``, made by ``make`` where it is not there, or no longer whole.

    ``make`` is given an empty directory, which takes its place under ``root`` only once it is finished; a second
    process that wants the same key says so and waits for the first.

    Raises:
        OSError: The cache cannot be written.
    """
    root.mkdir(parents=True, exist_ok=True)
    finished = root / key
    with (root / f"{key}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that is writing {finished}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_whole(finished):
            return finished
        partial = root / f".{key}.partial"
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
    return finished


def _is_whole(directory: Path) -> bool:
    """Whether every file is there in its full size; tidying-up tools and lost power take single files."""
    try:
        sizes = json.loads((directory / _MANIFEST).read_bytes())
        return all((directory / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False
