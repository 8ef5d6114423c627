"""What is measured of ``bundle eval-remote``, and what it must reach."""

from collections.abc import Mapping, Sequence
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
        arguments: Arguments of ``eval-remote`` of its own.
        task: The task that asks that many.
    """

    name: str
    description: str
    server: str
    questions: int = VALIDATION
    arguments: Sequence[str] = ()

    @property
    def task(self) -> str:
        return "ceval_gen" if self.questions == VALIDATION else "ceval_gen_2daf24"


SCENARIOS = (
    Scenario("no_latency", "server that answers at once", "no_latency"),
    Scenario("no_latency_all", "the same, validation and test split", "no_latency", questions=ALL),
    Scenario("small_model", "small model, short replies", "small_model"),
    Scenario("small_model_full", "the same, replies read to the end", "small_model", arguments=("--full-replies",)),
    Scenario("explaining", "model that says the letter and explains it", "explaining"),
    Scenario("explaining_full", "the same, replies read to the end", "explaining", arguments=("--full-replies",)),
    Scenario("explaining_late", "model that explains and then says the letter", "explaining_late"),
    Scenario("prefix_bound", "server whose prompts are what costs", "prefix_bound"),
    Scenario(
        "prefix_bound_unordered",
        "the same, questions in the order of the files",
        "prefix_bound",
        arguments=("--no-prefix-order",),
    ),
)


@dataclass(frozen=True, slots=True)
class Target:
    """What must be reached: ``metric`` of ``scenario`` below ``limit``, in its own unit or times the whole ideal."""

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
"""Most milliseconds of CPU a question may cost, in addition to what a run costs without any."""

HELP_S = 0.3
"""Most seconds ``bundle --help`` may take."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether something was reached."""

    text: str
    limit: str
    measured: str
    reached: bool


def outcomes(results: Mapping[str, Any]) -> list[Outcome]:
    """What was reached of all that could be measured.

    Args:
        results: As ``benchmarks.run`` writes them.
    """
    found = []
    scenarios = results["scenarios"]
    for target in TARGETS:
        if (measured := scenarios.get(target.scenario)) is not None:
            value = measured["median"][target.metric]
            value = value / measured["ideal"]["whole_s"] if target.of_ideal else value
            found.append(Outcome(target.text, f"{target.limit:g}", f"{value:.3g}", value < target.limit))
    if {"no_latency", "no_latency_all"} <= scenarios.keys():
        per_question = cpu_ms_per_question(scenarios)
        found.append(
            Outcome(
                "CPU milliseconds a question, from 1,346 to 13,688",
                f"{CPU_MS_PER_QUESTION:g}",
                f"{per_question:.3g}",
                per_question < CPU_MS_PER_QUESTION,
            )
        )
    if {"explaining", "explaining_full"} <= scenarios.keys():
        scores = [run["scores"] for name in ("explaining", "explaining_full") for run in scenarios[name]["runs"]]
        same = all(one == scores[0] for one in scores)
        found.append(Outcome("scores with and without early decisions", "the same", "same" if same else "others", same))
    if (help_s := results.get("help_s")) is not None:
        found.append(Outcome("`bundle --help`, seconds", f"{HELP_S:g}", f"{help_s:.3g}", help_s < HELP_S))
    return found


def cpu_ms_per_question(scenarios: Mapping[str, Any]) -> float:
    """What one more question costs the client, in milliseconds of CPU."""
    few, many = (scenarios[name]["median"]["cpu_s"] for name in ("no_latency", "no_latency_all"))
    return float(1000 * (many - few) / (ALL - VALIDATION))
