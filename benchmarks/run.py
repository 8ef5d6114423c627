"""Benchmark ``bundle eval-remote`` against simulated servers.

    python -m benchmarks.run [--only NAME] [--runs N] [--data DIRECTORY] [--update-docs]

Prints its tables and writes ``benchmarks/results/bundle.json``; ``--update-docs`` also writes the tables into
``docs/performance.md``.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.ideal import ideal
from benchmarks.parameters import read_parameters
from benchmarks.processes import FailedRunError, bundle, compile_program, simulated_server
from benchmarks.questions import write_questions
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.start import measure_start
from benchmarks.tables import bundle_summary, publish, surroundings

_STARTS = 5


def run_once(scenario: Scenario, data: Path, scratch: Path) -> dict[str, Any]:
    """Run a scenario on the questions in ``data``, with an empty directory for its files, and return what it took.

    Raises:
        FailedRunError: Not every question was answered.
    """
    with simulated_server(scenario.server) as server:
        usage = bundle(
            *("eval-remote", "simulated", f"--base-url={server.base_url}", f"--task={scenario.task}"),
            *(f"--data={data}", f"--out={scratch}", *scenario.arguments),
            log=scratch / "log",
        )
        counters = server.counters()
    if usage.exit_code != 0:
        log = (scratch / "log").read_text(encoding="utf-8", errors="replace")
        raise FailedRunError(f"{scenario.name} ended with exit code {usage.exit_code}:\n{log[-4000:]}")
    (path,) = scratch.glob("*/results.json")
    results = json.loads(path.read_text(encoding="utf-8"))
    answered = results["coverage"]["answered"]
    if not answered == counters["requests"] == counters["answered"] == scenario.questions:
        raise FailedRunError(
            f"{scenario.name}: {scenario.questions} questions, {answered} answers, {counters['requests']} requests"
        )
    slots = read_parameters(scenario.server).batching.slots
    return {
        **asdict(usage),
        "ask_s": results["timing"]["ask_s"],
        "slots_busy": counters["slot_seconds"] / max(counters["request_phase_s"] * slots, 1e-9),
        "prefix_hits": counters["cached_tokens"] / max(counters["prompt_tokens"], 1),
        "tokens_generated": counters["tokens_generated"],
        "server_cpu_s": counters["cpu_s"],
        "timing": results["timing"],
        "scores": {name: one["accuracy"] for name, one in results["scores"].items()},
        "server": counters,
        "ideal": asdict(ideal(read_parameters(scenario.server), scenario.questions, counters["computed_at_best"])),
    }


def run_scenarios(scenarios: Sequence[Scenario], runs: int, data: Path | None) -> dict[str, Any]:
    """Run each scenario ``runs`` times; one that fails is named and does not keep the others from running."""
    results = surroundings(runs, ("openai", "aiohttp", "uvloop")) | {"scenarios": {}, "not_run": {}}
    with tempfile.TemporaryDirectory(prefix="bundle-bench-") as folder:
        scratch = Path(folder)
        if data is None:
            data = scratch / "questions"
            write_questions(data)
        results["start"] = measure_start(_STARTS, scratch / "start")
        for scenario in scenarios:
            try:
                results["scenarios"][scenario.name] = _measured(scenario, runs, data, scratch)
            except FailedRunError as failure:
                print(failure, file=sys.stderr)
                results["not_run"][scenario.name] = "failed"
    return results


def _measured(scenario: Scenario, runs: int, data: Path, scratch: Path) -> dict[str, Any]:
    found = []
    for number in range(runs):
        folder = scratch / f"{scenario.name}-{number}"
        folder.mkdir()
        found.append(run_once(scenario, data, folder))
        print(f"{scenario.name}: {found[-1]['wall_s']:.2f} s, asking {found[-1]['ask_s']:.2f} s", file=sys.stderr)
    numbers = [name for name, value in found[0].items() if isinstance(value, int | float)]
    return {
        "ideal": found[0]["ideal"],
        "median": {name: statistics.median(one[name] for one in found) for name in numbers},
        "runs": found,
    }


def main() -> None:
    """Parse the command line, measure, write and print."""
    parser = argparse.ArgumentParser(description="Benchmark bundle eval-remote against simulated servers.")
    names = [one.name for one in SCENARIOS]
    parser.add_argument("--only", action="append", choices=names, help="run this scenario; can be repeated")
    parser.add_argument("--runs", type=int, default=3, help="runs per scenario; medians are shown (default: 3)")
    parser.add_argument("--data", type=Path, help="C-Eval in its own layout (default: random questions of its sizes)")
    parser.add_argument("--update-docs", action="store_true", help="write the tables into docs/performance.md")
    arguments = parser.parse_args()
    chosen = [one for one in SCENARIOS if one.name in (arguments.only or names)]
    compile_program()
    results = run_scenarios(chosen, arguments.runs, arguments.data and arguments.data.resolve())
    publish("bundle", results, bundle_summary(results), document=arguments.update_docs)
    sys.exit(1 if results["not_run"] else 0)


if __name__ == "__main__":
    main()
