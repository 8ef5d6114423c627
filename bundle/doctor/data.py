"""Where questions come from, and whether they can be had from there."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Final

from bundle import __version__
from bundle.doctor.findings import Finding, failing, ok, warning
from bundle.errors import DataError
from bundle.tasks.benchmarks import BENCHMARKS, Benchmark
from bundle.tasks.sources import load_tables
from bundle.tasks.sources.hub import cached_commit, look_at_hub
from bundle.tasks.sources.modelscope import cache as modelscope_cache
from bundle.tasks.sources.modelscope import endpoint as modelscope_endpoint

DEFAULT_BENCHMARK: Final = "ceval"


def look_at_data(source: str | None, limit_s: float) -> Iterator[Finding]:
    """Whether questions can be had from a source.

    Args:
        source: As in ``--data``: ``SOURCE`` or ``BENCHMARK=SOURCE``; None for the hub, and what there is if not.
        limit_s: Most seconds that a server may take to answer.
    """
    if source is None:
        yield from _without_choice(BENCHMARKS[DEFAULT_BENCHMARK], limit_s)
        return
    name, equals, rest = source.partition("=")
    named = BENCHMARKS.get(name) if equals else None
    given = rest if named else source
    benchmark = named or BENCHMARKS[DEFAULT_BENCHMARK]
    match given:
        case "hub":
            yield ok(look_at_hub(benchmark, limit_s))
        case "modelscope":
            yield ok(_look_at_modelscope(benchmark, limit_s))
        case _:
            yield _read(given, [named] if named else list(BENCHMARKS.values()))


def _without_choice(benchmark: Benchmark, limit_s: float) -> Iterator[Finding]:
    """The hub; where it cannot be had, the copy it left, or else ModelScope."""
    try:
        yield ok(look_at_hub(benchmark, limit_s))
    except DataError as no_hub:
        commit = cached_commit(benchmark, _wanted(benchmark))
        if commit is not None:
            yield ok(f"the copy of {benchmark.hub} @ {commit[:8]} fetched before is used: {no_hub.message}")
            return
        try:
            other = _look_at_modelscope(benchmark, limit_s)
        except DataError as no_modelscope:
            yield failing(no_hub.message, no_hub.remedy, [no_modelscope.message])
        else:
            yield warning(no_hub.message, no_hub.remedy)
            yield ok(f"with --data modelscope: {other}")


def _look_at_modelscope(benchmark: Benchmark, limit_s: float) -> str:
    kept = modelscope_cache() / benchmark.modelscope / benchmark.archive
    if kept.is_file():
        return f"{kept}, fetched from ModelScope before"
    url = f"{modelscope_endpoint()}/datasets/{benchmark.modelscope}/resolve/master/{benchmark.archive}"
    remedy = "MODELSCOPE_ENDPOINT=URL asks another server; `--data hub` or `--data PATH` does without."
    if not url.startswith(("http://", "https://")):
        raise DataError(f"{url} is no address that can be asked.", remedy=remedy)
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": f"bundle/{__version__}"})  # noqa: S310
    try:
        urllib.request.urlopen(request, timeout=limit_s).close()  # noqa: S310 - see the check above
    except urllib.error.HTTPError as error:
        raise DataError(f"{url} is refused: {error.code} {error.reason}.", remedy=remedy) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(f"{url} cannot be reached: {reason}.", remedy=remedy) from None
    return f"{benchmark.modelscope} at {url.split('/')[2].rpartition('@')[2]}"


def _read(source: str, benchmarks: list[Benchmark]) -> Finding:
    """Open a directory or .zip, or the sample, as each benchmark in turn; all its questions are read."""
    first: DataError | None = None
    for benchmark in benchmarks:
        try:
            tables = load_tables(source, benchmark, _wanted(benchmark))
        except DataError as error:
            first = first or error
        else:
            rows = sum(len(rows) for (_, split), rows in tables.rows.items() if split == benchmark.main_split)
            return ok(f"{tables.origin}: {rows} questions of {benchmark.name}, {benchmark.main_split} split")
    assert first is not None
    return failing(first.message, first.remedy, first.details)


def _wanted(benchmark: Benchmark) -> list[tuple[str, str]]:
    """What the plain task of a benchmark asks for: its main split, and the split the examples are from."""
    return [(subject.name, split) for subject in benchmark.subjects for split in (benchmark.main_split, "dev")]
