"""Results as tables for people, and into ``docs/performance.md``."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import start
from benchmarks.scenarios import SCENARIOS, cpu_ms_per_question, outcomes

DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"


def summary(results: Mapping[str, Any]) -> str:
    """All tables of the program's own results, in Markdown."""
    parts = [
        environment(results),
        "",
        scenarios_table(results["scenarios"]),
        "",
        table(
            ("must reach", "below", "measured", "reached"),
            (
                (one.text, one.limit, one.measured, "yes" if one.reached else "**no**")
                for one in (*outcomes(results), *start.outcomes(results))
            ),
        ),
    ]
    if {"no_latency", "no_latency_all"} <= results["scenarios"].keys():
        parts += ["", growth(results["scenarios"])]
    if results["not_run"]:
        parts += ["", *(f"Not run: {name} ({reason})." for name, reason in results["not_run"].items())]
    return "\n".join(parts)


def environment(results: Mapping[str, Any]) -> str:
    """One line on where and with what it was measured."""
    machine = results["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return (
        f"{results['at'][:10]}: {machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, "
        f"{machine['system']}, Python {machine['python']}; {packages}. "
        f"Medians of {results['runs']} {'run' if results['runs'] == 1 else 'runs'}."
    )


def scenarios_table(scenarios: Mapping[str, Any]) -> str:
    """A row a scenario: what it took, and the ratio of asking to the ideal."""
    rows = []
    for scenario in SCENARIOS:
        if (measured := scenarios.get(scenario.name)) is None:
            continue
        median, best = measured["median"], measured["ideal"]
        rows.append(
            (
                f"{scenario.name}: {scenario.description}",
                f"{scenario.questions:,}",
                f"{median['wall_s']:.2f}",
                f"{median['cpu_s']:.2f}",
                f"{median['peak_mb']:.0f}",
                f"{median['ask_s']:.2f}",
                f"{best['whole_s']:.2f} / {best['cut_s']:.2f}" if best["whole_s"] else "0",
                ratio(median["ask_s"], best),
                f"{median['slots_busy']:.0%}" if best["whole_s"] else "",
                f"{median['prefix_hits']:.0%}",
                f"{median['tokens_generated']:,.0f}",
                f"{median['server_cpu_s']:.2f}",
            )
        )
    head = (
        "scenario",
        "questions",
        "process s",
        "CPU s",
        "peak MB",
        "asking s",
        "ideal s (whole / cut)",
        "times ideal (whole / cut)",
        "slots busy",
        "prefix hits",
        "tokens",
        "server's CPU s",
    )
    return table(head, rows)


def peers_summary(results: Mapping[str, Any]) -> str:
    """The other programs' results, in Markdown."""
    rows = []
    for name, servers in sorted(results["peers"].items(), key=lambda one: one[1]["no_latency"]["median"]["wall_s"]):
        for server, measured in servers.items():
            median, best = measured["median"], measured["ideal"]
            rows.append(
                (
                    name,
                    server,
                    f"{median['wall_s']:.1f}",
                    f"{median['cpu_s']:.1f}",
                    f"{median['peak_mb']:.0f}",
                    f"{median['ask_s']:.2f}",
                    f"{median['ask_s'] / best['whole_s']:.2f}" if best["whole_s"] else "",
                )
            )
    head = ("program", "server", "process s", "CPU s", "peak MB", "asking s", "times ideal of whole replies")
    parts = [environment(results), "", table(head, rows)]
    if results["not_run"]:
        parts += ["", *(f"Not measured: {name}: {reason}." for name, reason in results["not_run"].items())]
    return "\n".join(parts)


def ratio(seconds: float, best: Mapping[str, float]) -> str:
    """How many times the ideal this is."""
    return f"{seconds / best['whole_s']:.2f} / {seconds / best['cut_s']:.2f}" if best["whole_s"] else ""


def growth(scenarios: Mapping[str, Any]) -> str:
    """How cost grows with the number of questions."""
    few, many = (scenarios[name]["median"] for name in ("no_latency", "no_latency_all"))
    columns = ("wall_s", "cpu_s", "peak_mb")
    rows = [
        ("1,346 questions", *(f"{few[name]:.2f}" for name in columns)),
        ("13,688 questions", *(f"{many[name]:.2f}" for name in columns)),
        ("times (10.17 times the questions)", *(f"{many[name] / few[name]:.2f}" for name in columns)),
    ]
    text = table(("growth", "process s", "CPU s", "peak MB"), rows)
    return f"{text}\n\nOne more question costs {cpu_ms_per_question(scenarios):.2f} ms of CPU."


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def update_document(section: str, text: str, document: Path = DOCUMENT) -> None:
    """Put a text between the marks of a section, ``<!-- begin SECTION -->`` and ``<!-- end SECTION -->``.

    Raises:
        ValueError: The document has no such marks.
    """
    begin, end = f"<!-- begin {section} -->", f"<!-- end {section} -->"
    content = document.read_text(encoding="utf-8")
    before, found, rest = content.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{document} has no section marked {begin} … {end}")
    document.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
