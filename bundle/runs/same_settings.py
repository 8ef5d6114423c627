"""Whether a run that is resumed is asked as it was before."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from bundle.errors import RunError
from bundle.runs.record import RunRecord, SamplingRecord, Served
from bundle.runs.task_record import TaskRecord

_INCIDENTAL: Final = re.compile(
    r"model\.path|engine\.(version|gpus)|tasks\[\d+\]\.(available|unlike_published.*|sample_data)"
)
"""What may differ: a checkpoint may have been moved, its engine upgraded, and other GPUs be free; the last follow from
the data, and older records lack it."""

_LATER: Final = re.compile(r"tasks\[\d+\]\.data_fingerprint|sampling\.(extra_body.*|prompt_date)")
"""What is not known before the questions are loaded and the server is started."""

_PROVED: Final = re.compile(r"sampling\.(extra_body\.stop(_token_ids)?|prompt_date)")
"""What the proof of the tokenizer finds out, without which a run ends that has nothing left to ask."""

_NAMED: Final = {
    "sampling.extra_body.": "request field",
    "model.headers.": "header",
    "engine.file_environment.": "model file, variable",
}
"""What are named by their user."""

_OPTIONS: Final[Mapping[str, tuple[str, str]]] = {
    "name": ("--task", "none"),
    "subjects": ("--subjects", "all"),
    "limit": ("--limit", "all"),
    "sample": ("--quick, questions per subject", "all"),
    "shape": ("--prompt-shape", ""),
    "data_fingerprint": ("--data, fingerprint", ""),
    "model.name": ("model", ""),
    "model.base_url": ("--base-url", "none"),
    "model.fingerprint": ("checkpoint, fingerprint", "none"),
    "engine.name": ("--engine", "none"),
    "engine.arguments": ("arguments after --", "none"),
    "engine.file_arguments": ("model file, engine's args", "none"),
    "sampling.temperature": ("--temperature", ""),
    "sampling.max_out_len": ("--max-out-len", ""),
    "sampling.max_seq_len": ("--max-seq-len", "no limit"),
    "sampling.thinking": ("model file, thinking", "none"),
    "sampling.prompt_date": ("date in the chat template's prompts", "none"),
    "context.max_tokens": ("context length", "no limit"),
    "context.set_by": ("context length set by", "nothing"),
    "context.counted_with": ("tokens counted with", "nothing"),
}
"""What people call a setting, and its absence."""


def require_same(then: RunRecord, now: RunRecord, *, asks: bool = True) -> None:
    """Refuse to resume a run with other settings; ``asks`` is whether it has anything left to ask.

    Raises RunError if task, data, model or sampling differ; the message says which.
    """
    parts = {"tasks", "sampling", "model", "engine"} | ({"context"} if then.context else set())  # older have none
    _require_equal(then, now.model_dump(include=parts), _INCIDENTAL if asks else _either(_INCIDENTAL, _PROVED))


def require_same_plan(
    then: RunRecord, tasks: Sequence[TaskRecord], sampling: SamplingRecord, served: Served | None = None
) -> None:
    """The same, of what is known before anything is started; ``served`` is None where the model is not known yet."""
    now: dict[str, Any] = {"tasks": [one.model_dump() for one in tasks], "sampling": sampling.model_dump()}
    if served is not None:
        now |= {"model": served.model.model_dump(), "engine": served.engine and served.engine.model_dump()}
    _require_equal(then, now, _either(_INCIDENTAL, _LATER))


def leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings, also of those in lists, by their paths ("tasks[0].limit")."""
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from leaves(inner, f"{prefix}{key}.")
        elif isinstance(inner, list | tuple) and inner and isinstance(inner[0], Mapping):
            for number, one in enumerate(inner):
                yield from leaves(one, f"{prefix}{key}[{number}].")
        else:
            yield f"{prefix}{key}", inner


def _either(one: re.Pattern[str], other: re.Pattern[str]) -> re.Pattern[str]:
    return re.compile(f"{one.pattern}|{other.pattern}")


def _require_equal(then: RunRecord, now: Mapping[str, Any], free: re.Pattern[str]) -> None:
    before, after = (dict(leaves(content)) for content in (then.model_dump(include=set(now)), now))
    keys = sorted(key for key in before.keys() | after.keys() if not free.fullmatch(key))
    differing = {key: _words(key, then) for key in keys if before.get(key) != after.get(key)}
    if differing:
        names = list(dict.fromkeys(name for name, _ in differing.values()))
        raise RunError(
            f"Cannot resume: settings differ from the original run ({', '.join(names[:3])}).",
            remedy="Use the original options, or start a new run without --resume.",
            details=[
                f"{name}: {short(before.get(key), absent)} then, {short(after.get(key), absent)} now"
                for key, (name, absent) in differing.items()
            ],
        )


def _words(key: str, then: RunRecord) -> tuple[str, str]:
    """What people call a setting, with the task it belongs to where there are several, and its absence."""
    match = re.fullmatch(r"tasks\[(\d+)\]\.(.+)", key)
    if match is None:
        for prefix, kind in _NAMED.items():
            if key.startswith(prefix):
                return f"{kind} {key.removeprefix(prefix)}", "none"
        return _OPTIONS.get(key, (key.replace("_", " ").replace(".", " "), "none"))
    number, own = int(match[1]), match[2]
    name, absent = _OPTIONS.get(own, (f"the task's {own.replace('_', ' ').replace('.', ' ')}", "none"))
    several = len(then.tasks) > 1 and number < len(then.tasks) and own != "name"
    return f"{name} of {then.tasks[number].name}" if several else name, absent


def short(value: object, absent: str, longest: int = 60) -> str:
    """A setting's value for a line of text; ``absent`` where there is none, "" for as it is."""
    if not value and absent and not isinstance(value, int | float):
        return absent
    if isinstance(value, list | tuple):
        value = (" " if str(value[0]).startswith("-") else ", ").join(map(str, value))
    text = str(value).replace("\n", "⏎")
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
