"""https where the server does not use TLS, and http where it does: what to write instead."""

import re

from bundle.system.proxies import Proxy, without_users

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

    Args:
        url: What was asked for.
        setting: What sets it, such as ``HF_ENDPOINT=``.
        said: What came of it: an error's text, or what the server said.
        proxy: The proxy between.
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
