"""Certificates that the environment names; and https where the server does not use TLS, or http where it does."""

import os
import re
import ssl
from pathlib import Path

from bundle.errors import UsageError
from bundle.system.proxies import Proxy, without_users
from bundle.system.text import one_line

_NOT_TLS = re.compile(r"\[SSL: (WRONG_VERSION_NUMBER|UNKNOWN_PROTOCOL|PACKET_LENGTH_TOO_LONG|HTTP_REQUEST)\]")
"""What OpenSSL says of an answer that is not TLS."""
_TLS = re.compile(
    r"plain HTTP request was sent to HTTPS port|HTTP request to an HTTPS server|plain HTTP to an SSL-enabled"
    r"|combination of host and port requires TLS|b['\"]\\x15\\x03",
    re.IGNORECASE,
)
"""What nginx, Go (Caddy, Traefik), Apache and Tomcat say to plain HTTP; and how a TLS alert looks in the message of a
parser of HTTP."""


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
