"""Measure ``bundle eval-remote`` against simulated servers.

    python -m benchmarks.run [--only NAME] [--runs N] [--data DIRECTORY] [--update-docs]

It writes ``benchmarks/results/bundle.json`` and prints its tables; with ``--update-docs`` they go into
``docs/performance.md`` too.
"""

import argparse
import datetime
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine, versions
from benchmarks.measurement import FailedRunError, options, run_once
from benchmarks.parameters import read_parameters
from benchmarks.questions import write_questions
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.start import measure_start
from benchmarks.tables import summary, update_document
from bundle import __version__

RESULTS = Path(__file__).with_name("results")
_STARTS = 5


def run_scenarios(scenarios: Sequence[Scenario], runs: int, data: Path | None) -> dict[str, Any]:
    """Run each scenario this often; what cannot be run is named with the reason."""
    results: dict[str, Any] = {
        "at": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": {"bundle": __version__, **versions(("openai", "aiohttp", "uvloop"))},
        "runs": runs,
        "scenarios": {},
        "not_run": {},
    }
    with tempfile.TemporaryDirectory(prefix="bundle-bench-") as folder:
        scratch = Path(folder)
        if data is None:
            data = scratch / "questions"
            write_questions(data)
        known = options(scratch)  # the first start compiles the program as well, and is not measured
        results["start"] = measure_start(_STARTS, scratch / "start")
        results["help_s"] = results["start"]["help_s"]
        for scenario in scenarios:
            missing = [one for one in scenario.arguments if one.startswith("--") and one not in known]
            if missing:
                results["not_run"][scenario.name] = f"eval-remote has no {missing[0]}"
                continue
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
    slots = read_parameters(scenario.server).batching.slots
    return {
        "description": scenario.description,
        "questions": scenario.questions,
        "ideal": found[0]["ideal"],
        "median": {
            name: statistics.median(one[name] for one in found) for name in ("wall_s", "cpu_s", "peak_mb", "ask_s")
        }
        | {
            "slots_busy": statistics.median(_slots_busy(one["server"], slots) for one in found),
            "prefix_hits": statistics.median(_prefix_hits(one["server"]) for one in found),
            "tokens_generated": statistics.median(one["server"]["tokens_generated"] for one in found),
            "server_cpu_s": statistics.median(one["server"]["cpu_s"] for one in found),
        },
        "runs": found,
    }


def _slots_busy(server: dict[str, Any], slots: int) -> float:
    """Share of the slots that was taken, over the request phase."""
    return float(server["slot_seconds"] / max(server["request_phase_s"] * slots, 1e-9))


def _prefix_hits(server: dict[str, Any]) -> float:
    """Share of the prompts' tokens that were found in the prefix cache."""
    return float(server["cached_tokens"] / max(server["prompt_tokens"], 1))


def main() -> None:
    """Parse the command line, measure, write and print."""
    parser = argparse.ArgumentParser(description="Measure bundle eval-remote against simulated servers.")
    names = [one.name for one in SCENARIOS]
    parser.add_argument("--only", action="append", choices=names, help="a scenario; can be repeated")
    parser.add_argument("--runs", type=int, default=3, help="how often each is run; medians are shown")
    parser.add_argument("--data", type=Path, help="C-Eval in its own layout; by default random questions of its sizes")
    parser.add_argument("--update-docs", action="store_true", help="write the tables into docs/performance.md")
    arguments = parser.parse_args()
    chosen = [one for one in SCENARIOS if one.name in (arguments.only or names)]
    results = run_scenarios(chosen, arguments.runs, arguments.data and arguments.data.resolve())
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "bundle.json").write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    text = summary(results)
    print(text)
    if arguments.update_docs:
        update_document("bundle", text)
    sys.exit(1 if "failed" in results["not_run"].values() else 0)


if __name__ == "__main__":
    main()
