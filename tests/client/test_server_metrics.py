"""The prefix cache's hit rate, as servers tell it."""

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from bundle.client._server_info import prefix_cache_hit_rate
from tests.evaluation.asking import client_of
from tests.openai_api import Call, completion, loopback_api

LMDEPLOY = """# HELP lmdeploy:prefix_cache_hit_rate Prefix cache hit rate.
# TYPE lmdeploy:prefix_cache_hit_rate gauge
lmdeploy:prefix_cache_hit_rate{engine="0",model_name="m"} 0.75
"""
VLLM = """vllm:prefix_cache_queries_total{engine="0"} 1000.0
vllm:prefix_cache_queries_total{engine="1"} 1000.0
vllm:prefix_cache_hits_total{engine="0"} 9e+02
vllm:prefix_cache_hits_total{engine="1"} 100.0
"""


@pytest.mark.parametrize(
    ("metrics", "rate"),
    [
        (LMDEPLOY, 0.75),
        (VLLM, 0.5),
        ("sglang:cache_hit_rate 0.1\n", 0.1),
        ("lmdeploy:num_requests_running 3\n", None),
        ("vllm:prefix_cache_queries_total 0\nvllm:prefix_cache_hits_total 0\n", None),
        ("lmdeploy:prefix_cache_hit_rate 75\n", None),
        ("lmdeploy:prefix_cache_hit_rate 1.2.3\n", None),
        ("<html>", None),
    ],
)
def test_the_hit_rate_as_a_server_tells_it(metrics: str, rate: float | None) -> None:
    assert prefix_cache_hit_rate(metrics) == rate


@given(st.text())
def test_whatever_stands_there_breaks_nothing(metrics: str) -> None:
    rate = prefix_cache_hit_rate(metrics)
    assert rate is None or 0 <= rate <= 1


async def test_a_server_on_this_machine_is_asked_for_it() -> None:
    async def handler(call: Call) -> web.Response:
        return completion("A")

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(text=LMDEPLOY)

    async with loopback_api(handler, metrics=metrics) as api, client_of(api.url) as client:
        assert await client.prefix_cache_hit_rate() == 0.75


async def test_a_server_without_metrics_is_no_problem() -> None:
    async def handler(call: Call) -> web.Response:
        return completion("A")

    async with loopback_api(handler) as api, client_of(api.url) as client:
        assert await client.prefix_cache_hit_rate() is None
