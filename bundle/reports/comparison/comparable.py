"""Whether two runs asked the same, so that a difference between them comes from the models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bundle.errors import RunError
from bundle.runs.record import RunRecord
from bundle.runs.same_settings import leaves
from bundle.runs.task_record import TaskRecord

_PROMPT = ("user", "assistant", "examples", "place_for_examples", "example_split", "shape")
_SAME: Sequence[tuple[str, tuple[str, ...]]] = (
    ("different benchmarks", ("benchmark",)),
    ("different splits", ("splits",)),
    ("different prompts", _PROMPT),
    ("different answer rules", ("answer",)),
)
_PARTS: Sequence[tuple[str, tuple[str, ...]]] = (
    ("different subjects", ("subjects",)),
    ("different numbers of questions per subject", ("limit", "first", "sample")),
)
"""What may differ where only the common questions are compared."""

_SHOWN = ("model", "engine", "sampling")
_ONLY_HERE = frozenset({"model.path", "model.base_url", "model.weight_bytes"})


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting in which two comparable runs differ, such as the temperature."""

    name: str
    base: Any
    new: Any


def require_comparable(base: RunRecord, new: RunRecord, *, common: bool = False) -> bool:
    """Refuse to compare runs that did not ask the same.

    The model, its server and how replies are sampled may differ: that is what is compared. So may a task's description.

    Args:
        base: The record of a run.
        new: That of another.
        common: Whether the common questions are enough, where tasks, subjects or their number of questions differ.

    Returns:
        Whether they have all their questions in common.

    Raises:
        RunError: They cannot be compared; the message says why.
    """
    return _require_comparable(base.tasks, new.tasks, f": {base.data.origin} and {new.data.origin}", common=common)


def require_comparable_tasks(base: RunRecord, planned: Sequence[TaskRecord]) -> None:
    """Refuse to compare a run with one that is planned; its data is not considered where it is not loaded yet.

    Raises:
        RunError: They cannot be compared; the message says why.
    """
    _require_comparable(base.tasks, planned, "", common=False)


def differing_settings(base: RunRecord, new: RunRecord) -> tuple[Setting, ...]:
    """The settings of two comparable runs that differ and can matter: model, engine and sampling."""
    before, now = (
        dict(leaves({key: value for key, value in record.to_json().items() if key in _SHOWN})) for record in (base, new)
    )
    names = [name for name in (before | now) if name not in _ONLY_HERE]
    return tuple(Setting(name, before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name))


def _require_comparable(base: Sequence[TaskRecord], new: Sequence[TaskRecord], origins: str, *, common: bool) -> bool:
    before, now = ({task.name: _comparable(task) for task in tasks} for tasks in (base, new))
    shared = [name for name in before if name in now]
    reasons: list[str] = []
    parts: list[str] = []
    if before.keys() != now.keys():
        (parts if shared else reasons).append(f"different tasks: {', '.join(before)} and {', '.join(now)}")
    for name in shared:
        one, other = before[name], now[name]
        where = "" if len(shared) == 1 else f" in {name}"
        reasons += _differences(_SAME, one, other, where)
        parts += _differences(_PARTS, one, other, where)
        if _other_data(one, other):
            reasons.append(f"different questions{where}{origins}")
    if reasons or (parts and not common):
        first, *others = [*reasons, *parts]
        raise RunError(
            f"The runs cannot be compared: they used {first}.",
            details=[f"also {other}" for other in others],
            remedy="Start a run with the same task, data and prompt as the other."
            if reasons
            else "Use --common to compare only the questions they have in common.",
        )
    return not parts


def _comparable(task: TaskRecord) -> dict[str, Any]:
    # The order in which subjects were named does not matter.
    return {**task.model_dump(), "subjects": None if task.subjects is None else sorted(task.subjects)}


def _differences(
    kinds: Sequence[tuple[str, tuple[str, ...]]], one: Mapping[str, Any], other: Mapping[str, Any], where: str
) -> list[str]:
    found = []
    for what, keys in kinds:
        if key := next((key for key in keys if one[key] != other[key]), None):
            found.append(f"{what}{where}: {key} {_short(one[key])} and {_short(other[key])}")
    return found


def _other_data(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    # Other subjects make for another fingerprint; their questions are then compared one by one.
    fingerprints = one["data_fingerprint"], other["data_fingerprint"]
    return one["subjects"] == other["subjects"] and None not in fingerprints and fingerprints[0] != fingerprints[1]


def _short(value: Any) -> str:
    if value is None:
        return "all"
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    text = text.replace("\n", "⏎")
    return text if len(text) <= 100 else f"{text[:99]}…"
