"""Whether two runs were asked the same, so that a difference between them is the models'."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bundle.errors import RunError

_PROMPT = ("user", "assistant", "examples", "place_for_examples", "example_split", "shape")
_SAME: Sequence[tuple[str, tuple[str, ...]]] = (
    ("another benchmark", ("benchmark",)),
    ("other splits", ("splits",)),
    ("another prompt", _PROMPT),
    ("another rule for what counts as the answer", ("answer",)),
)
_PARTS: Sequence[tuple[str, tuple[str, ...]]] = (
    ("other subjects", ("subjects",)),
    ("another number of questions a subject", ("limit", "first")),
)
"""What may differ where only the questions in common are compared."""

_TOLD = ("model", "engine", "sampling")
_ONLY_HERE = frozenset({"model.path", "model.base_url", "model.weight_bytes"})


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting in which two comparable runs differ, such as the temperature."""

    name: str
    base: Any
    new: Any


def require_comparable(base: Mapping[str, Any], new: Mapping[str, Any], *, common: bool = False) -> bool:
    """Refuse to compare runs that were not asked the same.

    The model, its server and how replies are sampled may differ: that is what is compared. A description may, too.

    Args:
        base: A run's record.
        new: Another's; ``data_fingerprint`` may be missing where the data is not yet loaded.
        common: Whether the questions in common are enough, where subjects, their number of questions or the tasks
            differ. Subjects that differ make for another fingerprint of the data, which then tells nothing.

    Returns:
        Whether they have all their questions in common.

    Raises:
        RunError: They cannot be compared; it says why.
    """
    before, now = _tasks(base), _tasks(new)
    shared = [name for name in before if name in now]
    reasons: list[str] = []
    parts: list[str] = []
    if before.keys() != now.keys():
        (parts if shared else reasons).append(f"another task: {', '.join(before)} and {', '.join(now)}")
    for name in shared:
        one, other = before[name], now[name]
        where = "" if len(shared) == 1 else f" of {name}"
        reasons += [f"{what}{where}: {_both(one, other, keys)}" for what, keys in _SAME if _differ(one, other, keys)]
        parts += [f"{what}{where}: {_both(one, other, keys)}" for what, keys in _PARTS if _differ(one, other, keys)]
        if _other_data(one, other):
            reasons.append(f"other data{where}: {_origin(base)} and {_origin(new)}, whose questions are not the same")
    if reasons or (parts and not common):
        raise RunError(
            f"The runs cannot be compared: they were asked {(reasons or parts)[0].split(':')[0]}.",
            details=[*reasons, *parts],
            remedy="Make a run that is asked the same as the other."
            if reasons
            else "Give --common to compare the questions that both were asked.",
        )
    return not parts


def differing_settings(base: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Setting, ...]:
    """The settings of two comparable runs that differ and can matter: model, server and sampling."""
    before = dict(_leaves({key: base.get(key) for key in _TOLD}))
    now = dict(_leaves({key: new.get(key) for key in _TOLD}))
    names = [name for name in (before | now) if name not in _ONLY_HERE]
    return tuple(Setting(name, before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name))


def _tasks(record: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {str(task.get("name")): {**task, "subjects": _sorted(task.get("subjects"))} for task in record["tasks"]}


def _sorted(names: Any) -> Any:
    return sorted(map(str, names)) if isinstance(names, list) else names


def _differ(one: Mapping[str, Any], other: Mapping[str, Any], keys: Sequence[str]) -> bool:
    return any(one.get(key) != other.get(key) for key in keys)


def _other_data(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if one.get("subjects") != other.get("subjects"):
        return False  # which subjects differ is said; their questions are compared one by one
    fingerprints = one.get("data_fingerprint"), other.get("data_fingerprint")
    return None not in fingerprints and fingerprints[0] != fingerprints[1]


def _both(one: Mapping[str, Any], other: Mapping[str, Any], keys: Sequence[str]) -> str:
    key = next(key for key in keys if one.get(key) != other.get(key))
    return f"{key} {_short(one.get(key))} and {_short(other.get(key))}"


def _short(value: Any) -> str:
    if value is None:
        return "all"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    text = text.replace("\n", "⏎")
    return text if len(text) <= 100 else f"{text[:99]}…"


def _origin(record: Mapping[str, Any]) -> str:
    data = record.get("data")
    return str(data.get("origin") or data.get("source")) if isinstance(data, Mapping) else "unknown"


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _leaves(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner
