"""How a run was made, in words: one line for the page's title, all of it further down, and the record as it is."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bundle.reports.texts import ENGLISH, catalog
from bundle.runs.record import EngineRecord, LocalModelRecord, RunRecord
from bundle.runs.same_settings import leaves
from bundle.runs.task_record import TaskRecord
from bundle.system.text import size

Phrase = tuple[str, dict[str, object]] | str
"""A text's key with its values, or a name that is the same in every language."""

Line = list[Phrase]

_SHOWN_ELSEWHERE: Final = frozenset({"subject_names", "groups", "description"})
_NOT_SHOWN: Final = frozenset({"command"})
"""What is full of paths, for a page that is passed on."""
_PATH: Final = re.compile(r"(?<![\w:/.])~?/(?:[^/\0\n,;]+/)+(?=[^/\s])")
"""The directories of an absolute path; no part of a URL."""
_LIKELIEST: Final = "likeliest"


def source_of(record: RunRecord) -> str:
    """Where the data is from; of a path its last part."""
    return ", ".join(Path(one).name or one for one in record.data.source.split(","))


def in_short(record: RunRecord) -> Line:
    """What decides a score, in a few words each."""
    shots = sorted({task.examples for task in record.tasks})
    line: Line = [("how.shots", {"n": "/".join(map(str, shots))})]
    line += [(f"how.{shape}", {}) for shape in dict.fromkeys(task.shape for task in record.tasks)]
    line.append(_temperature(record))
    return line + (_engine(record.engine) if record.engine is not None else [])


def in_words(record: RunRecord) -> Iterator[tuple[str, list[Line]]]:
    """Everything that was set: the keys of titles, each with its lines."""
    data, asked = record.data, [task for task in record.tasks if task.answer.get("rule") != _LIKELIEST]
    yield "set.data", [[*map(_origin, data.origin.split("; ")), ("set.fingerprint", {"print": data.fingerprint[:12]})]]
    yield "set.prompt", _by_task(record.tasks, _prompt)
    if asked:
        yield "set.generation", _generation(record, asked)
        yield "set.reading", [_reading(record)]
    yield "set.answer", _by_task(record.tasks, _answer)
    yield "set.model", [_model(record)]
    if (engine := record.engine) is not None:
        arguments = without_paths(" ".join((*engine.file_arguments, *engine.arguments)))
        servers = _if_set("set.servers", n=record.replicas)
        yield (
            "set.engine",
            [[*_engine(engine), *filter(None, [engine.backend, engine.dtype]), *servers, *filter(None, [arguments])]],
        )
    if (template := record.template) is not None:
        says = {True: "set.template_equal", False: "set.template_differs", None: "set.template_unknown"}[template.equal]
        dated = _if_set("set.prompt_date", date=record.sampling.prompt_date)
        yield "set.template", [[(says, {"n": template.checked}), *filter(None, [template.note]), *dated]]
    if (context := record.context) is not None:
        counted = _if_set("set.counted", by=without_paths(context.counted_with or ""))
        key = "set.most_tokens_file" if context.set_by == "model file" else "set.most_tokens"
        yield "set.context", [[(key, {"n": f"{context.max_tokens:,}", "by": context.set_by}), *counted]]
    yield "set.requests", [_requests(record)]
    machine = record.hardware
    yield "set.machine", [[machine.system, machine.processor, *_if_set("set.cores", n=machine.cores)]]
    yield "set.versions", [[f"{name} {version}" for name, version in record.versions.items()]]


def as_recorded(record: RunRecord) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The record as titled lists of names and values, without what other parts of the page show."""
    content = record.to_json()
    loose = [(name, _shown(value)) for name, value in content.items() if not isinstance(value, Mapping | tuple)]
    if loose:
        yield "run", loose
    for name, value in content.items():
        if name in _NOT_SHOWN:
            continue
        if isinstance(value, Mapping):
            yield name, list(_leaves(value))
        elif isinstance(value, tuple):
            for number, one in enumerate(value, 1):
                title = name if len(value) == 1 else f"{name} {number}"
                yield title, list(_leaves(one)) if isinstance(one, Mapping) else [(name, _shown(one))]


def without_paths(text: str) -> str:
    """A text without the directories of the paths in it."""
    return _PATH.sub("…/", text)


def _origin(text: str) -> Phrase:
    """Where questions came from, as `bundle.tasks.sources` words it."""
    for kind in ("directory", "zip file"):
        if text.startswith(f"{kind} "):
            return f"set.{kind}", {"path": without_paths(text.removeprefix(f"{kind} "))}
    return ("set.sample", {}) if text == ENGLISH("set.sample") else text


def _by_task(tasks: Sequence[TaskRecord], line: Callable[[TaskRecord], Line]) -> list[Line]:
    """A line for every task, under its name; one for all where they are the same."""
    lines = {task.name: line(task) for task in tasks}
    if all(one == lines[tasks[0].name] for one in lines.values()):
        return [lines[tasks[0].name]]
    return [[name, *one] for name, one in lines.items()]


def _prompt(task: TaskRecord) -> Line:
    shape = "flat" if task.shape == "turns" and not task.examples else task.shape
    return [("how.shots", {"n": task.examples}), (f"set.{shape}", {})]


def _answer(task: TaskRecord) -> Line:
    rule = str(task.answer.get("rule"))
    said: Line = [(f"rule.{rule}", {})] if f"rule.{rule}" in catalog() else []
    settings = [f"{name} = {_shown(value)}" for name, value in task.answer.items() if name != "rule" and value]
    return [*said, rule, *settings]


def _generation(record: RunRecord, tasks: Sequence[TaskRecord]) -> list[Line]:
    most, how = record.sampling.max_out_len, _temperature(record)
    fields = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in record.sampling.extra_body.items()]
    further = _if_set("set.fields", fields=", ".join(fields))

    def line(task: TaskRecord) -> Line:
        tokens = most if isinstance(most, int) else most.get(task.name)
        return [how, *_if_set("set.most_new", n=tokens and f"{tokens:,}"), *further]

    return _by_task(tasks, line)


def _temperature(record: RunRecord) -> Phrase:
    temperature = record.sampling.temperature
    return ("how.temperature", {"t": f"{temperature:g}"}) if temperature else ("how.greedy", {})


def _reading(record: RunRecord) -> Line:
    line: Line = [("set.whole" if record.full_replies else "set.early", {})]
    if (marks := record.sampling.thinking) is not None:
        line.append(("set.thinking", {"begin": marks[0], "end": marks[1]}))
    return line


def _model(record: RunRecord) -> Line:
    model = record.model
    if not isinstance(model, LocalModelRecord):
        return [model.name, model.base_url]
    line: Line = [model.name, model.architecture, ("set.weights", {"n": size(model.weight_bytes)})]
    adapter = _if_set("set.adapter", base=model.adapter and Path(model.path).name)
    return [
        *line,
        *filter(None, [model.quantization]),
        *adapter,
        ("set.fingerprint", {"print": model.fingerprint[:12]}),
    ]


def _engine(engine: EngineRecord) -> Line:
    gpus = [name if n == 1 else f"{n} × {name}" for name, n in Counter(engine.gpus).items()]
    return [f"{engine.name} {engine.version}".strip(), *gpus]


def _requests(record: RunRecord) -> Line:
    line: Line = [("set.at_most" if record.adaptive else "set.at_once", {"n": record.concurrency})]
    line += [("set.prefix_order", {})] if record.prefix_order else []
    if (requests := record.requests) is not None:
        line += _if_set("set.qps", n=requests.qps and f"{requests.qps:g}")
        line += [("set.retries", {"n": requests.retries}), ("set.timeout", {"n": f"{requests.timeout_s:g}"})]
    return line


def _if_set(key: str, **value: object) -> Line:
    return [(key, value)] if all(value.values()) else []


def _leaves(value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    shown = {name: inner for name, inner in value.items() if name not in _SHOWN_ELSEWHERE}
    return ((path, _shown(inner)) for path, inner in leaves(shown))


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    return without_paths(str(value))
