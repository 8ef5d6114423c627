"""A benchmark from ModelScope: its .zip over HTTPS, kept for the next time.

MODELSCOPE_ENDPOINT or MODELSCOPE_DOMAIN names another server, MODELSCOPE_CACHE another place to keep the file.
"""

import http.client
import os
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from bundle.errors import DataError
from bundle.system.background import bounded
from bundle.system.files import cache_path
from bundle.system.network import proxy_for, without_users, wrong_scheme
from bundle.tasks.benchmarks import Benchmark
from bundle.tasks.sources.tables import Pair, Rows
from bundle.tasks.sources.zip_files import is_sound, read_archive
from bundle.version import __version__

MAX_DOWNLOAD_BYTES = 64 * 2**20
READ_TIMEOUT_S = 20.0
DOWNLOAD_LIMIT_S = 300.0
RETRY_AFTER_S = (1.0, 3.0)
_ENOUGH = 4000
"""Bytes of a server's text in which it says what is wrong."""

OPTIONS = (
    "Options: `--data hub` downloads the benchmark from the Hugging Face Hub; `--data PATH` reads a directory or .zip; "
    "MODELSCOPE_ENDPOINT=URL uses another server. "
    "`--data sample` only tries the pipeline, on a few questions of our own."
)


def load_from_modelscope(benchmark: Benchmark, wanted: Sequence[Pair], say: Callable[[str], None]) -> tuple[str, Rows]:
    """The wanted tables, and where they came from.

    Raises DataError if ModelScope cannot be reached, sends something else, or the .zip does not have them; UsageError
    if the proxy that the environment names cannot be used.
    """
    origin = f"modelscope {benchmark.modelscope}, {benchmark.archive}"
    path, url = _path_and_url(benchmark)
    if os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises for some names
        origin += " (cached)"
    else:
        if "@" in url:
            raise DataError(
                "MODELSCOPE_ENDPOINT contains a user name or password, which would be shown and recorded.",
                remedy="Remove it: the benchmark is public there.",
            )
        proxy_for(url, only_http=False)
        say(f"Downloading {url}.")
        try:
            bounded(lambda _: download(url, path), stall_s=DOWNLOAD_LIMIT_S)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, OSError) and not isinstance(error, urllib.error.URLError) and error.filename:
                raise DataError(
                    f"{path.parent} cannot be written: {error.strerror}.",
                    remedy="Set MODELSCOPE_CACHE to a directory that can be written.",
                ) from error
            said = f"{url} could not be downloaded: {_reason(error)}."
            raise (_wrong_endpoint(url, error) or DataError(said, remedy=OPTIONS)) from error
    try:
        return origin, read_archive(path, benchmark, wanted, benchmark.archive)[1]
    except DataError as error:
        raise DataError(error.message, remedy=f"Remove {path} to download it again. {OPTIONS}") from error


def look_at_modelscope(benchmark: Benchmark, limit_s: float) -> str:
    """Ask whether a benchmark's .zip can be downloaded. Returns one line about it for people.

    Raises DataError if it cannot, or no answer comes within ``limit_s`` seconds.
    """
    path, url = _path_and_url(benchmark)
    if os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises for some names
        return f"{path}, downloaded from ModelScope earlier"
    shown = without_users(url)
    remedy = "MODELSCOPE_ENDPOINT=URL chooses another server; `--data hub` or `--data PATH` does not need it."
    if not url.startswith(("http://", "https://")):
        raise DataError(f"{shown} is not a valid address.", remedy=remedy)
    proxy_for(url, only_http=False)
    try:
        urllib.request.urlopen(_request(url, "HEAD"), timeout=limit_s).close()  # noqa: S310 - see the check above
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            said = f"{shown} cannot be downloaded: HTTP {error.code} {error.reason}."
        else:
            said = f"{shown} cannot be reached: {_reason(error)}."
        raise (_wrong_endpoint(url, error) or DataError(said, remedy=remedy)) from None
    return f"{benchmark.modelscope} at {url.split('/')[2].rpartition('@')[2]}"


def _path_and_url(benchmark: Benchmark) -> tuple[Path, str]:
    """Where a benchmark's .zip is kept, and where it is downloaded from."""
    name = benchmark.archive
    return cache() / benchmark.modelscope / name, f"{endpoint()}/datasets/{benchmark.modelscope}/resolve/master/{name}"


def endpoint() -> str:
    """The server, with its scheme and without a slash at the end."""
    server = os.environ.get("MODELSCOPE_ENDPOINT") or os.environ.get("MODELSCOPE_DOMAIN") or "www.modelscope.cn"
    return (server if "://" in server else f"https://{server}").rstrip("/")


def _request(url: str, method: str) -> urllib.request.Request:
    return urllib.request.Request(url, method=method, headers={"User-Agent": f"bundle/{__version__}"})  # noqa: S310


def _wrong_endpoint(url: str, error: Exception) -> DataError | None:
    """The error for an address with http for https, or the other way round; None if ``error`` does not say so."""
    body = error.read(_ENOUGH) if isinstance(error, urllib.error.HTTPError) else ""
    if wrong := wrong_scheme(endpoint(), "MODELSCOPE_ENDPOINT=", f"{error} {body!r}", proxy_for(url, only_http=False)):
        return DataError(f"{without_users(url)} cannot be used: {wrong[0]}.", remedy=f"{wrong[1]} {OPTIONS}")
    return None


def cache() -> Path:
    named = os.environ.get("MODELSCOPE_CACHE")
    if named:
        return cache_path(named, "MODELSCOPE_CACHE") / "bundle"
    return cache_path("~/.cache", "MODELSCOPE_CACHE") / "bundle" / "modelscope"


def download(url: str, path: Path) -> None:
    """Download a .zip, with retries where they may help; at ``path`` there is then the whole file or nothing.

    Raises OSError if it could not be downloaded or written; DataError if what came is too large or no sound .zip.
    """
    for pause in (*RETRY_AFTER_S, None):
        try:
            _download_once(url, path)
        except (OSError, http.client.HTTPException) as error:
            if pause is None or not _may_pass(error):
                raise
            time.sleep(pause)
        else:
            return


def _download_once(url: str, path: Path) -> None:
    if not url.startswith(("http://", "https://")):
        raise ValueError("not an HTTP address")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    part = Path(name)
    try:
        with (
            open(handle, "wb") as file,  # noqa: PTH123 - a descriptor, not a path
            urllib.request.urlopen(_request(url, "GET"), timeout=READ_TIMEOUT_S) as response,  # noqa: S310 - checked above
        ):
            _copy(response, file)
        if not is_sound(part):
            raise DataError(f"{url} did not send a valid .zip.", remedy=OPTIONS)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _copy(response: http.client.HTTPResponse, file: BinaryIO) -> None:
    size = 0
    while chunk := response.read1(2**16):  # unlike read, it does not wait for the whole amount
        size += len(chunk)
        if size > MAX_DOWNLOAD_BYTES:
            raise DataError(f"{response.url} is larger than {MAX_DOWNLOAD_BYTES:,} bytes.", remedy=OPTIONS)
        file.write(chunk)
    length = response.headers.get("Content-Length")
    if length is not None and size != int(length):
        raise ConnectionError(f"the connection ended after {size:,} of {int(length):,} bytes")


def _may_pass(error: Exception) -> bool:
    """Whether another try may do better: not where the server has said no or cannot be found."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code >= 500 or error.code == 429
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    not_there = ConnectionRefusedError | socket.gaierror
    return not isinstance(cause, not_there | PermissionError | FileNotFoundError | NotADirectoryError)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return without_users(str(error.reason))
    return without_users(str(error)) or type(error).__name__
