"""Base URLs as people write them, and the models that a server lists."""

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from bundle.client import Endpoint, insecure, is_loopback, normalise_base_url, only_model, served_models
from bundle.client._transport import Transport
from bundle.errors import ServerError, UsageError
from bundle.system.text import printable
from tests.openai_api import Call, error, loopback_api

PUYU = "https://internlm-chat.intern-ai.org.cn/puyu/api/v1"
KEY = "sk-endpoint-51c3a7"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("http://127.0.0.1:23333/v1", "http://127.0.0.1:23333/v1"),
        ("http://127.0.0.1:23333/v1/", "http://127.0.0.1:23333/v1"),
        ("http://127.0.0.1:23333", "http://127.0.0.1:23333/v1"),
        ("http://127.0.0.1:23333/", "http://127.0.0.1:23333/v1"),
        ("http://127.0.0.1:23333/v1/chat/completions", "http://127.0.0.1:23333/v1"),
        ("http://127.0.0.1:23333/v1/chat/completions/", "http://127.0.0.1:23333/v1"),
        ("http://127.0.0.1:23333/v1/completions", "http://127.0.0.1:23333/v1"),
        (" http://127.0.0.1:23333/v1\n", "http://127.0.0.1:23333/v1"),
        ("127.0.0.1:23333", "http://127.0.0.1:23333/v1"),
        ("localhost:8000/v1", "http://localhost:8000/v1"),
        ("localhost", "http://localhost/v1"),
        ("0.0.0.0:23333", "http://0.0.0.0:23333/v1"),
        ("[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("http://[FE80::1%25eth0]:8000/v1", "http://[fe80::1%eth0]:8000/v1"),
        ("http://[fe80::1%eth0]:8000/v1", "http://[fe80::1%eth0]:8000/v1"),
        ("HTTPS://api.example.com", "https://api.example.com/v1"),
        ("https://API.Example.com:443/v1", "https://api.example.com:443/v1"),
        ("https://例子.example/v1", "https://xn--fsqu00a.example/v1"),
        (f"{PUYU}/", PUYU),
        (f"{PUYU}/chat/completions", PUYU),
        ("https://open.bigmodel.cn/api/paas/v4/", "https://open.bigmodel.cn/api/paas/v4"),
        ("https://host.example/v1beta/openai/", "https://host.example/v1beta/openai"),
        ("https://host.example/api", "https://host.example/api/v1"),
        ("https://host.example/vision", "https://host.example/vision/v1"),
        ("https://host.example/inference/chat/completions", "https://host.example/inference"),
        (
            "https://me.openai.azure.com/openai/deployments/gpt/chat/completions?api-version=2024-10-21",
            "https://me.openai.azure.com/openai/deployments/gpt?api-version=2024-10-21",
        ),
        ("https://me.openai.azure.com/openai/deployments/gpt/", "https://me.openai.azure.com/openai/deployments/gpt"),
    ],
)
def test_a_base_url_is_understood_as_it_is_written(written: str, meant: str) -> None:
    assert normalise_base_url(written) == meant


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("", "is empty"),
        ("api.example.com/v1", r"does not start with http:// or https://.*Put https:// before it"),
        ("10.0.0.7:8000", "does not start with"),
        ("http:/127.0.0.1/v1", "does not start with"),
        ("ftp://127.0.0.1/v1", "neither http nor https"),
        ("file:///etc/passwd", "neither http nor https"),
        ("http://127.0.0.1/v1 /x", "stray character"),
        ("http://127.0.0.1\\v1", "stray character"),
        ("http://127.0.0.1:8000/v1\u200b", "stray character"),
        ("\ufeffhttp://127.0.0.1:8000/v1", r"\\ufeffhttp.* stray character"),
        ('"http://127.0.0.1:8000/v1"', "stray character"),
        ("http://127.1:8000/v1", "is not a valid host"),
        ("http://0177.0.0.1/v1", "is not a valid host"),
        ("http://999.999.999.999/v1", "is not a valid host"),
        ("http:///v1", "is not a valid host"),
        ("http://127.0.0.1:port/v1", "is not valid"),
        ("http://127.0.0.1:0/v1", "is not a valid port"),
        ("http://127.0.0.1:99999/v1", "is not valid"),
        ("http://[::1/v1", "is not valid"),
        ("http://a..b/v1", "is not valid"),
        ("http://<your-host>/v1", "is not valid"),
    ],
)
def test_what_cannot_be_used_is_told_with_a_remedy(written: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        normalise_base_url(written)

    assert caught.value.remedy


@pytest.mark.parametrize(
    "written",
    [
        "https://me:secret@host.example/v1",
        "me:secret@host.example",
        "https://h.example/v1?key=secret",
        "http://h#secret",
        "http://me:secret%40host.example/v1",
        "http://me:secret\uff20host.example/v1",
        "https://h.example/v1?api-version=1&key=secret",
    ],
)
def test_secrets_in_a_url_are_refused_and_not_repeated(written: str) -> None:
    with pytest.raises(UsageError, match="Leave it out") as caught:
        normalise_base_url(written)

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("written", ["http://me:s3cret/v1", "http://host:s3cret", "127.0.0.1:s3cret"])
def test_what_stands_in_place_of_a_port_is_not_repeated(written: str) -> None:
    with pytest.raises(UsageError, match="is not a valid port") as caught:
        normalise_base_url(written)

    assert "s3cret" not in str(caught.value)


URLS = st.text() | st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "http://", "https://", "//"]),
    st.text("abc.-_:[]1270%é<", max_size=12),
    st.sampled_from(["", ":80", ":", ":x"]),
    st.text("/v1chat%. é", max_size=12),
)


@given(URLS)
def test_whatever_is_written_is_a_url_that_can_be_used_or_an_error_with_a_remedy(written: str) -> None:
    url: str | UsageError
    try:
        url = normalise_base_url(written)
    except UsageError as error:
        url = error

    if isinstance(url, UsageError):
        assert url.remedy
        assert printable(url.message) == url.message
    else:
        Transport(Endpoint(url), timeout_s=1)
        assert not url.endswith("/")
        assert insecure(url) == (url.startswith("http://") and not is_loopback(url))


def test_a_url_that_is_too_long_to_be_sent_is_an_error() -> None:
    with pytest.raises(UsageError, match="too long"):
        Transport(Endpoint(f"http://127.0.0.1/{'a' * 70_000}/v1"), timeout_s=1)


@pytest.mark.parametrize(
    ("url", "unsafe"),
    [
        ("http://127.0.0.1:8000/v1", False),
        ("http://localhost/v1", False),
        ("http://[::1]/v1", False),
        ("http://0.0.0.0/v1", False),
        ("https://api.example.com/v1", False),
        ("http://api.example.com/v1", True),
        ("http://192.168.1.7/v1", True),
        ("http://127.0.0.1.example.com/v1", True),
    ],
)
def test_only_this_machine_is_safe_without_encryption(url: str, unsafe: bool) -> None:
    assert insecure(url) is unsafe


def test_loopback_is_this_machine() -> None:
    assert is_loopback("http://127.0.0.1:23333/v1")
    assert not is_loopback("https://127.example.com/v1")


def listing(*names: str) -> web.Response:
    return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})


async def _never(call: Call) -> web.Response:
    raise AssertionError


async def test_the_only_model_of_a_server_is_the_one_that_is_meant() -> None:
    async def models(call: Call) -> web.Response:
        return listing("internlm2_5")

    async with loopback_api(_never, models) as api:
        assert await only_model(Endpoint(api.url, [KEY])) == "internlm2_5"

    assert api.keys == [f"Bearer {KEY}"]


async def test_several_models_are_an_error_that_lists_them() -> None:
    async def models(call: Call) -> web.Response:
        return listing("a", "b", "a", "c")

    async with loopback_api(_never, models) as api:
        assert await served_models(Endpoint(api.url)) == ["a", "b", "c"]
        with pytest.raises(UsageError, match=r"serves 3 models: a, b, c\. Name one of them"):
            await only_model(Endpoint(api.url))

    assert api.keys == [None, None]


async def test_a_long_list_is_shortened() -> None:
    async def models(call: Call) -> web.Response:
        return listing(*(f"m{number}" for number in range(300)))

    async with loopback_api(_never, models) as api:
        with pytest.raises(UsageError, match=r"m19 and 280 more"):
            await only_model(Endpoint(api.url))


@pytest.mark.parametrize("body", ['{"data": []}', "[]", "null", "3", '{"data": [{"id": null}, 7]}', '{"data": "m"}'])
async def test_a_list_without_a_model_is_an_error(body: str) -> None:
    async def models(call: Call) -> web.Response:
        return web.Response(text=body, content_type="application/json")

    async with loopback_api(_never, models) as api:
        with pytest.raises(ServerError, match="lists no models"):
            await only_model(Endpoint(api.url))


async def test_a_list_that_is_refused_says_why_and_not_with_which_key() -> None:
    async def models(call: Call) -> web.Response:
        return error(401, f"Incorrect API key provided: {KEY}")

    async with loopback_api(_never, models) as api:
        with pytest.raises(ServerError, match=r"does not list its models: HTTP 401: .* \*\*\*") as caught:
            await only_model(Endpoint(api.url, [KEY]))

    assert KEY not in str(caught.value)
    assert "name the model on the command line" in str(caught.value)


async def test_a_server_without_a_list_is_told() -> None:
    async with loopback_api(_never) as api:
        with pytest.raises(ServerError, match=r"HTTP 404.*name the model on the command line"):
            await only_model(Endpoint(api.url))


async def test_no_server_at_all_is_told() -> None:
    async with loopback_api(_never) as api:
        closed = api.url
    with pytest.raises(
        ServerError, match=r"connection failed.*Check the base URL and its port, and that the server is running"
    ):
        await only_model(Endpoint(closed))
