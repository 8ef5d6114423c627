"""What an inference server tells about itself at ``/metrics``, in Prometheus' text format."""

import re

_SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{[^}]*\})? ([-+.\deE]+)\s*$", re.MULTILINE)

_RATES = ("lmdeploy:prefix_cache_hit_rate", "sglang:cache_hit_rate")
_COUNTERS = (("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"),)


def prefix_cache_hit_rate(metrics: str) -> float | None:
    """The share of prompt tokens that were found in the prefix cache, from 0 to 1; None where it is not told.

    The names are those of newer versions of lmdeploy (``lmdeploy/metrics/loggers.py``), of SGLang and of vLLM. With
    several engines behind one server, rates are averaged and counters added up.

    Args:
        metrics: The body of ``/metrics``.
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
