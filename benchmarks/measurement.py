"""One run of ``bundle eval-remote`` against a simulated server, measured from outside."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.ideal import ideal
from benchmarks.parameters import read_parameters
from benchmarks.processes import Usage, measure, simulated_server
from benchmarks.scenarios import Scenario


class FailedRunError(Exception):
    """A run did not do what it was to do; its log is in the message."""


def run_once(scenario: Scenario, data: Path, scratch: Path) -> dict[str, Any]:
    """Run a scenario, and return what it took.

    Args:
        scenario: What to run.
        data: The questions, in C-Eval's layout.
        scratch: An empty directory.

    Raises:
        FailedRunError: Not every question was answered.
    """
    with simulated_server(scenario.server) as server:
        usage = bundle(
            "eval-remote",
            "simulated",
            f"--base-url={server.base_url}",
            f"--task={scenario.task}",
            f"--data={data}",
            f"--out={scratch}",
            *scenario.arguments,
            log=scratch / "log",
        )
        counters = server.counters()
    log = (scratch / "log").read_text(encoding="utf-8", errors="replace")
    if usage.exit_code != 0:
        raise FailedRunError(f"{scenario.name} ended with exit code {usage.exit_code}:\n{log[-4000:]}")
    (path,) = scratch.glob("*/results.json")
    results = json.loads(path.read_text(encoding="utf-8"))
    answered = results["coverage"]["answered"]
    if not answered == counters["requests"] == scenario.questions:
        raise FailedRunError(
            f"{scenario.name}: {scenario.questions} questions, {answered} answers, {counters['requests']} requests"
        )
    best = ideal(read_parameters(scenario.server), scenario.questions, counters["computed_at_best"])
    return {
        **{name: value for name, value in asdict(usage).items() if name != "exit_code"},
        "ask_s": results["timing"]["ask_s"],
        "timing": results["timing"],
        "scores": {name: one["accuracy"] for name, one in results["scores"].items()},
        "server": counters,
        "ideal": asdict(best),
    }


def bundle(*arguments: str, log: Path) -> Usage:
    """Run ``bundle`` as a user does, with nothing of the network but loopback."""
    return measure([sys.executable, "-m", "bundle", *arguments], log, environment=_environment(os.environ))


def options(scratch: Path) -> str:
    """What ``bundle eval-remote --help`` says."""
    log = scratch / "help"
    measure(
        [sys.executable, "-m", "bundle", "eval-remote", "--help"],
        log,
        environment=_environment(os.environ) | {"COLUMNS": "300", "TERM": "dumb", "NO_COLOR": "1"},
    )
    return log.read_text(encoding="utf-8")


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    return {**environment, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": ""}
