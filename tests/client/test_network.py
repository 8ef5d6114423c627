"""What lies between the client and the server: proxies and certificates."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web

from bundle.client import NoReplyError, RefusedError
from bundle.errors import UsageError
from tests.certificates import self_signed, serving_with
from tests.evaluation.asking import ask, client_of
from tests.openai_api import Call, completion, error, http, letter, loopback_api, raw_api

ELSEWHERE = "http://model.example/v1"
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", *CERTIFICATES):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def page(call: Call) -> web.Response:
    """What a proxy says of a server that it cannot reach."""
    return web.Response(status=503, text="<html><title>503</title>proxy error</html>", content_type="text/html")


def named_proxy(monkeypatch: pytest.MonkeyPatch, url: str) -> str:
    """Have the environment name a proxy with a password; return what may be shown of it."""
    address = url.removesuffix("/v1")
    monkeypatch.setenv("http_proxy", address.replace("://", "://me:s3cret@"))
    monkeypatch.setenv("https_proxy", address.replace("://", "://me:s3cret@"))
    return address


def require_named(error: RefusedError, proxy: str, variable: str) -> None:
    assert f"through the proxy {proxy} (from {variable})" in error.message
    assert error.remedy is not None
    assert "NO_PROXY=model.example" in error.remedy
    assert "s3cret" not in str(error)


async def test_a_proxys_own_page_is_named_as_the_proxys(monkeypatch: pytest.MonkeyPatch) -> None:
    async with loopback_api(page) as proxy:
        address = named_proxy(monkeypatch, proxy.url)
        async with client_of(ELSEWHERE, retries=1) as client:
            with pytest.raises(RefusedError, match='HTTP 503: an HTML page "503"') as caught:
                await ask(client)

    require_named(caught.value, address, "http_proxy")


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_dead_proxy_is_named(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    async with loopback_api(page) as proxy:
        url = proxy.url
    address = named_proxy(monkeypatch, url)
    async with client_of(f"{scheme}://model.example/v1", retries=0) as client:
        with pytest.raises(RefusedError, match="connection failed") as caught:
            await ask(client)

    require_named(caught.value, address, f"{scheme}_proxy")


async def test_a_proxy_that_refuses_a_tunnel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async with loopback_api(page) as proxy:  # it knows no CONNECT
        address = named_proxy(monkeypatch, proxy.url)
        async with client_of("https://model.example/v1", retries=0) as client:
            with pytest.raises(RefusedError) as caught:
                await ask(client)

    require_named(caught.value, address, "https_proxy")


async def test_a_proxy_that_wants_another_login_for_a_tunnel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    tunnels = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tunnels
        tunnels += (await reader.readuntil(b"\r\n\r\n")).startswith(b"CONNECT model.example:443 ")
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as proxy:
        address = named_proxy(monkeypatch, f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}/v1")
        async with client_of("https://model.example/v1", retries=2) as client:
            with pytest.raises(RefusedError, match="HTTP 407: Proxy Authentication Required") as caught:
                await ask(client)

    require_named(caught.value, address, "https_proxy")
    assert caught.value.remedy is not None
    assert "valid user name and password into https_proxy" in caught.value.remedy
    assert tunnels == 1


async def test_a_proxy_that_wants_a_login_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refusing(call: Call) -> web.Response:
        return web.Response(status=407, text="<html><title>Log in</title></html>", content_type="text/html")

    async with loopback_api(refusing) as proxy:
        address = named_proxy(monkeypatch, proxy.url)
        async with client_of(ELSEWHERE) as client:
            with pytest.raises(RefusedError, match="HTTP 407") as caught:
                await ask(client)

    require_named(caught.value, address, "http_proxy")


async def test_a_server_of_our_own_is_asked_directly_wherever_it_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(call: Call) -> web.Response:
        return completion("B", model="m")

    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *how, **more: resolve("127.0.0.1", *how, **more))
    async with loopback_api(handler) as api, loopback_api(page) as proxy:
        named_proxy(monkeypatch, proxy.url)
        async with client_of(api.url.replace("127.0.0.1", "model.example"), ours=True) as client:
            assert (await ask(client)).text == "B"

    assert not proxy.paths


async def test_a_servers_own_refusal_is_not_the_proxys(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refusing(call: Call) -> web.Response:
        return error(401, "who are you?")

    async with loopback_api(refusing) as proxy:
        named_proxy(monkeypatch, proxy.url)
        async with client_of(ELSEWHERE) as client:
            with pytest.raises(RefusedError) as caught:
                await ask(client)

    assert "proxy" not in str(caught.value)


async def test_a_certificate_that_nobody_vouches_for_ends_the_run(tmp_path: Path) -> None:
    tls = serving_with(self_signed(tmp_path))
    async with loopback_api(letter, tls=tls) as api, client_of(api.url, retries=0) as client:
        with pytest.raises(RefusedError, match=r"certificate is not valid: self.signed certificate") as caught:
            await ask(client)

    assert caught.value.remedy is not None
    assert "SSL_CERT_FILE" in caught.value.remedy


async def test_https_at_a_server_without_tls_is_answered_with_the_right_base_url() -> None:
    async with loopback_api(letter) as api, client_of(api.url.replace("http:", "https:")) as client:
        with pytest.raises(RefusedError, match="the server does not use TLS") as caught:
            await ask(client)

    assert caught.value.remedy == f"Use --base-url {api.url}."


NGINX = b"<html><head><title>400 The plain HTTP request was sent to HTTPS port</title></head></html>"
APACHE = b"<p>Reason: You're speaking plain HTTP to an SSL-enabled server port.<br /></p>"


@pytest.mark.parametrize(
    "answer",
    [
        http(NGINX, status="400 Bad Request"),
        http(APACHE, status="400 Bad Request"),
        b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
        b"\x15\x03\x03\x00\x02\x02\x32",
    ],
    ids=["nginx", "Apache", "Go", "alert"],
)
async def test_http_at_a_server_with_tls_is_answered_with_the_right_base_url(answer: bytes) -> None:
    async with raw_api(answer) as api, client_of(api.url) as client:
        with pytest.raises(RefusedError, match="the server uses TLS") as caught:
            await ask(client)

    assert caught.value.remedy == f"Use --base-url {api.url.replace('http:', 'https:')}."
    assert len(api.bodies) == 1


async def test_https_is_suggested_where_a_server_with_tls_says_nothing(tmp_path: Path) -> None:
    tls = serving_with(self_signed(tmp_path))
    async with (
        loopback_api(letter, tls=tls) as api,
        client_of(api.url.replace("https:", "http:"), retries=0) as client,
    ):
        with pytest.raises(NoReplyError, match="if it uses TLS, write https:// in the base URL"):
            await ask(client)


async def test_a_proxy_with_https_that_does_not_use_tls_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async with loopback_api(page) as proxy:
        address = proxy.url.removesuffix("/v1").replace("http:", "https:")
        monkeypatch.setenv("http_proxy", address.replace("://", "://me:s3cret@"))
        async with client_of(ELSEWHERE) as client:
            with pytest.raises(RefusedError, match=f"the proxy {address} .from http_proxy. does not use TLS") as caught:
                await ask(client)

    assert caught.value.remedy == "Write http:// in place of https:// in http_proxy."
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
async def test_the_environments_certificates_hold_on_loopback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    async def handler(call: Call) -> web.Response:
        return completion("B")

    both = self_signed(tmp_path)
    monkeypatch.setenv(variable, str(both))
    async with loopback_api(handler, tls=serving_with(both)) as api, client_of(api.url) as client:
        assert (await ask(client)).text == "B"


@pytest.mark.parametrize("variable", ["SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"])
async def test_so_does_a_directory_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    async def handler(call: Call) -> web.Response:
        return completion("B")

    both = self_signed(tmp_path)
    (tmp_path / "certificates").mkdir()
    hashed = _hash_of(both)
    (tmp_path / "certificates" / f"{hashed}.0").write_bytes(both.read_bytes())
    monkeypatch.setenv(variable, str(tmp_path / "certificates"))
    async with loopback_api(handler, tls=serving_with(both)) as api, client_of(api.url) as client:
        assert (await ask(client)).text == "B"


def _hash_of(certificate: Path) -> str:
    """The name that OpenSSL looks for."""
    command = ["openssl", "x509", "-noout", "-subject_hash", "-in", str(certificate)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(("content", "why"), [(None, "No such file"), ("not a certificate", "no certificate")])
def test_certificates_that_cannot_be_read_are_named_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, why: str
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(UsageError, match=f"SSL_CERT_FILE=.*{why}"):
        client_of("https://127.0.0.1:1/v1")


def test_certificates_in_the_home_of_nobody_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "~nobody-of-this-name/ca.pem")
    with pytest.raises(UsageError, match=r"SSL_CERT_FILE=~nobody-of-this-name/ca\.pem cannot be read"):
        client_of("https://127.0.0.1:1/v1")


def open_socket(address: object) -> socket.socket:
    """This process's socket with this address of its own."""
    for name in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found = socket.socket(fileno=os.dup(int(name.name)))
            if found.getsockname() == address:
                return found
            found.close()
    raise LookupError(address)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the socket in /proc")
async def test_a_connection_is_kept_alive_while_a_model_thinks_so_that_a_lost_one_is_noticed() -> None:
    kept: list[int] = []

    async def handler(call: Call) -> web.Response:
        assert call.request.transport is not None
        with open_socket(call.request.transport.get_extra_info("peername")) as connection:
            kept.append(connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
            kept.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE))
        return completion("B")

    async with loopback_api(handler) as api, client_of(api.url) as client:
        await ask(client)
    assert kept == [1, 30]
