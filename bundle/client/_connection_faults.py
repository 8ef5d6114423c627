"""What it means that a connection was not established, broke off or took too long."""

import asyncio
import os
import socket
import ssl
import zlib

import aiohttp

from bundle.client._faults import AttemptError, Fate
from bundle.system.text import one_line

_BROKEN_OFF = (aiohttp.http_exceptions.TransferEncodingError, aiohttp.http_exceptions.ContentLengthError)
"""What aiohttp calls a body that ends too soon."""


def fault_of_connection(
    error: BaseException, timeout_s: float, remedy: str, *, tls: bool, silent: bool
) -> AttemptError:
    """The fault behind a connection that was not established, broke off or took too long.

    ``remedy`` is for a server that is not reached. ``tls`` is what the base URL asks for; ``silent`` means that there
    has been no response yet.
    """
    errors = chain(error)
    cause = errors[-1]
    if isinstance(cause, ssl.SSLCertVerificationError):
        return AttemptError(
            f"the server's certificate is not valid: {one_line(cause.verify_message or str(cause), 200)}",
            Fate.REFUSED,
            remedy="Check the base URL. If your network has its own certificate, set SSL_CERT_FILE to its file.",
        )
    if any(isinstance(one, aiohttp.ConnectionTimeoutError) for one in errors):
        reason = f"the server does not accept connections{', or begins no TLS' if tls else ''}"
        return AttemptError(reason, Fate.AGAIN, remedy=remedy, outage=True, heard=False)
    if isinstance(cause, TimeoutError | asyncio.CancelledError):
        return AttemptError(f"no reply within {timeout_s:g} s", Fate.AGAIN)
    if isinstance(cause, aiohttp.http_exceptions.ContentEncodingError | zlib.error):
        what = one_line(getattr(cause, "message", str(cause)).partition(". ")[0], 100)
        reason = f"the reply is compressed, which was not asked for, and cannot be read ({what})"
        return AttemptError(f"{reason}: turn that off at the server or at the gateway before it", Fate.AGAIN)
    if isinstance(cause, aiohttp.http_exceptions.HttpProcessingError) and not isinstance(cause, _BROKEN_OFF):
        return AttemptError(f"the server's response is not valid HTTP: {one_line(cause.message, 200)}", Fate.AGAIN)
    connected = not any(isinstance(one, aiohttp.ClientConnectorError) for one in errors)
    reason = f"connection failed: {described(cause)}"
    if isinstance(cause, ssl.SSLError):
        remedy = f"{remedy} If the server does not use TLS, write http:// in the base URL."
    elif not tls and silent and isinstance(cause, aiohttp.ServerDisconnectedError | ConnectionResetError):
        reason = f"{reason} (if it uses TLS, write https:// in the base URL)"  # most such servers close without a word
    return AttemptError(reason, Fate.AGAIN, remedy=remedy, outage=True, heard=connected)


def described(error: BaseException) -> str:
    """An error in a few words."""
    if isinstance(error, ssl.SSLError):  # its number is OpenSSL's and not the system's
        return f"TLS: {one_line(error.reason or str(error)).lower().replace('_', ' ')}"
    if isinstance(error, socket.gaierror):
        return f"its host name cannot be resolved ({one_line(str(error.strerror)).lower()})"
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return one_line(f"{type(error).__name__}: {error}".removesuffix(": "))


def chain(error: BaseException) -> list[BaseException]:
    """An exception and what caused it, back to the first."""
    errors = [error]
    while (below := errors[-1].__cause__ or errors[-1].__context__) is not None:
        errors.append(below)
    return errors
