"""Where a server is: base URLs as people write them, and the models that a server lists."""

import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from bundle.client.connection import Connection
from bundle.client.faults import AttemptError
from bundle.client.keys import KeyRing
from bundle.errors import ServerError, UsageError
from bundle.system.text import is_unicode, one_line

_EXAMPLE = "Give it as in --base-url https://api.example.com/v1."
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_VERSION = re.compile(r"v\d+(\.\d+)*((alpha|beta)\d*)?", re.IGNORECASE)
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?", re.IGNORECASE)
_CHAT = "/chat/completions"
_SHOWN = 20
_LISTED_TIMEOUT_S = 30.0


def normalise_base_url(url: str) -> str:
    """The base URL, without a slash at its end, that is meant by ``url``.

    - ``/chat/completions`` at its end is taken off, and what is left is taken as it is.
    - Otherwise ``/v1`` is appended, unless the path names a version: ``/v1``, ``/api/paas/v4``, ``/v1beta/openai``.
    - Without a scheme it is http on this machine; any other host needs one.

    Raises:
        UsageError: It cannot be used. Nothing in it that may be secret is repeated.
    """
    url = url.strip()
    if not url:
        raise UsageError("The base URL is empty.", remedy=_EXAMPLE)
    # Looked for in the text and not in the parsed URL, for a URL that cannot be parsed may hold a password, too.
    if "@" in url:
        raise UsageError(
            "The base URL holds a user name or password, which would be written into the run's record.",
            remedy="Leave it out; a key is read from the environment variable that --api-key-env names.",
        )
    if "?" in url or "#" in url:
        raise UsageError(
            "The base URL has a query or a fragment (what follows ? or #), which would not be sent.",
            remedy=f"Leave it out; a key is read from the environment variable that --api-key-env names. {_EXAMPLE}",
        )
    if re.search(r"[\s\x00-\x1f\x7f\\]", url) or not is_unicode(url):
        raise UsageError(f"The base URL {one_line(url)!r} holds a space or another stray character.", remedy=_EXAMPLE)
    parts = _split(_with_scheme(url))
    path = parts.path.rstrip("/")
    if path.endswith(_CHAT):
        path = path.removesuffix(_CHAT).rstrip("/")
    elif not any(_VERSION.fullmatch(segment) for segment in path.split("/")):
        path += "/v1"
    return f"{parts.scheme}://{_host(parts)}{path}"


def is_loopback(url: str) -> bool:
    """Whether the server is on this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # 0.0.0.0 is what servers print that listen everywhere; as a destination it is this machine.
    return address.is_loopback or address.is_unspecified


def insecure(url: str) -> bool:
    """Whether what is sent there, keys included, crosses a network unencrypted."""
    return urlsplit(url).scheme == "http" and not is_loopback(url)


async def served_models(
    base_url: str, key: str | None, *, proxies: bool, timeout_s: float = _LISTED_TIMEOUT_S
) -> list[str]:
    """The names of the models that the server lists, in its order.

    Args:
        base_url: As `normalise_base_url` gives it.
        key: Sent as a bearer token; None for a server without keys.
        proxies: Whether the proxies of the environment are used.
        timeout_s: Most seconds to wait.

    Raises:
        ServerError: It lists none, or cannot be asked.
    """
    connection = Connection(base_url, timeout_s=timeout_s, proxies=proxies)
    try:
        body = await connection.get("/models", key)
    except AttemptError as fault:
        reason = KeyRing([] if key is None else [key]).hide(fault.reason)
        raise ServerError(
            f"{base_url} does not say which models it serves: {reason}.",
            remedy=f"{fault.remedy} Where the server has no list of models, name the model on the command line.",
        ) from None
    finally:
        await connection.close()
    rows = body.get("data") if isinstance(body, Mapping) else body
    names = [row.get("id") for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
    models = list(dict.fromkeys(name for name in names if isinstance(name, str) and name))
    if not models:
        raise ServerError(
            f"{base_url} lists no model.", remedy="Check the base URL, or name the model on the command line."
        )
    return models


async def only_model(base_url: str, key: str | None, *, proxies: bool, timeout_s: float = _LISTED_TIMEOUT_S) -> str:
    """The model of a server that serves a single one; see `served_models`.

    Raises:
        UsageError: It serves several; they are listed.
        ServerError: It lists none, or cannot be asked.
    """
    models = await served_models(base_url, key, proxies=proxies, timeout_s=timeout_s)
    if len(models) > 1:
        shown = ", ".join(one_line(name, 100) for name in models[:_SHOWN])
        more = f" and {len(models) - _SHOWN} more" if len(models) > _SHOWN else ""
        raise UsageError(
            f"{base_url} serves {len(models)} models: {shown}{more}.", remedy="Name one of them on the command line."
        )
    return models[0]


def _with_scheme(url: str) -> str:
    if scheme := _SCHEME.match(url):
        if scheme[1].lower() not in ("http", "https"):
            raise UsageError(f"The base URL {one_line(url)} is neither http nor https.", remedy=_EXAMPLE)
        return url
    guess = f"http://{url}"
    if ":/" in url or not is_loopback(_split(guess).geturl()):
        raise UsageError(
            f"The base URL {one_line(url)} does not begin with http:// or https://.",
            remedy="Write https:// before it, or http:// where the server has no encryption.",
        )
    return guess


def _split(url: str) -> SplitResult:
    """The parts of an http or https URL.

    Raises:
        UsageError: It has no host, or its host or port is none.
    """
    try:
        parts = urlsplit(url)
        _host(parts)
    except ValueError as error:
        raise UsageError(f"The base URL {one_line(url)} cannot be used: {error}.", remedy=_EXAMPLE) from None
    return parts


def _host(parts: SplitResult) -> str:
    """Host and port as a request names them: in ASCII, an IPv6 address in brackets.

    Raises:
        ValueError: They are none.
    """
    host, port = parts.hostname or "", parts.port
    if ":" in host:
        host = f"[{ipaddress.IPv6Address(host)}]"
    else:
        host = host.encode("idna").decode()
        if not _HOST.fullmatch(host):
            raise ValueError(f"{host or 'nothing'!r} is no host")
    if port == 0:
        raise ValueError("0 is no port")
    return host if port is None else f"{host}:{port}"
