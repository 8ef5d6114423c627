"""What a server says about itself: the models it lists, and how well its prefix cache works."""

import asyncio
import contextlib
import re
from collections.abc import Mapping, Sequence
from urllib.parse import urljoin

from bundle.client._addresses import is_loopback, join
from bundle.client._faults import AttemptError, key_remedy
from bundle.client._keys import KeyRing
from bundle.client._settings import Endpoint
from bundle.client._transport import Transport
from bundle.errors import ServerError, UsageError
from bundle.system.text import one_line

_SHOWN = 20
_TIMEOUT_S = 30.0
_METRICS_TIMEOUT_S = 1.0

# A sample in Prometheus' text format.
_SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{[^}]*\})? ([-+.\deE]+)\s*$", re.MULTILINE)

_RATES = ("lmdeploy:prefix_cache_hit_rate", "sglang:cache_hit_rate")
_COUNTERS = (("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"),)


async def served_models(endpoint: Endpoint, *, timeout_s: float = _TIMEOUT_S) -> list[str]:
    """The names of the models that the server lists, in its order, asked with the first key.

    Raises ServerError if it lists none, or the request failed.
    """
    base_url, keys = endpoint.base_url, KeyRing(endpoint.keys, endpoint.secrets)
    transport = Transport(endpoint, timeout_s=timeout_s)
    try:
        body = await transport.get(join(base_url, "/models"), keys.take().value)
    except AttemptError as fault:
        remedy = keys.hide(key_remedy(fault, sends_a_key=keys.sends_a_key))
        raise ServerError(
            f"{base_url} does not list its models: {keys.hide(fault.reason)}.",
            remedy=f"{remedy} If the server has no list of models, name the model on the command line.",
        ) from None
    finally:
        await transport.close()
    rows = body.get("data") if isinstance(body, Mapping) else body
    names = [row.get("id") for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
    models = list(dict.fromkeys(name for name in names if isinstance(name, str) and name))
    if not models:
        raise ServerError(
            f"{base_url} lists no models.", remedy="Check the base URL, or name the model on the command line."
        )
    return models


async def only_model(endpoint: Endpoint) -> str:
    """The model of a server that serves exactly one; see `served_models`.

    Raises UsageError, which lists them, if it serves several; ServerError if it lists none, or the request failed.
    """
    models = await served_models(endpoint)
    hide = KeyRing(endpoint.keys, endpoint.secrets).hide_in_reply
    if len(models) > 1:
        raise UsageError(
            f"{endpoint.base_url} serves {len(models)} models: {listed([*map(hide, models)])}.",
            remedy="Name one of them on the command line.",
        )
    return models[0]


def listed(models: Sequence[str]) -> str:
    """Names of models in a line of bounded length."""
    shown = ", ".join(one_line(name, 100) for name in models[:_SHOWN])
    return f"{shown} and {len(models) - _SHOWN} more" if len(models) > _SHOWN else shown


async def own_hit_rate(transport: Transport, base_url: str, key: str | None) -> float | None:
    """The rate that ``/metrics`` of a server on this machine reports; None if it reports none, or is elsewhere."""
    if is_loopback(base_url):
        with contextlib.suppress(AttemptError, TimeoutError):
            async with asyncio.timeout(_METRICS_TIMEOUT_S):
                metrics = await transport.get(urljoin(base_url, "/metrics"), key)
                return prefix_cache_hit_rate(metrics) if isinstance(metrics, str) else None
    return None


def prefix_cache_hit_rate(metrics: str) -> float | None:
    """The share of prompt tokens found in the prefix cache, from 0 to 1; None if ``/metrics`` does not report it.

    The names are those of recent versions of lmdeploy (``lmdeploy/metrics/loggers.py``), SGLang and vLLM. With several
    engines behind one server, rates are averaged and counters summed.
    """
    samples: dict[str, list[float]] = {}
    for name, value in _SAMPLE.findall(metrics):
        try:
            samples.setdefault(name, []).append(float(value))
        except ValueError:
            continue
    for name in _RATES:
        if rates := samples.get(name):
            return _share(sum(rates), len(rates))
    for hits, queries in _COUNTERS:
        if hits in samples and queries in samples:
            return _share(sum(samples[hits]), sum(samples[queries]))
    return None


def _share(part: float, whole: float) -> float | None:
    share = part / whole if whole > 0 else None
    return share if share is not None and 0 <= share <= 1 else None
