"""A benchmark from the Hugging Face Hub, or from the mirror that HF_ENDPOINT names.

The commit and its files are looked up once; then the files that are needed, and no others, are downloaded into the
Hub's usual cache (HF_HOME). What is cached is not downloaded again, and a dataset's loading script is never run.

If the Hub cannot be reached, or offline mode is on, a complete cached copy is used, and the origin says so.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bundle.errors import DataError, UsageError
from bundle.system.background import bounded
from bundle.system.files import cache_path
from bundle.system.network import named_certificates, proxy_for, without_users, wrong_scheme
from bundle.system.text import one_line, printable, quoted
from bundle.tasks.benchmarks import Benchmark
from bundle.tasks.sources.parquet_files import find_shards, read_shards
from bundle.tasks.sources.tables import Pair, Rows
from bundle.tasks.sources.zip_files import read_archive

# huggingface_hub is imported inside functions: it takes 0.7 s, and other sources do without.

STALL_S = 60.0
WORKERS = 8

OPTIONS = (
    "Options: `--data modelscope` downloads the benchmark from ModelScope; `--data PATH` reads a directory or .zip; "
    "HF_ENDPOINT=URL uses a mirror of the Hub; HF_HOME=DIR uses a cache that already has it. "
    "`--data sample` uses the few questions in the package, to try the pipeline."
)
_LONGEST_URL = 2000
_TRUE = ("1", "ON", "YES", "TRUE")


def load_from_hub(benchmark: Benchmark, wanted: Sequence[Pair], say: Callable[[str], None]) -> tuple[str, Rows]:
    """The wanted tables, and where they came from.

    Raises DataError if the Hub cannot be reached and the cache does not have them, or the dataset does not contain
    them.
    """
    require_endpoint()
    with _quiet():
        if _offline():
            why, remedy = "offline mode is on", f"HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set. {OPTIONS}"
        else:
            try:
                return _load_online(benchmark, wanted, say)
            except _NotReachedError as error:
                why, remedy = error.message, error.remedy or OPTIONS
        cached = _cached_files(benchmark, wanted)
        if cached is None:
            raise DataError(
                f"{benchmark.hub} could not be downloaded from the Hub: {why}, and the cache {hub_cache()} does not "
                "have all the files needed.",
                remedy=remedy,
            )
        say(f"Using the cached copy of {benchmark.hub}: {why}.")
        return _read(*cached, benchmark, wanted, note=" (cached copy)")


def look_at_hub(benchmark: Benchmark, limit_s: float) -> str:
    """Ask the Hub for a benchmark's current commit, and nothing else. Returns one line about it for people.

    Raises DataError if the Hub cannot be reached within ``limit_s`` seconds, refuses, or offline mode is on.
    """
    require_endpoint()
    if _offline():
        raise DataError("Offline mode is on.", remedy=f"HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set. {OPTIONS}")
    try:
        with _quiet():
            commit, _ = _look_up(benchmark, limit_s)
    except _NotReachedError as error:
        raise DataError(f"{benchmark.hub} is not available on the Hub: {error.message}.", remedy=error.remedy) from None
    return f"{benchmark.hub} @ {commit[:8]} at {_host()}"


def cached_commit(benchmark: Benchmark, wanted: Sequence[Pair]) -> str | None:
    """The newest commit that the cache has all the wanted files of; None if there is none."""
    cached = _cached_files(benchmark, wanted)
    return cached and cached[0]


def require_endpoint() -> None:
    """Check HF_ENDPOINT: some malformed addresses make the import of huggingface_hub fail.

    Raises DataError if it cannot be used.
    """
    endpoint = os.environ.get("HF_ENDPOINT")
    if endpoint is None:
        return
    if not endpoint.startswith(("http://", "https://")):
        shown = endpoint.rpartition("@")[2]  # without a password, should it hold one
        raise DataError(
            f"HF_ENDPOINT is {quoted(shown)}, which does not begin with https:// or http://.",
            remedy=f"Set HF_ENDPOINT=https://{one_line(shown.rpartition('://')[2]) or 'HOST'}, or unset it.",
        )
    try:
        parts = urlsplit(endpoint)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or printable(endpoint) != endpoint or " " in endpoint or len(endpoint) > _LONGEST_URL:
        # It is not repeated: it may hold a password anywhere.
        raise DataError("HF_ENDPOINT is not a valid address.", remedy="Set HF_ENDPOINT=https://HOST, or unset it.")


def hub_cache() -> Path:
    """The directory that holds what was downloaded from the Hub.

    Raises DataError if HF_ENDPOINT cannot be used; UsageError if the user has no home directory.
    """
    require_endpoint()
    from huggingface_hub import constants  # imported late: slow

    return cache_path(constants.HF_HUB_CACHE, "HF_HOME")


class _NotReachedError(DataError):
    """The Hub did not give what was asked for; the message says why, without a full stop."""


def _load_online(benchmark: Benchmark, wanted: Sequence[Pair], say: Callable[[str], None]) -> tuple[str, Rows]:
    from huggingface_hub import try_to_load_from_cache  # imported late: slow

    commit, names = _look_up(benchmark, STALL_S)
    chosen = _choose(names, benchmark, wanted)
    if not chosen:
        shards = find_shards(names, wanted)
        subject, split = next(pair for pair in wanted if pair not in shards)
        raise DataError(
            f"{benchmark.hub} @ {commit} on the Hub at {_host()} has neither all of {subject}/{split}-*.parquet nor "
            f"{benchmark.archive}; it contains {', '.join(sorted(names)[:8]) or 'nothing'}.",
            remedy=OPTIONS,
        )

    def cached() -> dict[str, Path]:
        places = ((name, try_to_load_from_cache(benchmark.hub, name, None, commit, "dataset")) for name in chosen)
        return {name: Path(place) for name, place in places if isinstance(place, str)}

    files = cached()
    missing = [name for name in chosen if name not in files]
    if missing:
        say(f"Downloading {len(missing)} files of {benchmark.hub} from the Hub at {_host()}.")
        _download(benchmark.hub, commit, missing, say)
        files = cached()
    note = "" if _host() == "huggingface.co" else f" at {_host()}"
    return _read(commit, files, benchmark, wanted, note)


def _look_up(benchmark: Benchmark, limit_s: float) -> tuple[str, list[str]]:
    from huggingface_hub import HfApi, constants  # imported late: slow

    try:
        proxy_for(constants.ENDPOINT, only_http=False)
    except UsageError as error:  # the HTTP client's own message would repeat a piece of its password
        raise _NotReachedError(error.message.rstrip("."), remedy=f"{error.remedy} {OPTIONS}") from None
    api = HfApi()
    timeout = min(limit_s, constants.HF_HUB_ETAG_TIMEOUT)
    with _reached():
        info = bounded(lambda _: api.dataset_info(benchmark.hub, timeout=timeout), stall_s=limit_s)
        return str(info.sha), [sibling.rfilename for sibling in info.siblings or ()]


def _download(repo: str, commit: str, names: Sequence[str], say: Callable[[str], None]) -> None:
    """Download files of a commit into the cache; given up when nothing arrives for a while."""
    from huggingface_hub import snapshot_download  # imported late: slow

    def download(report: Callable[[str], None]) -> None:
        snapshot_download(
            repo,
            repo_type="dataset",
            revision=commit,
            allow_patterns=list(names),
            max_workers=WORKERS,
            tqdm_class=_progress(len(names), report),
        )

    with _reached():
        bounded(download, stall_s=STALL_S, say=say)


def _progress(files: int, report: Callable[[str], None]) -> type[Any]:
    """A progress bar for `snapshot_download` that shows nothing, and reports every advance; "" if there is no news."""
    from huggingface_hub.utils.tqdm import tqdm  # imported late: slow

    class Progress(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            # The other bars count bytes; which class they are, and whether they exist, differs between versions.
            self._counts_files = options.get("unit") != "B"
            self._done = 0
            super().__init__(*args, **options | {"disable": True})  # type: ignore[no-untyped-call]

        def __iter__(self) -> Iterator[Any]:
            for item in self.iterable:
                yield item
                self.update()

        def update(self, n: float | None = 1) -> None:
            news = ""
            if self._counts_files:
                self._done += 1
                if self._done % 25 == 0 and self._done < files:
                    news = f"Downloaded {self._done} of {files} files."
            report(news)

    return Progress


def _cached_files(benchmark: Benchmark, wanted: Sequence[Pair]) -> tuple[str, dict[str, Path]] | None:
    """The newest commit in the cache that has all the wanted files, and its files; None if there is none."""
    snapshots = hub_cache() / f"datasets--{benchmark.hub.replace('/', '--')}" / "snapshots"
    try:
        folders = sorted(snapshots.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:  # there is none, or no place with such a name
        return None
    for folder in folders:
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        if _choose(files, benchmark, wanted):
            return folder.name, files
    return None


def _choose(names: Sequence[str] | Mapping[str, Path], benchmark: Benchmark, wanted: Sequence[Pair]) -> list[str]:
    """The files to download: Parquet if every wanted table has it, else the archive; never a mixture."""
    shards = find_shards(names, wanted)
    if all(pair in shards for pair in wanted):
        return [name for pair in dict.fromkeys(wanted) for name in shards[pair]]
    return [benchmark.archive] if benchmark.archive in names else []


def _read(
    commit: str, files: Mapping[str, Path], benchmark: Benchmark, wanted: Sequence[Pair], note: str
) -> tuple[str, Rows]:
    origin = f"hub {benchmark.hub} @ {commit}"
    shards = find_shards(files, wanted)
    if all(pair in shards for pair in wanted):
        return origin + note, read_shards(files, shards, benchmark, wanted, f"{origin}: ")
    _, rows = read_archive(files[benchmark.archive], benchmark, wanted, f"{origin}: {benchmark.archive}")
    return f"{origin}, {benchmark.archive}{note}", rows


@contextlib.contextmanager
def _reached() -> Iterator[None]:
    """Turn whatever goes wrong between us and the Hub into one error.

    Any exception is caught, because the HTTP client under `huggingface_hub`, and so its errors, differ between the
    versions we allow, and a proxy's login page in place of an answer can cause anything.
    """
    from huggingface_hub import constants  # imported late: slow
    from huggingface_hub.errors import LocalEntryNotFoundError  # imported late: slow

    try:
        yield
    except Exception as error:
        cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
        text = without_users(" ".join(str(cause).split()))
        if isinstance(cause, OSError) and not isinstance(cause, ConnectionError):
            try:
                named_certificates()  # the HTTP client does not say which file it cannot read
            except UsageError as unreadable:
                message = unreadable.message.rstrip(".")
                raise _NotReachedError(message, remedy=f"{unreadable.remedy} {OPTIONS}") from error
            if _is_of_the_cache(cause.filename):
                raise _NotReachedError(
                    f"{hub_cache()} cannot be written: {cause.strerror}",
                    remedy="Set HF_HOME to a directory that can be written.",
                ) from error
        response = getattr(cause, "response", None)
        said = f"{text} {getattr(response, 'text', '')}"
        proxy = proxy_for(constants.ENDPOINT, only_http=False)
        if wrong := wrong_scheme(constants.ENDPOINT, "HF_ENDPOINT=", said, proxy):
            raise _NotReachedError(f"{_host()} cannot be used: {wrong[0]}", remedy=f"{wrong[1]} {OPTIONS}") from error
        status = getattr(response, "status_code", None)
        login = "If the dataset requires a login, run `hf auth login` or set HF_TOKEN. " if status in (401, 403) else ""
        if unreached := _first_cause(cause):
            raise _NotReachedError(f"{_host()} cannot be reached: {unreached}", remedy=OPTIONS) from error
        reason = text[:300].rstrip(".") or type(cause).__name__
        raise _NotReachedError(f"{_host()} failed ({reason})", remedy=login + OPTIONS) from error


def _is_of_the_cache(filename: object) -> bool:
    """Whether an error that names this file says that the cache cannot be made or written."""
    from huggingface_hub import constants  # imported late: slow

    if not isinstance(filename, str):
        return False
    file, cache, home = (Path(path).absolute() for path in (filename, hub_cache(), constants.HF_HOME))
    # Beside the cache lies the login's token: one that is there and cannot be read is another matter.
    beside = file.is_relative_to(home) and not os.path.lexists(file)
    return file.is_relative_to(cache) or cache.is_relative_to(file) or beside


def _first_cause(error: BaseException) -> str | None:
    """What the system said, such as "Connection refused", where an HTTP client's errors come from that."""
    found, seen = None, error
    while (before := seen.__cause__ or seen.__context__) is not None:
        seen = before
        if isinstance(seen, OSError) and seen.errno is not None and seen.strerror and seen.filename is None:
            found = seen.strerror
    return found


def _offline() -> bool:
    from huggingface_hub import constants  # imported late: slow

    # The `datasets` package's own switch, with the values it accepts.
    return bool(constants.HF_HUB_OFFLINE) or os.environ.get("HF_DATASETS_OFFLINE", "").upper() in _TRUE


def _host() -> str:
    from huggingface_hub import constants  # imported late: slow

    return urlsplit(constants.ENDPOINT).netloc.rpartition("@")[2]  # without a password, should it hold one


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep huggingface_hub's warnings off the screen; what matters is reported through `say`."""
    from huggingface_hub.utils.logging import get_verbosity, set_verbosity  # imported late: slow

    level = get_verbosity()
    set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        set_verbosity(level)
