"""What a run takes of the system: space on disks, loopback and proxies, open files."""

import os
import resource
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bundle.serving.conversion import cache_directory
from bundle.system.files import sync, user_path
from bundle.system.findings import Finding, failing, ok, warning
from bundle.system.text import size
from bundle.tasks.sources.hub import hub_cache

_MB: Final = 10**6
# All questions of C-Eval's three splits with their replies and the server's log are some tens of megabytes.
_RUN_NEEDS: Final = 100 * _MB
_RUN_COMFORTABLE: Final = 1000 * _MB
_HUB_NEEDS: Final = 50 * _MB


def check_output(out: Path) -> Iterator[Finding]:
    """The directory that run directories are made in; it need not exist yet."""
    yield _place("run directories", out, _RUN_NEEDS, "--out DIR chooses another.", fatal=True, much=_RUN_COMFORTABLE)


def check_caches() -> Iterator[Finding]:
    """The places for data sets from the Hub, for converted checkpoints, and for temporary files."""
    hub = "HF_HOME=DIR or HF_HUB_CACHE=DIR chooses another."
    yield _place("the Hub's cache", hub_cache(), _HUB_NEEDS, hub, fatal=False)
    converted = "BUNDLE_CACHE=DIR chooses another. Only the CPU engine needs it, for InternLM2.5."
    yield _place("converted checkpoints", cache_directory(), 0, converted, fatal=False)
    try:
        temporary = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        yield failing(f"no directory for temporary files: {error.strerror or error}", "Set one with TMPDIR=DIR.")
    else:
        yield _place("temporary files", temporary, _HUB_NEEDS, "TMPDIR=DIR chooses another.", fatal=True)


def _place(what: str, path: Path, needed: int, remedy: str, *, fatal: bool, much: int = 0) -> Finding:
    """Whether a directory exists or can be made, can be written, and has space."""
    bad = failing if fatal else warning
    try:
        whole = user_path(path).absolute()
        existing = next(one for one in (whole, *whole.parents) if one.exists())
        if not existing.is_dir():
            return bad(f"{what}: {existing} is a file", remedy)
        with tempfile.TemporaryFile(dir=existing, prefix=".bundle-doctor-") as file:  # has no name, so nothing stays
            file.write(bytes(4096))
            file.flush()
            sync(file.fileno())
        free = shutil.disk_usage(existing).free
        status = os.statvfs(existing)
    except OSError as error:
        return bad(f"{what}: {path} cannot be written: {error.strerror or error}", remedy)
    if status.f_files and not status.f_favail:
        return bad(f"{what}: the disk of {path} has no room for more files (inodes)", remedy)
    text = f"{what}: {size(free)} free for {path}"
    if free < needed:
        return bad(f"{text}, but {size(needed)} are needed", f"Free some space. {remedy}")
    if free < much:
        return warning(text, f"Free some space. {remedy}")
    return ok(text)


_LOOPBACK_S: Final = 2.0
_PROXY_S: Final = 1.0
# lmdeploy is asked with 256 connections at once; each is a descriptor here, and one in the server.
_FEW_DESCRIPTORS: Final = 1024
_PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080, "socks4": 1080}


def check_loopback() -> Iterator[Finding]:
    """Whether a server can listen on a free port of 127.0.0.1 and be reached there."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(_LOOPBACK_S)
            with socket.create_connection(server.getsockname(), timeout=_LOOPBACK_S) as client:
                accepted, _ = server.accept()
                with accepted:
                    accepted.sendall(b"x")
                    client.settimeout(_LOOPBACK_S)
                    client.recv(1)
    except OSError as error:
        yield failing(
            f"a server on 127.0.0.1 cannot be reached: {error.strerror or error}",
            "`ip link set lo up`, or see what a firewall or sandbox forbids.",
        )
    else:
        yield ok("a server on a free port of 127.0.0.1 can be reached")


def check_proxies() -> Iterator[Finding]:
    """Proxies in the environment. Servers on this machine are never asked through one; hubs and remote APIs are."""
    shown = []
    for name in _PROXIES:
        value = os.environ.get(name) or os.environ.get(name.upper())
        if not value:
            continue
        trouble = _trouble(name, value)
        if trouble is not None:
            yield trouble
        else:
            shown.append(f"{name} is {_address(value)}")
    if shown:
        yield ok(f"{', '.join(shown)}; servers on this machine are asked directly")


def check_descriptors() -> Iterator[Finding]:
    """How many files and connections a process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited or soft >= _FEW_DESCRIPTORS:
        number = "unlimited" if soft == unlimited else str(soft)
        yield ok(f"open-file limit: {number}")
        return
    wanted = 4 * _FEW_DESCRIPTORS
    if hard == unlimited or hard >= wanted:
        remedy = f"Run `ulimit -n {wanted}` in this shell first."
    else:
        remedy = f"Have the hard limit ({hard}) raised, or use --concurrency {max(1, soft // 8)}."
    yield warning(f"the open-file limit is {soft}, and each concurrent request needs one", remedy)


def _address(url: str) -> str:
    """Host and port of a proxy, without the user name and password it may contain. Raises ValueError if it has none."""
    parts = urlsplit(url)
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    if not parts.hostname or port is None:
        raise ValueError("no host or no port")
    return f"{parts.scheme}://{parts.hostname}:{port}"


def _trouble(name: str, value: str) -> Finding | None:
    """What is wrong with a proxy, as far as that shows without using it."""
    without = f"`unset {name} {name.upper()}`"
    if "://" not in value:
        return warning(
            f"{name} has no scheme, and not every client accepts that", f"Write http:// before it, or {without}."
        )
    try:
        address = urlsplit(_address(value))
    except ValueError:  # its text repeats part of the address, which may hold a password
        return warning(f"{name} is not a valid proxy address", f"Fix it, or {without}.")
    if address.scheme.startswith("socks"):
        return warning(
            f"{name} is a SOCKS proxy, and not every client supports those",
            f"Use an HTTP proxy (most programs that offer one have both), or {without}.",
        )
    if address.hostname in ("127.0.0.1", "localhost", "::1"):
        try:
            socket.create_connection((address.hostname, address.port), timeout=_PROXY_S).close()
        except OSError as error:
            return warning(
                f"{name} names a proxy on this machine, {address.netloc}, that is not running: "
                f"{error.strerror or error}",
                f"Start the proxy, or {without}.",
            )
    return None
