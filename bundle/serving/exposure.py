"""Who can reach a server: this machine alone, or others as well."""

import ipaddress

from bundle.errors import UsageError


def require_loopback(host: str, why: str) -> None:
    """Refuse an address that other machines can reach.

    Args:
        host: Where the server is to listen.
        why: What keeps nobody out of it, as a whole sentence.

    Raises:
        UsageError: It is no loopback address.
    """
    if not _is_loopback(host):
        raise UsageError(
            f"The server cannot listen on {host}, where other machines can reach it. {why}",
            remedy="Leave --host out, and reach it from elsewhere through `ssh -L`.",
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name can stand for any address
