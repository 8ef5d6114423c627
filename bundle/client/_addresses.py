"""Where a server is: base URLs as people write them."""

import ipaddress
import re
from urllib.parse import SplitResult, urljoin, urlsplit

from bundle.errors import UsageError
from bundle.system.text import one_line, printable

_EXAMPLE = "For example: --base-url https://api.example.com/v1."
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_VERSION = re.compile(r"v\d+(\.\d+)*((alpha|beta)\d*)?", re.IGNORECASE)
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?", re.IGNORECASE)
_NUMERIC = re.compile(r"[\d.]+")
_ENDPOINTS = ("/chat/completions", "/completions", "/models")
_ENDPOINT = re.compile(r"(/chat)?/completions$")
_USER_MARK = re.compile(r"@|%40|\uff20|\ufe6b", re.IGNORECASE)
_STRAY = re.compile(r"[\s\\\"`“”]")
_DEPLOYMENT = re.compile(r"/openai/deployments/[^/]+$")
_AZURE_QUERY = re.compile(r"api-version=[\w.-]{1,40}")


def normalise_base_url(url: str) -> str:
    """The base URL that ``url`` means, without a trailing slash.

    - A trailing ``/chat/completions`` or ``/completions`` is removed, and the rest is used unchanged.
    - Otherwise ``/v1`` is appended, unless the path names a version (``/v1``, ``/api/paas/v4``, ``/v1beta/openai``) or
      one of Azure's deployments.
    - Without a scheme it is http on this machine; any other host needs one.
    - The query ``api-version=…``, which Azure demands, is kept; see `join`.

    Raises UsageError if it is not a valid base URL. The message repeats nothing that could be a secret.
    """
    url = url.strip()
    if not url:
        raise UsageError("The base URL is empty.", remedy=_EXAMPLE)
    # Searched in the text rather than in the parsed URL: a URL that cannot be parsed may hold a password, too.
    if _USER_MARK.search(url):
        raise UsageError(
            "The base URL contains a user name or password, which would be written to run.json.",
            remedy="Leave it out; a key is read from the environment variable that --api-key-env names.",
        )
    url, mark, query = url.partition("?")
    if (mark and not _AZURE_QUERY.fullmatch(query)) or "#" in url:
        raise UsageError(
            "The base URL has a query or a fragment (the part after ? or #), which would not be sent.",
            remedy=f"Leave it out; a key is read from the environment variable that --api-key-env names. {_EXAMPLE}",
        )
    if _STRAY.search(url) or printable(url) != url:
        raise UsageError(f"The base URL {one_line(url)} contains a space or another stray character.", remedy=_EXAMPLE)
    parts = _split(_with_scheme(url))
    path = parts.path.rstrip("/")
    if _ENDPOINT.search(path):
        path = _ENDPOINT.sub("", path).rstrip("/")
    elif not any(_VERSION.fullmatch(segment) for segment in path.split("/")) and not _DEPLOYMENT.search(path):
        path += "/v1"
    return f"{parts.scheme}://{_host(parts)}{path}{mark}{query}"


def join(base_url: str, path: str) -> str:
    """A path below a base URL, whose query stays at the end."""
    address, mark, query = base_url.partition("?")
    return f"{address}{path}{mark}{query}"


def redirected(asked: str, location: str) -> tuple[str, str | None]:
    """Where a redirect leads, and the base URL with which the same is asked there.

    ``asked`` is the address that was asked; ``location``, which may be relative, that in the response. The base URL is
    None if the same is not to be found there, as on a login page, or no other base URL leads there.
    """
    try:
        target = urljoin(asked, location)
        address, _, query = target.partition("?")
        endpoint = next(one for one in _ENDPOINTS if urlsplit(asked).path.endswith(one))
        base = address.rstrip("/").removesuffix(endpoint)
        if base == address.rstrip("/") or base == asked.partition("?")[0].removesuffix(endpoint):
            return target, None
        kept = f"?{query}" if _AZURE_QUERY.fullmatch(query) else ""
        return target, normalise_base_url(f"{base}/chat/completions{kept}")
    except (ValueError, UsageError, StopIteration):
        return location, None


def mistyped(asked: str) -> str | None:
    """The base URL that was meant where the address that was asked has "//v1", "/V1" or "/v1/v1"; None for others."""
    address, mark, query = asked.partition("?")
    scheme, _, rest = address.partition("://")
    rest = re.sub("/{2,}", "/", rest)
    rest = re.sub(r"/V(?=\d)", "/v", rest)
    meant = re.sub(r"(/v\d+)\1(?=/)", r"\1", rest)
    endpoint = next((one for one in _ENDPOINTS if meant.endswith(one)), None)
    if endpoint is None or f"{scheme}://{meant}" == address:
        return None
    return f"{scheme}://{meant.removesuffix(endpoint)}{mark}{query}"


def is_loopback(url: str) -> bool:
    """Whether the server is on this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # Servers that listen on all interfaces print 0.0.0.0; as a destination it is this machine.
    return address.is_loopback or address.is_unspecified


def insecure(url: str) -> bool:
    """Whether requests to this URL, keys included, cross a network unencrypted."""
    return urlsplit(url).scheme == "http" and not is_loopback(url)


def _with_scheme(url: str) -> str:
    if scheme := _SCHEME.match(url):
        if scheme[1].lower() not in ("http", "https"):
            raise UsageError(f"The base URL {one_line(url)} is neither http nor https.", remedy=_EXAMPLE)
        return url
    guess = f"http://{url}"
    if ":/" in url or not is_loopback(_split(guess).geturl()):
        raise UsageError(
            f"The base URL {one_line(url)} does not start with http:// or https://.",
            remedy="Put https:// before it, or http:// if the server does not use TLS.",
        )
    return guess


def _split(url: str) -> SplitResult:
    """The parts of an http or https URL. Raises UsageError if its host or port is missing or invalid."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise UsageError("The base URL is not valid.", remedy=_EXAMPLE) from None
    _host(parts)
    return parts


def _host(parts: SplitResult) -> str:
    """Host and port as in a request: in ASCII, an IPv6 address in brackets, its zone as name look-ups take it.

    Raises UsageError if they are not valid.
    """
    named = parts.hostname or ""
    try:
        if ":" in named:
            host = f"[{ipaddress.IPv6Address(named.replace('%25', '%'))}]"
        else:
            host = named.encode("idna").decode()
        if _NUMERIC.fullmatch(host):
            ipaddress.IPv4Address(host)  # 127.1 and 0177.0.0.1 are taken in different ways, or not at all
    except ValueError:
        host = ""
    if not host or (":" not in host and not _HOST.fullmatch(host)):
        why = f"{one_line(named, 80)!r} is not a valid host"
        raise UsageError(f"The base URL is not valid: {why}.", remedy=_EXAMPLE)
    try:
        port = parts.port
    except ValueError:  # its text repeats what may be a password
        port = 0
    if port == 0:
        raise UsageError(
            "The base URL is not valid: what follows the host's colon is not a valid port.", remedy=_EXAMPLE
        )
    return host if port is None else f"{host}:{port}"
