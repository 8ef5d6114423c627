"""Results as Markdown tables, printed and in ``docs/performance.md``."""

import datetime
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from benchmarks.scenarios import SCENARIOS, cpu_ms_per_question, outcomes
from bundle.version import __version__

DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"
RESULTS = Path(__file__).with_name("results")


def bundle_summary(results: Mapping[str, Any]) -> str:
    """The program's own results: a row per scenario, and whether each target was reached."""
    scenarios = results["scenarios"]
    reached = ((one.text, one.limit, one.measured, "yes" if one.reached else "**no**") for one in outcomes(results))
    parts = [
        environment(results),
        _scenarios(scenarios),
        table(("target", "below", "measured", "reached"), reached),
        *(f"Not run: {name} ({reason})." for name, reason in results["not_run"].items()),
    ]
    if {"no_latency", "no_latency_all"} <= scenarios.keys():
        parts.append(f"Each additional question costs {cpu_ms_per_question(scenarios):.2f} ms of CPU.")
    return "\n\n".join(parts)


def environment(results: Mapping[str, Any]) -> str:
    """One line on where, beside what load and with what it was measured."""
    machine = results["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return (
        f"{results['at'][:10]}: {machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, "
        f"{machine['system']}, Python {machine['python']}, load average {results['load']:.1f} at the start; "
        f"{packages}. Medians of {results['runs']} {'run' if results['runs'] == 1 else 'runs'}."
    )


def _scenarios(scenarios: Mapping[str, Any]) -> str:
    rows = []
    for scenario in SCENARIOS:
        if (measured := scenarios.get(scenario.name)) is None:
            continue
        median, best = measured["median"], measured["ideal"]
        timed = best["whole_s"] > 0
        rows.append(
            (
                f"{scenario.name}: {scenario.description}",
                f"{scenario.questions:,}",
                f"{median['wall_s']:.2f}",
                f"{median['cpu_s']:.2f}",
                f"{median['peak_mb']:.0f}",
                f"{median['ask_s']:.2f}",
                f"{best['whole_s']:.2f} / {best['cut_s']:.2f}" if timed else "0",
                f"{median['ask_s'] / best['whole_s']:.2f} / {median['ask_s'] / best['cut_s']:.2f}" if timed else "",
                f"{median['slots_busy']:.0%}" if timed else "",
                f"{median['prefix_hits']:.0%}",
                f"{median['tokens_generated']:,.0f}",
                f"{median['server_cpu_s']:.2f}",
            )
        )
    head = ["scenario", "questions", "process s", "CPU s", "peak MB", "asking s", "ideal s (whole / cut)"]
    head += ["times ideal (whole / cut)", "slots busy", "prefix hits", "tokens", "server's CPU s"]
    return table(head, rows)


def peers_summary(results: Mapping[str, Any]) -> str:
    """The results of this and other programs, the fastest first."""
    rows = []
    for name, servers in sorted(results["peers"].items(), key=lambda one: one[1]["no_latency"]["median"]["wall_s"]):
        for server, measured in servers.items():
            median, best = measured["median"], measured["ideal"]
            rows.append(
                (
                    *(name, server, f"{median['wall_s']:.1f}", f"{median['cpu_s']:.1f}", f"{median['peak_mb']:.0f}"),
                    f"{median['ask_s']:.2f}",
                    f"{median['ask_s'] / best['whole_s']:.2f}" if best["whole_s"] else "",
                )
            )
    head = ("program", "server", "process s", "CPU s", "peak MB", "asking s", "times ideal of whole replies")
    not_run = (f"Not measured: {name}: {reason}." for name, reason in results["not_run"].items())
    return "\n\n".join((environment(results), table(head, rows), *not_run))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def publish(section: str, results: Mapping[str, Any], text: str, *, document: bool) -> None:
    """Write ``results/SECTION.json``, print the text and, if wanted, put it into the section of the document."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{section}.json"
    path.write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(text)
    if document:
        update_document(section, text)


def update_document(section: str, text: str, document: Path = DOCUMENT) -> None:
    """Replace what is between ``<!-- begin SECTION -->`` and ``<!-- end SECTION -->``.

    Raises:
        ValueError: The document has no such section.
    """
    begin, end = f"<!-- begin {section} -->", f"<!-- end {section} -->"
    content = document.read_text(encoding="utf-8")
    before, found, rest = content.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{document} has no section marked {begin} … {end}")
    document.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def surroundings(runs: int, packages: Iterable[str] = ()) -> dict[str, Any]:
    """When, on which machine, beside how much other load, with which versions and in how many runs."""
    return {
        "at": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": {
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "system": f"{platform.system()} {platform.release()}",
            "python": platform.python_version(),
        },
        "load": os.getloadavg()[0],
        "versions": {"bundle": __version__, **versions(packages)},
        "runs": runs,
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The installed versions of these packages; those that are not installed are left out."""
    found: dict[str, str] = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
