"""Certificates for servers on loopback."""

import ssl
import subprocess
from pathlib import Path

import pytest


def self_signed(directory: Path) -> Path:
    """A key and a certificate of 127.0.0.1, in one file."""
    both = directory / "both.pem"
    arguments = ["-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-days", "2"]
    arguments += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(both), "-out", str(both)]
    try:
        subprocess.run(["openssl", "req", *arguments], stderr=subprocess.DEVNULL, check=True)
    except FileNotFoundError:
        pytest.skip("openssl makes the certificate, and is not installed")
    return both


def serving_with(both: Path) -> ssl.SSLContext:
    """What a server needs to serve with it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return context
