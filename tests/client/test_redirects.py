"""Redirects: they are named with the base URL to use, and nothing is sent where they lead."""

import pytest
from aiohttp import web

from bundle.client import Endpoint, RefusedError, served_models
from bundle.client._faults import fault_of_status
from bundle.errors import ServerError
from tests.evaluation.asking import ask, client_of
from tests.openai_api import Call, letter, loopback_api, models_named


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_question_and_no_key_goes_where_a_server_redirects(status: int) -> None:
    async with loopback_api(letter, models_named("m")) as other:

        async def elsewhere(call: Call) -> web.Response:
            return web.Response(status=status, headers={"Location": other.url.removesuffix("/v1") + call.request.path})

        async with loopback_api(elsewhere, elsewhere) as api:
            async with client_of(api.url, keys=["sk-secret"]) as client:
                with pytest.raises(
                    RefusedError, match=f"HTTP {status}: the server redirects to {other.url}"
                ) as refused:
                    await ask(client)
            with pytest.raises(ServerError, match=f"HTTP {status}: the server redirects to {other.url}") as unlisted:
                await served_models(Endpoint(api.url, ["sk-secret"]))
        assert f"use --base-url {other.url}." in str(refused.value.remedy).lower()
        assert f"use --base-url {other.url}." in str(unlisted.value.remedy).lower()
        assert other.paths == []


@pytest.mark.parametrize(
    ("location", "remedy"),
    [
        ("https://api.example/v1/chat/completions", "Use --base-url https://api.example/v1."),  # http to https
        ("https://api.example:8443/v1/chat/completions/", "Use --base-url https://api.example:8443/v1."),
        ("/api/v1/chat/completions?from=v1", "Use --base-url http://api.example/api/v1."),
        (
            "https://eu.example/openai/v2/chat/completions?api-version=2024-06-01",
            "If you trust that server with the questions and the API key, "
            "use --base-url https://eu.example/openai/v2?api-version=2024-06-01.",
        ),
        ("http://api.example/v1/chat/completions/", "The server wants a slash"),
        ("/v1/chat/completions", "It does not lead to the API"),  # to itself
        ("/login?next=/v1/chat/completions", "It does not lead to the API"),
        ("https://sso.example/authorize", "It does not lead to the API"),
        ("https://me:pw@eu.example/v1/chat/completions", "It does not lead to the API"),
        ("ftp://eu.example/v1/chat/completions", "It does not lead to the API"),
        ("http://[::1/v1/chat/completions", "It does not lead to the API"),
        ("", "It does not lead to the API"),
    ],
)
def test_the_remedy_of_a_redirect_names_the_base_url_to_use(location: str, remedy: str) -> None:
    fault = fault_of_status(307, "", {"location": location}, "http://api.example/v1/chat/completions")
    assert fault.remedy.startswith(remedy)


async def test_a_key_that_a_redirect_repeats_is_not_shown() -> None:
    async def handler(call: Call) -> web.Response:
        return web.Response(status=307, headers={"Location": "https://eu.example/sk-secret/v1/chat/completions"})

    async with loopback_api(handler) as api, client_of(api.url, keys=["sk-secret"]) as client:
        with pytest.raises(RefusedError) as error:
            await ask(client)
    assert "sk-secret" not in f"{error.value} {error.value.remedy}"
