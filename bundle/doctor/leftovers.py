"""What earlier runs have left behind: processes, files, and rewritten checkpoints that nobody needs any more."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from bundle.checkpoints.internlm2 import cache
from bundle.doctor import leftover_files
from bundle.doctor.findings import Finding, ok, warning
from bundle.doctor.leftover_files import Leftover
from bundle.doctor.processes import MarkedProcess, NotKnownError, describe, end_orphans
from bundle.doctor.words import duration, size, things

CLEAN: Final = "`bundle doctor --clean`"
_DAY_S: Final = 86400.0
_UNUSED_S: Final = 30 * _DAY_S


def look_at_processes(find: Callable[[], list[MarkedProcess]], *, clean: bool) -> Iterator[Finding]:
    """Processes of servers whose run is gone; with ``clean`` they are ended."""
    try:
        marked = find()
        orphans = [one for one in marked if one.orphaned]
        if orphans and clean:
            ended: list[str] = []
            left = end_orphans(ended.append)
            if ended:
                yield ok(f"ended {things(len(ended), 'process', 'processes')} left by earlier runs", ended)
            orphans = left
    except NotKnownError as error:
        yield warning(f"processes left by earlier runs cannot be looked for: {error}", "Mount /proc, or use `ps`.")
        return
    if orphans:
        pids = " ".join(str(one.pid) for one in orphans)
        yield warning(
            f"{things(len(orphans), 'process is', 'processes are')} left by earlier runs that were killed",
            f"They do not end: look at them with `ps -fp {pids}`." if clean else f"{CLEAN} ends them.",
            [describe(one.pid) for one in orphans],
        )
    stopped = [one for one in marked if one.guardian_stopped]
    if stopped:
        yield warning(
            f"the guardian of {things(len(stopped), 'process', 'processes')} is stopped, and ends nothing",
            "`kill -CONT` it: it is the process that runs guardian.py.",
            [describe(one.pid) for one in stopped],
        )
    alive = [one for one in marked if not one.orphaned]
    running = f" ({things(len(alive), 'process', 'processes')} of runs under way)" if alive else ""
    if not orphans and not stopped:
        yield ok(f"no process is left by an earlier run{running}")


def look_at_files(out: Path, downloads: Path, views: Path, *, clean: bool) -> Iterator[Finding]:
    """Temporary directories and half-written files; with ``clean`` they are removed.

    Args:
        out: Where run directories are made.
        downloads: Where downloads from ModelScope are kept.
        views: Where views of rewritten checkpoints are kept.
        clean: Whether to remove them.
    """
    found = [*leftover_files.temporary_directories(), *leftover_files.half_written_results(out)]
    found += [*leftover_files.half_written_downloads(downloads), *leftover_files.hub_views(views)]
    if not found:
        yield ok("no temporary file is left by an earlier run")
        return
    words = f"{things(len(found), 'temporary file or directory', 'temporary files and directories')} of earlier runs"
    shown = [f"{one.path} ({size(one.size)}, {duration(one.age_s)} old)" for one in found]
    if not clean:
        yield warning(f"{words}: {size(sum(one.size for one in found))}", f"{CLEAN} removes them.", _few(shown))
        return
    failed = list(_remove_all(found))
    if len(failed) < len(found):
        gone = len(found) - len(failed)
        yield ok(f"removed {things(gone, 'temporary file or directory', 'temporary files and directories')}")
    if failed:
        yield warning(f"{len(failed)} of {words} cannot be removed", "Remove them by hand.", _few(failed))


def look_at_rewritten(root: Path, *, clean: bool) -> Iterator[Finding]:
    """Checkpoints rewritten for the CPU engine, which are kept for the next time; with ``clean`` the unneeded go.

    Unneeded is what was not wanted for 30 days, and what was not wanted for a day and whose every original is gone.
    Nothing is lost with one: it is made again from the original. One that a server reads is locked, and stays.
    """
    entries = cache.entries(root)
    unneeded = [entry for entry in entries if _why_unneeded(entry)]
    kept = [entry for entry in entries if entry not in unneeded]
    unfinished = cache.unfinished(root)
    if clean:
        for entry in list(unneeded):
            with contextlib.suppress(OSError):
                if cache.remove(root, entry.key, may_go=lambda now: _why_unneeded(now) is not None):
                    unneeded.remove(entry)
                    yield ok(f"removed a rewritten checkpoint ({size(entry.size)}): {_why_unneeded(entry)}")
        for key in list(unfinished):
            with contextlib.suppress(OSError):
                if cache.remove(root, key, may_go=lambda now: False):
                    unfinished.remove(key)
                    yield ok("removed a rewritten checkpoint that was never finished")
    if unneeded or unfinished:
        total = sum(entry.size for entry in unneeded)
        yield warning(
            f"{things(len(unneeded) + len(unfinished), 'rewritten checkpoint')} in {root} "
            f"{'is' if len(unneeded) + len(unfinished) == 1 else 'are'} of no use any more: {size(total)}",
            f"In use, or cannot be removed: see {root}." if clean else f"{CLEAN} removes them.",
            [f"{root / entry.key} ({size(entry.size)}): {_why_unneeded(entry)}" for entry in unneeded]
            + [f"{root}/.{key}.partial: never finished" for key in unfinished],
        )
    if kept:
        now = time.time()
        yield ok(
            f"{things(len(kept), 'rewritten checkpoint')} kept in {root}: {size(sum(entry.size for entry in kept))}",
            [f"{entry.key} ({size(entry.size)}, last used {duration(now - entry.last_used)} ago)" for entry in kept],
        )
    elif not unneeded and not unfinished:
        yield ok(f"no rewritten checkpoint is kept in {root}")


def _why_unneeded(entry: cache.Entry) -> str | None:
    """Why a rewritten checkpoint is of no use any more; None where it is."""
    unused = time.time() - entry.last_used
    if unused > _UNUSED_S:
        return f"not used for {duration(unused)}"
    # A disk that is not mounted for a moment must not cost an hour of copying.
    if unused > _DAY_S and entry.sources and not any(source.is_dir() for source in entry.sources):
        return f"{entry.sources[0]} is not there any more"
    return None


def _remove_all(found: Iterable[Leftover]) -> Iterator[str]:
    """Remove each; tell those that cannot be."""
    for one in found:
        try:
            one.remove()
        except OSError as error:
            yield f"{one.path}: {error.strerror}"


def _few(lines: list[str], shown: int = 5) -> list[str]:
    return lines[:shown] + ([f"and {len(lines) - shown} more"] if len(lines) > shown else [])
