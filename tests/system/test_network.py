"""Proxies in the environment: found as other programs find them, refused before they are used, never shown whole."""

import pytest

from bundle.errors import UsageError
from bundle.system.network import proxy_for, without_users

URL = "https://api.example.com/v1"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("all_proxy", "socks://127.0.0.1:7897/", "only HTTP proxies"),
        ("ALL_PROXY", "socks5://127.0.0.1:7897", "only HTTP proxies"),
        ("https_proxy", "http://user:s3c#ret@127.0.0.1:3128", "not a valid address"),
        ("https_proxy", "http://user:s3c/ret@127.0.0.1:3128", "not a valid address"),
        ("https_proxy", "http://user%3As3cret@127.0.0.1:3128", "not a valid address"),
        ("https_proxy", "http://127.0.0.1:port", "not a valid address"),
        ("HTTPS_PROXY", "http://", "not a valid address"),
    ],
)
def test_an_unusable_one_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=said) as caught:
        proxy_for(URL)

    text = str(caught.value)
    assert variable in text
    assert "s3c" not in text
    assert "ret@" not in text
    assert "NO_PROXY=api.example.com" in text
    monkeypatch.setenv("no_proxy", "example.com")
    assert proxy_for(URL) is None


@pytest.mark.parametrize("value", ["http://user:password@proxy.example:3128", "user:password@proxy.example:3128"])
def test_a_usable_one_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    proxy = proxy_for(URL)

    assert proxy is not None
    assert (proxy.variable, proxy.address) == ("HTTPS_PROXY", "http://proxy.example:3128")
    assert proxy.url == "http://user:password@proxy.example:3128"
    assert "password" not in repr(proxy)


def test_a_socks_proxy_is_left_to_programs_that_may_know_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:7897")
    assert proxy_for(URL, only_http=False) is not None


@pytest.mark.parametrize(
    ("exempt", "url", "proxied"),
    [
        ("", "http://10.1.2.3/v1", True),
        ("*", "http://10.1.2.3/v1", False),
        ("10.0.0.0/8", "http://10.1.2.3/v1", False),
        ("10.0.0.0/8", "http://11.1.2.3/v1", True),
        ("10.1.2.3", "http://10.1.2.3/v1", False),
        (".example.com, localhost", "http://api.example.com/v1", False),
        ("example.com", "http://example.com.evil/v1", True),
    ],
)
def test_no_proxy_exempts_hosts_domains_and_networks(
    monkeypatch: pytest.MonkeyPatch, exempt: str, url: str, proxied: bool
) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", exempt)
    assert (proxy_for(url) is not None) is proxied


def test_users_and_passwords_are_taken_out_of_urls() -> None:
    assert without_users("cannot connect to http://me:pw@proxy:80/x") == "cannot connect to http://proxy:80/x"
    assert without_users("mail me@example.com") == "mail me@example.com"
