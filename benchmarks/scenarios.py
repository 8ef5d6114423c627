"""What is measured of ``bundle eval-remote``, and the targets."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

VALIDATION, ALL = 1346, 13688


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way to run the program.

    Attributes:
        name: As in ``--only``.
        description: One line for people.
        server: Name of the simulated server's parameters.
        questions: How many there are.
        arguments: Further arguments of ``eval-remote``.
    """

    name: str
    description: str
    server: str
    questions: int = VALIDATION
    arguments: Sequence[str] = ()

    @property
    def task(self) -> str:
        """The task that asks that many questions."""
        return "ceval_gen" if self.questions == VALIDATION else "ceval_gen_2daf24"


_FULL, _UNORDERED = ("--full-replies",), ("--no-prefix-order",)
SCENARIOS = (
    Scenario("no_latency", "server that answers at once", "no_latency"),
    Scenario("no_latency_all", "the same, validation and test split", "no_latency", questions=ALL),
    Scenario("small_model", "small model, short replies", "small_model"),
    Scenario("small_model_full", "the same, complete replies", "small_model", arguments=_FULL),
    Scenario("explaining", "model that says the letter and explains it", "explaining"),
    Scenario("explaining_full", "the same, complete replies", "explaining", arguments=_FULL),
    Scenario("explaining_late", "model that explains and then says the letter", "explaining_late"),
    Scenario("prefix_bound", "server whose cost is the prompts", "prefix_bound"),
    Scenario("prefix_bound_unordered", "the same, questions in file order", "prefix_bound", arguments=_UNORDERED),
)


@dataclass(frozen=True, slots=True)
class Target:
    """``metric`` of ``scenario`` below ``limit``, in its own unit or as a multiple of the ideal with whole replies."""

    text: str
    scenario: str
    metric: Literal["wall_s", "cpu_s", "peak_mb", "ask_s"]
    limit: float
    of_ideal: bool = False


TARGETS = (
    Target("1,346 questions at once, whole process: seconds", "no_latency", "wall_s", 5),
    Target("1,346 questions at once, whole process: CPU seconds", "no_latency", "cpu_s", 5),
    Target("1,346 questions at once, whole process: peak MB", "no_latency", "peak_mb", 400),
    Target("13,688 questions at once, whole process: seconds", "no_latency_all", "wall_s", 25),
    Target("13,688 questions at once, whole process: peak MB", "no_latency_all", "peak_mb", 400),
    Target("small model, asking: times the ideal", "small_model", "ask_s", 2.2, of_ideal=True),
    Target("explaining model, asking: times the ideal of whole replies", "explaining", "ask_s", 0.25, of_ideal=True),
)
CPU_MS_PER_QUESTION = 1.2
"""CPU milliseconds per question, beyond what a run costs without any."""
HELP_S, COMMAND_S = 0.3, 0.7
"""Seconds of ``bundle --help``, and of ``bundle eval-local`` until it starts the server."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether a target was reached."""

    text: str
    limit: str
    measured: str
    reached: bool


def outcomes(results: Mapping[str, Any]) -> Iterator[Outcome]:
    """The outcome of every target that was measured."""
    scenarios, start = results["scenarios"], results.get("start", {})
    for target in TARGETS:
        if (measured := scenarios.get(target.scenario)) is not None:
            value = measured["median"][target.metric]
            yield _below(target.text, value / measured["ideal"]["whole_s"] if target.of_ideal else value, target.limit)
    if {"no_latency", "no_latency_all"} <= scenarios.keys():
        text = "CPU milliseconds a question, from 1,346 to 13,688"
        yield _below(text, cpu_ms_per_question(scenarios), CPU_MS_PER_QUESTION)
    if {"explaining", "explaining_full"} <= scenarios.keys():
        scores = [run["scores"] for name in ("explaining", "explaining_full") for run in scenarios[name]["runs"]]
        same = all(one == scores[0] for one in scores)
        yield Outcome("scores with and without early decisions", "equal", "equal" if same else "different", same)
    if start:
        yield _below("`bundle --help`, seconds", start["help_s"], HELP_S)
        yield _below("`bundle eval-local` to the server's start command, seconds", start["command_s"], COMMAND_S)


def _below(text: str, value: float, limit: float) -> Outcome:
    return Outcome(text, f"{limit:g}", f"{value:.3g}", value < limit)


def cpu_ms_per_question(scenarios: Mapping[str, Any]) -> float:
    """What one more question costs the client, in milliseconds of CPU."""
    few, many = (scenarios[name]["median"]["cpu_s"] for name in ("no_latency", "no_latency_all"))
    return float(1000 * (many - few) / (ALL - VALIDATION))
