"""What earlier runs left behind: processes, files, and converted checkpoints that are no longer needed."""

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bundle.checkpoints import cache
from bundle.doctor.processes import ProcessesUnknownError, end_orphans, marked_processes, session_is_alive
from bundle.serving.conversion import CONVERTED, cache_directory
from bundle.serving.transformers_engine import HUB_VIEWS
from bundle.system.findings import Finding, ok, warning
from bundle.system.locks import Lock
from bundle.system.processes import describe
from bundle.system.text import age, plural, size
from bundle.tasks.sources.modelscope import cache as modelscope_cache

_CLEAN: Final = "`bundle doctor --clean`"
_FEW: Final = 5
_DAY_S: Final = 86400.0
_UNUSED_S: Final = 30 * _DAY_S

# How long a thing must not have changed before it counts as left behind. Each is in use for seconds at most, and the
# first kind is locked besides.
_TEMPORARY: Final = {"bundle-tokenizer-*": 300.0, "bundle-server-*": 300.0, "bundle-parquet-*": 3600.0}
_HALF_WRITTEN_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file or directory that is no longer used."""

    path: Path
    size: int
    age_s: float


def check_processes(clean: bool) -> Iterator[Finding]:
    """Processes of servers whose run is gone; with ``clean`` they are ended."""
    try:
        marked = marked_processes()
        orphans = [one for one in marked if one.orphaned]
        if orphans and clean:
            ended: list[str] = []
            left = end_orphans(ended.append)
            if ended:
                yield ok(f"ended {plural(len(ended), 'process', 'processes')} left behind by earlier runs", ended)
            orphans = left
    except ProcessesUnknownError as error:
        yield warning(f"cannot look for processes left behind by earlier runs: {error}", "Mount /proc, or use `ps`.")
        return
    if orphans:
        pids = " ".join(str(one.pid) for one in orphans)
        yield warning(
            f"{plural(len(orphans), 'process is', 'processes are')} left behind by earlier runs that were killed",
            f"They do not end: look at them with `ps -fp {pids}`." if clean else f"{_CLEAN} ends them.",
            [describe(one.pid) for one in orphans],
        )
    stopped = [one for one in marked if one.guardian_stopped]
    if stopped:
        yield warning(
            f"the guardian of {plural(len(stopped), 'process', 'processes')} is stopped, so it cannot clean up",
            "`kill -CONT` it: it is the process that runs guardian.py.",
            [describe(one.pid) for one in stopped],
        )
    alive = [one for one in marked if not one.orphaned]
    running = f" ({plural(len(alive), 'process', 'processes')} of runs in progress)" if alive else ""
    if not orphans and not stopped:
        yield ok(f"no processes left behind by earlier runs{running}")


def check_files(out: Path, clean: bool) -> Iterator[Finding]:
    """Temporary directories and half-written files; with ``clean`` they are removed."""
    found = list(_left_behind(out))
    if not found:
        yield ok("no temporary files left behind by earlier runs")
        return
    words = f"{plural(len(found), 'temporary file or directory', 'temporary files and directories')} of earlier runs"
    shown = [f"{one.path} ({size(one.size)}, {age(one.age_s)} old)" for one in found]
    if not clean:
        yield warning(f"{words}: {size(sum(one.size for one in found))}", f"{_CLEAN} removes them.", _few(shown))
        return
    failed = list(_remove_all(found))
    if len(failed) < len(found):
        gone = len(found) - len(failed)
        yield ok(f"removed {plural(gone, 'temporary file or directory', 'temporary files and directories')}")
    if failed:
        yield warning(f"{len(failed)} of {words} cannot be removed", "Remove them by hand.", _few(failed))


def check_converted(clean: bool) -> Iterator[Finding]:
    """Checkpoints converted for the CPU engine, which are kept for next time; with ``clean`` the unneeded are removed.

    Unneeded is what was not used for 30 days, and what was not used for a day and whose every original is gone.
    Nothing is lost with one: it is made again from the original. One that a server reads is locked, and stays.
    """
    root = cache_directory() / CONVERTED
    entries = cache.entries(root)
    kept = [entry for entry in entries if _why_unneeded(entry) is None]
    unneeded = [(entry.key, f"({size(entry.size)}): {_why_unneeded(entry)}") for entry in entries if entry not in kept]
    unneeded += [(key, f"that was never finished (.{key}.partial)") for key in cache.unfinished(root)]
    for key, why in list(unneeded) if clean else ():
        with contextlib.suppress(OSError):
            if cache.remove(root, key, may_go=lambda now: _why_unneeded(now) is not None):
                unneeded.remove((key, why))
                yield ok(f"removed a converted checkpoint {why}")
    if unneeded:
        left = {key for key, _ in unneeded}
        total = sum(entry.size for entry in entries if entry.key in left and entry not in kept)
        yield warning(
            f"{plural(len(unneeded), 'converted checkpoint')} in {root} {'is' if len(unneeded) == 1 else 'are'} no "
            f"longer needed: {size(total)}",
            f"In use, or cannot be removed: see {root}." if clean else f"{_CLEAN} removes them.",
            [f"{root / key} {why}" for key, why in unneeded],
        )
    if kept:
        now = time.time()
        yield ok(
            f"{plural(len(kept), 'converted checkpoint')} kept in {root}: {size(sum(entry.size for entry in kept))}",
            [f"{entry.key} ({size(entry.size)}, last used {age(now - entry.last_used)} ago)" for entry in kept],
        )
    elif not unneeded:
        yield ok(f"no converted checkpoints in {root}")


def _why_unneeded(entry: cache.Entry) -> str | None:
    unused = time.time() - entry.last_used
    if unused > _UNUSED_S:
        return f"not used for {age(unused)}"
    # A disk that is not mounted for a moment must not cost an hour of copying.
    if unused > _DAY_S and entry.sources and not any(source.is_dir() for source in entry.sources):
        return f"{entry.sources[0]} no longer exists"
    return None


def _remove_all(found: Iterable[Leftover]) -> Iterator[str]:
    for one in found:
        try:
            if one.path.is_dir() and not one.path.is_symlink():
                shutil.rmtree(one.path)
            else:
                one.path.unlink(missing_ok=True)
        except OSError as error:
            yield f"{one.path}: {error.strerror}"


def _few(lines: list[str]) -> list[str]:
    return lines if len(lines) <= _FEW else [*lines[:_FEW], f"and {len(lines) - _FEW} more"]


def _left_behind(out: Path) -> Iterator[Leftover]:
    for pattern, quiet_s in _TEMPORARY.items():
        for path in Path(tempfile.gettempdir()).glob(pattern):
            # Any user can make a name in there: only real directories of this user's are ours to remove.
            if not session_is_alive(path):
                yield from _left(path, quiet_s, directory=True)
    for path in out.glob("*/.*.part"):
        if Lock(path.parent).is_held() is False:  # of a run that is not in progress
            yield from _left(path, _HALF_WRITTEN_S, directory=False)
    for path in modelscope_cache().glob("*/*/*.part"):
        yield from _left(path, _HALF_WRITTEN_S, directory=False)
    for path in sorted((cache_directory() / HUB_VIEWS).glob("*")):  # never finished, or of checkpoints that are gone
        if path.name.startswith("tmp") or any(one.is_symlink() and not one.exists() for one in path.rglob("*")):
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
        return  # It went away while we were looking, or is not ours.
