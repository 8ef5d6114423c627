"""What was measured on the GPU, as lines and as tables."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks.gpu.measured_run import Measured
from benchmarks.tables import table


def lines(measured: Measured, gpu_mib: int) -> Iterator[str]:
    """What one run took and gave, a line each."""
    yield f"to the server's start command  {_seconds(measured.command_s)}"
    yield f"to ready                       {_seconds(measured.ready_s)}"
    yield f"asking                         {_seconds(measured.ask_s)}, {measured.requests:,} questions"
    yield f"whole process                  {_seconds(measured.total_s)}"
    rate = measured.requests / measured.ask_s
    yield f"requests                       {rate:,.0f}/s"
    for name, tokens in (("prompt tokens", measured.prompt_tokens), ("generated tokens", measured.generated_tokens)):
        yield f"{name:<30} {tokens:,}, {tokens / measured.ask_s:,.0f}/s"
    yield f"decided early                  {measured.decided_early:,} replies"
    yield f"prompt tokens from the cache   {_percent(measured.prefix_hits)}"
    yield f"GPU busy while asking          {_percent(measured.gpu_busy)}"
    yield f"GPU memory in use then         {_gib(measured.gpu_peak_mib)}"
    client, server = _share(measured, "client_cpu_s"), _share(measured, "server_cpu_s")
    yield f"of a core while asking         client {client}, server's main process {server}"
    before, after = gpu_mib - measured.free_before_mib, gpu_mib - measured.free_after_mib
    yield f"GPU memory before and after    {before:,} and {after:,} MiB in use"
    yield f"processes left                 {', '.join(measured.left) or 'none'}"
    yield f"score                          {'not told' if measured.accuracy is None else f'{measured.accuracy:.2f}'}"


def markdown(results: Mapping[str, Any]) -> str:
    """All runs as tables, with what they were made on and how."""
    runs: dict[str, Measured] = results["runs"]
    columns: dict[str, Callable[[Measured], str]] = {
        "to command s": lambda one: _number(one.command_s, ".2f"),
        "to ready s": lambda one: _number(one.ready_s, ".1f"),
        "asking s": lambda one: _number(one.ask_s, ".1f"),
        "process s": lambda one: _number(one.total_s, ".1f"),
        "requests/s": lambda one: f"{one.requests / one.ask_s:,.0f}",
        "prompt tokens/s": lambda one: f"{one.prompt_tokens / one.ask_s:,.0f}",
        "generated": lambda one: f"{one.generated_tokens:,}",
        "generated/s": lambda one: f"{one.generated_tokens / one.ask_s:,.0f}",
        "decided early": lambda one: f"{one.decided_early:,}",
        "prefix hits": lambda one: _percent(one.prefix_hits),
        "GPU busy": lambda one: _percent(one.gpu_busy),
        "GPU GiB": lambda one: _gib(one.gpu_peak_mib),
        "client CPU": lambda one: _share(one, "client_cpu_s"),
        "server CPU": lambda one: _share(one, "server_cpu_s"),
        "GPU MiB free before / after": lambda one: f"{one.free_before_mib:,} / {one.free_after_mib:,}",
        "left": lambda one: f"{len(one.left)}",
        "score": lambda one: _number(one.accuracy, ".2f"),
    }
    rows = [(name, *(column(one) for column in columns.values())) for name, one in runs.items()]
    parts = [
        f"{results['at'][:10]}: {results['gpu']}, driver {results['driver']}, {results['cores']} CPU cores; "
        + ", ".join(f"{name} {version}" for name, version in results["versions"].items())
        + ".",
        "",
        f"`{results['command']}`",
        "",
        table(("run", *columns), rows),
    ]
    if results["failed"]:
        parts += ["", *(f"Failed: {name}: {_in_a_line(reason)}" for name, reason in results["failed"].items())]
    if results["not_run"]:
        parts += ["", *(f"Not run: {name}: {reason}." for name, reason in results["not_run"].items())]
    return "\n".join(parts)


def _in_a_line(reason: str) -> str:
    said = reason.splitlines()
    return next((line for line in said if line.startswith("error: ")), said[0].removesuffix(":"))


def _number(value: float | None, form: str) -> str:
    return "?" if value is None else format(value, form)


def _seconds(value: float | None) -> str:
    return "not told" if value is None else f"{value:.2f} s"


def _percent(value: float | None) -> str:
    return "not told" if value is None else f"{value:.0f}%"


def _gib(mib: int | None) -> str:
    return "not told" if mib is None else f"{mib / 1024:.1f} GiB"


def _share(measured: Measured, of: str) -> str:
    """CPU time as a share of one core while asking."""
    used: float | None = getattr(measured, of)
    return "not told" if used is None else f"{used / measured.ask_s:.0%}"
