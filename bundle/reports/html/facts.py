"""The rest of the page: replies, time and settings."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bundle.runs.recorded_run import RecordedRun

QUANTILES: Final = {"minimum": 0.0, "p5": 0.05, "median": 0.5, "p95": 0.95, "p99": 0.99, "maximum": 1.0}

PHASES: Final = ("start_s", "load_s", "prove_s", "ask_s", "stop_s")

_SHOWN_ELSEWHERE: Final = frozenset({"subject_names", "groups", "description"})


@dataclass(frozen=True, slots=True)
class Distribution:
    """The distribution of a number over the replies.

    Attributes:
        n: How many numbers, at least one.
        values: The quantiles named in `QUANTILES`.
    """

    n: int
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Facts:
    """Counts over the replies of a run.

    Attributes:
        latency: Seconds per reply; None without replies.
        tokens: Completion tokens per reply as counted by the server; None where it counted none.
        characters: Characters per reply.
        prompt_tokens: Total over all questions.
        completion_tokens: Likewise.
        finish_reasons: Replies by finish reason.
        decided_early: Replies stopped early because their answer was final.
        asked_again: Questions asked more than once.
    """

    latency: Distribution | None
    tokens: Distribution | None
    characters: Distribution | None
    prompt_tokens: int
    completion_tokens: int
    finish_reasons: Mapping[str, int]
    decided_early: int
    asked_again: int


def facts(run: RecordedRun) -> Facts:
    """Count over the replies."""
    replies = [one for one in run.predictions if one.error is None]
    reasons = Counter(one.finish_reason for one in replies if one.finish_reason is not None)
    return Facts(
        latency=distribution([one.latency_s for one in replies]),
        tokens=distribution([one.completion_tokens for one in replies if one.completion_tokens is not None]),
        characters=distribution([len(one.reply or "") for one in replies]),
        prompt_tokens=sum(one.prompt_tokens or 0 for one in run.predictions),
        completion_tokens=sum(one.completion_tokens or 0 for one in run.predictions),
        finish_reasons=dict(reasons.most_common()),
        decided_early=sum(one.decided_early for one in replies),
        asked_again=sum(one.attempts > 1 for one in run.predictions),
    )


def distribution(numbers: Sequence[float]) -> Distribution | None:
    """The quantiles of some numbers by nearest rank; None without numbers."""
    if not numbers:
        return None
    ranked = sorted(numbers)
    values = {name: ranked[max(0, -(-int(share * 100) * len(ranked) // 100) - 1)] for name, share in QUANTILES.items()}
    return Distribution(len(ranked), values)


def settings(record: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A run's record as titled lists of names and values, without what other parts of the page show."""
    loose = [(name, _shown(value)) for name, value in record.items() if not isinstance(value, Mapping | tuple)]
    if loose:
        yield "run", loose
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield name, list(_leaves(value, ""))
        elif isinstance(value, tuple):
            for number, one in enumerate(value, 1):
                title = name if len(value) == 1 else f"{name} {number}"
                yield title, list(_leaves(one, "")) if isinstance(one, Mapping) else [(name, _shown(one))]


def _leaves(value: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for name, inner in value.items():
        if name in _SHOWN_ELSEWHERE:
            continue
        if isinstance(inner, Mapping):
            yield from _leaves(inner, f"{path}{name}.")
        else:
            yield f"{path}{name}", _shown(inner)


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    return str(value)
