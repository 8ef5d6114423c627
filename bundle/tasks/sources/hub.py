"""A benchmark from the Hugging Face hub, or from the mirror that HF_ENDPOINT names.

The commit and its files are asked for once; then the wanted files, and no others, are fetched into the hub's usual
cache (HF_HOME), which is also that of the `datasets` package, several at a time. What is cached is not fetched again.
`datasets` reads the files; asking it to fetch them as well would take five times as long, subject by subject, and would
retry for minutes where there is no hub. A data set's loading script is never run.

Where the hub cannot be reached, or offline mode is on, a cached copy is used if it is whole, and the origin says so.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from bundle.errors import DataError
from bundle.tasks.benchmarks import Benchmark
from bundle.tasks.sources.bounded import each_bounded
from bundle.tasks.sources.csv_files import read_tables
from bundle.tasks.sources.parquet_files import find_shards, read_parquet
from bundle.tasks.sources.tables import Row
from bundle.tasks.sources.zip_files import read_archive

TRUE = ("1", "ON", "YES", "TRUE")
STALL_S = 60.0
WORKERS = 8

WAYS_OUT = (
    "Ways out: `--data modelscope` fetches the benchmark from ModelScope; `--data PATH` reads a directory or .zip of "
    "it; HF_ENDPOINT=URL asks a mirror of the hub; HF_HOME=DIR names a cache that already holds it. "
    "`--data sample` only tries the pipeline, on a few questions of our own."
)

Pair = tuple[str, str]
Rows = Mapping[Pair, list[Row]]


def load_from_hub(benchmark: Benchmark, wanted: Sequence[Pair], say: Callable[[str], None]) -> tuple[str, Rows]:
    """The wanted tables, and where they came from.

    Raises:
        DataError: The hub cannot be reached and the cache does not have them, or the data set does not hold them.
    """
    with _quiet():
        if _offline():
            why, remedy = "offline mode is on", f"HF_HUB_OFFLINE and HF_DATASETS_OFFLINE turn it on. {WAYS_OUT}"
        else:
            try:
                return _load_online(benchmark, wanted, say)
            except _NotReachedError as error:
                why, remedy = str(error), error.remedy
        cached = _load_cached(benchmark, wanted)
        if cached is None:
            raise DataError(
                f"{benchmark.hub} cannot be had from the hub: {why}, and the cache {hub_cache()} does not hold all the "
                "wanted files.",
                remedy=remedy,
            )
        say(f"Using the copy of {benchmark.hub} that was fetched before: {why}.")
        return cached


def look_at_hub(benchmark: Benchmark, limit_s: float) -> str:
    """Ask the hub for a benchmark's present commit, and nothing else. Returns what a person wants to know of it.

    Raises:
        DataError: The hub cannot be reached within ``limit_s`` seconds, refuses, or offline mode is on.
    """
    if _offline():
        raise DataError("Offline mode is on.", remedy=f"HF_HUB_OFFLINE and HF_DATASETS_OFFLINE turn it on. {WAYS_OUT}")
    try:
        with _quiet():
            commit, _ = _ask_for_files(benchmark, limit_s)
    except _NotReachedError as error:
        raise DataError(f"{benchmark.hub} cannot be had from the hub: {error}.", remedy=error.remedy) from None
    return f"{benchmark.hub} @ {commit[:8]} at {_host()}"


def cached_commit(benchmark: Benchmark, wanted: Sequence[Pair]) -> str | None:
    """The newest commit that the cache holds all the wanted files of; None where there is none."""
    cached = _cached_files(benchmark, wanted)
    return cached and cached[0]


class _NotReachedError(Exception):
    """The hub did not give what was asked for; its text says why, in one line."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def _load_online(benchmark: Benchmark, wanted: Sequence[Pair], say: Callable[[str], None]) -> tuple[str, Rows]:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    commit, names = _ask_for_files(benchmark, STALL_S)
    chosen = _choose(names, benchmark, wanted)
    if not chosen:
        shards = find_shards(names, wanted)
        subject, split = next(pair for pair in wanted if pair not in shards)
        raise DataError(
            f"{benchmark.hub} @ {commit} on the hub at {_host()} holds neither all of {subject}/{split}-*.parquet nor "
            f"{benchmark.archive}; there is {', '.join(sorted(names)[:8]) or 'nothing'}.",
            remedy=WAYS_OUT,
        )
    cached = {
        name: try_to_load_from_cache(benchmark.hub, name, revision=commit, repo_type="dataset") for name in chosen
    }
    files = {name: Path(path) for name, path in cached.items() if isinstance(path, str)}
    missing = [name for name in chosen if name not in files]
    if missing:
        say(f"Fetching {len(missing)} files of {benchmark.hub} from the hub at {_host()}.")
    with _reached():
        fetched = each_bounded(
            lambda name: hf_hub_download(benchmark.hub, name, repo_type="dataset", revision=commit),
            missing,
            workers=WORKERS,
            stall_s=STALL_S,
        )
        for count, (name, path) in enumerate(fetched, 1):
            files[name] = Path(path)
            if count % 25 == 0 and count < len(missing):
                say(f"Fetched {count} of {len(missing)} files.")
    return _read(files, benchmark, wanted, commit, "" if _host() == "huggingface.co" else f" at {_host()}")


def _ask_for_files(benchmark: Benchmark, limit_s: float) -> tuple[str, list[str]]:
    """The present commit and the names of its files."""
    from huggingface_hub import HfApi, constants

    api = HfApi()
    with _reached():
        ask = each_bounded(
            lambda repo: api.dataset_info(repo, timeout=min(limit_s, constants.HF_HUB_ETAG_TIMEOUT)),
            [benchmark.hub],
            workers=1,
            stall_s=limit_s,
        )
        info = next(ask)[1]
        return str(info.sha), [sibling.rfilename for sibling in info.siblings or ()]


def _load_cached(benchmark: Benchmark, wanted: Sequence[Pair]) -> tuple[str, Rows] | None:
    """From the newest commit in the cache that has all the wanted files; None where there is none."""
    cached = _cached_files(benchmark, wanted)
    return cached and _read(cached[1], benchmark, wanted, cached[0], " (cached copy)")


def _cached_files(benchmark: Benchmark, wanted: Sequence[Pair]) -> tuple[str, dict[str, Path]] | None:
    snapshots = hub_cache() / f"datasets--{benchmark.hub.replace('/', '--')}" / "snapshots"
    if not snapshots.is_dir():
        return None
    for folder in sorted(snapshots.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True):
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        if _choose(files, benchmark, wanted):
            return folder.name, files
    return None


def _choose(names: Sequence[str] | Mapping[str, Path], benchmark: Benchmark, wanted: Sequence[Pair]) -> list[str]:
    """The files to fetch: Parquet where every wanted table has it, else the archive; never a mixture."""
    shards = find_shards(names, wanted)
    if all(pair in shards for pair in wanted):
        return [name for pair in dict.fromkeys(wanted) for name in shards[pair]]
    return [benchmark.archive] if benchmark.archive in names else []


def _read(
    files: Mapping[str, Path], benchmark: Benchmark, wanted: Sequence[Pair], commit: str, note: str
) -> tuple[str, Rows]:
    origin = f"hub {benchmark.hub} @ {commit}"
    shards = find_shards(files, wanted)
    if all(pair in shards for pair in wanted):
        where = f"{origin}: "
        rows = {
            pair: read_parquet({name: files[name] for name in shards[pair]}, benchmark, pair[1], where)
            for pair in dict.fromkeys(wanted)
        }
        return origin + note, rows
    folder, contents = read_archive(files[benchmark.archive], benchmark.file_names(wanted))
    rows = read_tables(contents, benchmark, wanted, f"{origin}: {benchmark.archive}: {folder}")
    return f"{origin}, {benchmark.archive}{note}", rows


@contextlib.contextmanager
def _reached() -> Iterator[None]:
    """Turn whatever goes wrong between us and the hub into one error.

    Any exception is caught, because the HTTP client under `huggingface_hub`, and so its errors, differ between the
    versions we allow, and what a proxy's login page in place of an answer leads to is anyone's guess.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        yield
    except Exception as error:
        cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
        text = " ".join(str(cause).split()).replace(urlsplit(constants.ENDPOINT).netloc, _host())
        status = getattr(getattr(cause, "response", None), "status_code", None)
        login = "If the data set wants a login, run `hf auth login` or set HF_TOKEN. " if status in (401, 403) else ""
        raise _NotReachedError(
            f"{_host()} could not be used ({text[:300].rstrip('.') or type(cause).__name__})", login + WAYS_OUT
        ) from error


def _offline() -> bool:
    from huggingface_hub import constants

    # The `datasets` package's own switch, with the values it accepts.
    return bool(constants.HF_HUB_OFFLINE) or os.environ.get("HF_DATASETS_OFFLINE", "").upper() in TRUE


def _host() -> str:
    from huggingface_hub import constants

    return urlsplit(constants.ENDPOINT).netloc.rpartition("@")[2]  # without a password, should it hold one


def hub_cache() -> Path:
    """The directory that holds what was fetched from the hub."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep huggingface_hub's progress bars and warnings off the screen; what matters is said through `say`."""
    from huggingface_hub.utils.logging import get_verbosity, set_verbosity
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    level, hidden = get_verbosity(), are_progress_bars_disabled()
    set_verbosity(logging.ERROR)
    if not hidden:
        disable_progress_bars()
    try:
        yield
    finally:
        set_verbosity(level)
        if not hidden:
            enable_progress_bars()
