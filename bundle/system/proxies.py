"""The proxies that the environment names. Their passwords are never shown."""

import ipaddress
import os
import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from bundle.errors import UsageError
from bundle.system.text import one_line

_USER = re.compile(r"(?<=//)[^/\s@]*@")


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
