"""What the environment says of the network: proxies, whose passwords are never shown, and certificates.

And what shows that a server does not use TLS where its address says https, or does where it says http.
"""

import ipaddress
import os
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from bundle.errors import UsageError
from bundle.system.text import one_line

_USER = re.compile(r"(?<=//)[^/\s@]*@")
_NOT_TLS = re.compile(r"\[SSL: (WRONG_VERSION_NUMBER|UNKNOWN_PROTOCOL|PACKET_LENGTH_TOO_LONG|HTTP_REQUEST)\]")
"""What OpenSSL says of an answer that is not TLS."""
_TLS = re.compile(
    r"plain HTTP request was sent to HTTPS port|HTTP request to an HTTPS server|plain HTTP to an SSL-enabled"
    r"|combination of host and port requires TLS|b['\"]\\x15\\x03",
    re.IGNORECASE,
)
"""What nginx, Go (Caddy, Traefik), Apache and Tomcat say to plain HTTP; and how a TLS alert looks in the message of a
parser of HTTP."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that can be used, and the variable that names it. Its URL may hold a password; its address is shown."""

    url: str = field(repr=False)
    variable: str
    address: str


def proxy_for(url: str, *, only_http: bool = True) -> Proxy | None:
    """The proxy that the environment names for a server; None for none.

    Raises UsageError if it cannot be used, as a SOCKS proxy where ``only_http``. The message repeats nothing of what
    may be a password.
    """
    target = urlsplit(url)
    host = target.hostname or ""
    proxies = getproxies_environment()
    if _is_exempt(host, proxies.get("no", "")):
        return None
    scheme = next((one for one in (target.scheme, "all") if proxies.get(one)), None)
    if scheme is None:
        return None
    value, variable = proxies[scheme], f"{scheme}_proxy"
    variable = variable if variable in os.environ else variable.upper()
    remedy = f"Set {variable} to http://HOST:PORT, unset it, or skip it for this server: NO_PROXY={host}."
    parts = _split(value)
    if parts is None:
        raise UsageError(f"The proxy in {variable} is not a valid address.", remedy=remedy)
    if only_http and parts.scheme not in ("http", "https"):
        raise UsageError(
            f"The proxy in {variable} is a {one_line(parts.scheme, 20)} proxy; only HTTP proxies can be used.",
            remedy=remedy,
        )
    address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    return Proxy(parts.geturl(), variable, address)


def without_users(text: str) -> str:
    """``text`` without the user names and passwords of URLs in it."""
    return _USER.sub("", text)


def wrong_scheme(url: str, setting: str, said: str, proxy: Proxy | None) -> tuple[str, str] | None:
    """What is wrong with the scheme of a URL, and the remedy; None if nothing shows that it is.

    ``setting`` is what sets the URL, such as ``HF_ENDPOINT=``, and ``said`` what came of it: an error's text, or what
    the server said.
    """
    if _NOT_TLS.search(said):
        if proxy is not None and proxy.url.startswith("https:"):
            return (
                f"the proxy {proxy.address} (from {proxy.variable}) does not use TLS",
                f"Write http:// in place of https:// in {proxy.variable}.",
            )
        if url.startswith("https:"):
            return "the server does not use TLS", f"Use {setting}http{without_users(url)[5:]}."
    if url.startswith("http:") and _TLS.search(said):
        return "the server uses TLS", f"Use {setting}https{without_users(url)[4:]}."
    return None


def named_certificates() -> ssl.SSLContext | None:
    """The certificates that the environment names for checking servers; None for the usual ones.

    Raises UsageError if they cannot be read.
    """
    named = [name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)] or ["REQUESTS_CA_BUNDLE"]
    places = {name: Path(os.environ[name]) for name in named if os.environ.get(name)}
    if not places:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name, written in places.items():
        try:
            place = written.expanduser()
            if place.is_dir():
                context.load_verify_locations(capath=place)
            else:
                context.load_verify_locations(cafile=place)
        except (OSError, ValueError, RuntimeError) as error:
            why = "it holds no certificate" if isinstance(error, ssl.SSLError) else getattr(error, "strerror", error)
            raise UsageError(
                f"The certificates in {name}={one_line(str(written), 200)} cannot be read: {one_line(str(why))}.",
                remedy=f"Set {name} to a PEM file or a directory of certificates, or unset it.",
            ) from None
    return context


def _split(value: str) -> SplitResult | None:
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        usable = bool(parts.hostname) and not parts.fragment and (parts.port is None or parts.port > 0)
        usable &= ":" not in unquote(parts.username or "")  # no login can hold one (RFC 7617)
    except ValueError:
        return None
    return parts if usable else None


def _is_exempt(host: str, exempt: str) -> bool:
    """Whether ``no_proxy`` names a host, by its name, its domain or its network."""
    if proxy_bypass(host):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in _networks(exempt))


def _networks(exempt: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    networks = []
    for one in exempt.split(","):
        try:
            networks.append(ipaddress.ip_network(one.strip(), strict=False))
        except ValueError:
            continue
    return networks
