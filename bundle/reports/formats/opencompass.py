"""OpenCompass's working directory: ``predictions/MODEL/``, ``results/MODEL/`` and ``summary/``.

Layout, names, keys and indentation are those of version 0.3.3 (``tasks/openicl_infer.py``, ``tasks/openicl_eval.py``,
``openicl/icl_inferencer/icl_base_inferencer.py``, ``summarizers/default.py``), so that its summarizer reads the
directory and its evaluation finds nothing left to do.

OpenCompass cannot express that a question has no reply: an empty one counts as wrong there. So such a question is left
out of the predictions, and its subject has an error in place of its accuracy. The summarizer shows a dash for it and
for every group it belongs to. Subjects with secret answers have predictions only.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len

from bundle.errors import RunError
from bundle.reports.formats import Export, file_name, unanswered
from bundle.runs.files import to_json
from bundle.runs.predictions import Prediction
from bundle.runs.prompts import Messages
from bundle.runs.recorded_run import RecordedRun
from bundle.runs.task_record import TaskRecord
from bundle.tasks.scores import Part, ScoredTask

_ROLES = {"user": "HUMAN", "assistant": "BOT", "system": "SYSTEM"}
_INDENT = 4


Result = Mapping[str, Any] | None
"""The content of a subject's file in ``results/``; None where there is none."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """One subject. ``version`` is the beginning of the prompt's hash, or "-"."""

    name: str
    version: str
    result: Result

    @property
    def accuracy(self) -> float | None:
        """Percent right; None where there is none."""
        return None if self.result is None else self.result.get("accuracy")


Groups = Mapping[str, Sequence[str]]
"""What OpenCompass calls summary groups, by name: plain means over these data sets, if all of them have a score."""


def export(run: RecordedRun, language: str | None = None) -> Export:
    """The run as OpenCompass would have left it.

    Where tasks of the run share score names, as ``ceval_gen`` and ``ceval_zero_shot_gen`` do, each has its own working
    directory, named after it. Raises RunError if two subjects would have the same file, or a task asked for no replies.
    """
    for task in run.record.tasks:
        if task.answer["rule"] == "likeliest":
            raise RunError(
                f"{task.name} is scored by perplexity, which this export does not support.",
                remedy="They are in predictions.jsonl.",
            )
    answered: dict[Part, list[Prediction]] = {part: [] for part in run.questions}
    for one in run.predictions:
        if one.error is None:
            answered[one.part].append(one)
    shared = any(own != name for task in run.tasks for own, name in run.score_names(task).items())
    works = [(f"{file_name(task.name)}/", (task,)) for task in run.record.tasks] if shared else [("", run.record.tasks)]
    model, stamp = file_name(run.model), run.began.strftime("%Y%m%d_%H%M%S")
    files: dict[str, str] = {}
    obsolete: list[str] = []
    results: list[Result] = []
    for place, tasks in works:
        datasets: list[Dataset] = []
        for task, part in ((task, part) for task in tasks for part in run.questions if part[0] == task.name):
            dataset = _dataset(task, part, run.questions[part], answered[part])
            datasets.append(dataset)
            predictions, result = (f"{place}{kind}/{model}/{dataset.name}.json" for kind in ("predictions", "results"))
            if answered[part]:
                files[predictions] = to_json(_rows(run, task, answered[part]), indent=_INDENT)
            else:
                obsolete.append(predictions)
            if dataset.result is not None:
                files[result] = to_json(dataset.result, indent=_INDENT)
        _require_own_names(datasets)
        groups = {name: members for task in tasks for name, members in _groups(task.scored)}
        files[f"{place}summary/summary_{stamp}.txt"] = summary_txt(datasets, groups, model, stamp)
        files[f"{place}summary/summary_{stamp}.csv"] = summary_csv(datasets, groups, model)
        results += (dataset.result for dataset in datasets)
    return Export(files, tuple(_remarks(run, results)), tuple(obsolete))


def _dataset(task: TaskRecord, part: Part, n: int, answered: Sequence[Prediction]) -> Dataset:
    _, split, subject = part
    result: Result
    if split in task.secret_splits:
        result = None
    elif len(answered) < n:
        result = {"error": unanswered(n - len(answered), n)}
    else:
        result = {"accuracy": 100 * (sum(one.correct is True for one in answered) / n)}
    name = file_name(task.scored.score_name(split, subject))
    return Dataset(name, prompt_version(task, task.subject_names[subject].chinese), result)


def _groups(task: ScoredTask) -> Iterator[tuple[str, list[str]]]:
    """In OpenCompass's order: the group of all subjects after the others of its split."""
    for split, prefix in task.splits.items():
        names = [name for name, members in task.groups.items() if members and members[0][0] == split]
        for name in sorted(names, key=lambda name: name == prefix):
            yield file_name(name), [file_name(task.score_name(*member)) for member in task.groups[name]]


def _rows(run: RecordedRun, task: TaskRecord, predictions: Iterable[Prediction]) -> dict[str, dict[str, Any]]:
    """A subject's predictions by row number, as ``GenInferencerOutputHandler.save_results`` has them."""
    rows: dict[str, dict[str, Any]] = {}
    for one in predictions:
        prompt = _origin_prompt(run.prompts[one.key].conversation, task.shape)
        row = rows[str(one.id)] = {"origin_prompt": prompt, "prediction": one.reply}
        if one.gold:
            row["gold"] = one.gold
    return rows


def _origin_prompt(messages: Messages, shape: str) -> Any:
    """Turns with OpenCompass's names for the roles, or the text alone where everything was in one message."""
    if shape in ("flat", "plain") and len(messages) == 1:
        return messages[0]["content"]
    return [{"role": _ROLES.get(one["role"], one["role"]), "prompt": one["content"]} for one in messages]


def _require_own_names(datasets: Sequence[Dataset]) -> None:
    names = [dataset.name for dataset in datasets]
    if twice := {name for name in names if names.count(name) > 1}:
        raise RunError(
            f"Two subjects would both be written to {min(twice)}.json.",
            remedy="OpenCompass's format names files after subjects; choose names that differ in letters or digits.",
        )


def _remarks(run: RecordedRun, results: Sequence[Result]) -> Iterator[str]:
    if lacking := sum(one is not None and "error" in one for one in results):
        yield (
            f"{unanswered(run.total - run.answered, run.total)}: OpenCompass's format cannot express that, so "
            f"{lacking} of {len(results)} subjects and their groups have no accuracy in it"
        )
    if secret := results.count(None):
        yield f"{secret} of {len(results)} subjects have secret answers: only their predictions are written"


_HEADERS = ("dataset", "version", "metric", "mode")
_DIVIDER = f"{'-' * 128} THIS IS A DIVIDER {'-' * 128}"
_PADDING = 2  # tabulate.MIN_PADDING: what a column is wider than its header


def summary_csv(datasets: Sequence[Dataset], groups: Groups, model: str) -> str:
    return "".join(f"{','.join(row)}\n" for row in _table(datasets, groups, model))


def summary_txt(datasets: Sequence[Dataset], groups: Groups, model: str, stamp: str) -> str:
    """The table twice, aligned and separated by commas, and after it what it was made of."""
    raw = {one.name: one.result for one in datasets if one.result is not None} | dict(_group_results(datasets, groups))
    parts = {
        "tabulate": _aligned(_table(datasets, groups, model)),
        "csv": summary_csv(datasets, groups, model).removesuffix("\n"),
        "raw": "\n".join(["-" * 31, f"Model: {model}", *(f"{name}: {result}" for name, result in raw.items())]),
    }
    sections = (f"{name} format\n{'^' * 128}\n{text}\n{'$' * 128}\n" for name, text in parts.items())
    return f"{stamp}\n" + f"\n{_DIVIDER}\n\n".join(sections)


def _table(datasets: Sequence[Dataset], groups: Groups, model: str) -> list[list[str]]:
    rows = [[*_HEADERS, model]]
    for one in datasets:
        accuracy = one.accuracy
        scored = [one.version, "accuracy", "gen", f"{accuracy:.2f}"] if accuracy is not None else ["-"] * 4
        rows.append([one.name, *scored])
    for name, result in _group_results(datasets, groups):
        if "naive_average" in result:
            rows.append([name, "-", "naive_average", "gen", f"{result['naive_average']:.2f}"])
    return rows


def _group_results(datasets: Sequence[Dataset], groups: Groups) -> Iterator[tuple[str, dict[str, Any]]]:
    """A group of which nothing is there is not named; one of which something is missing says what."""
    known = {one.name: one.accuracy for one in datasets if one.accuracy is not None}
    for group, members in groups.items():
        values = [known[name] for name in members if name in known]
        if missing := [name for name in members if name not in known]:
            if values:
                yield group, {"error": f"missing metrics: {missing}"}
        else:
            yield group, {"naive_average": sum(values) / len(values)}


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """As tabulate's format "simple": text to the left, a column of nothing but numbers to the right."""
    columns = []
    for place, (header, *cells) in enumerate(zip(*rows, strict=True)):
        width = max(cell_len(header) + _PADDING, *map(cell_len, cells))
        numeric = place == len(_HEADERS) and "-" not in cells
        padded = ((text, " " * (width - cell_len(text))) for text in (header, "-" * width, *cells))
        columns.append([padding + text if numeric else text + padding for text, padding in padded])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


_LENGTH = 6
_OPENICL = "opencompass.openicl"
_EXAMPLES_HERE = "</E>"


def prompt_version(task: TaskRecord, subject: str) -> str:
    """The version of a subject's prompt: six hexadecimal digits."""
    user, assistant = (text.replace("{subject}", subject) for text in (task.user, task.assistant))
    examples, place = task.examples, task.place_for_examples
    turns = [{"role": "HUMAN", "prompt": user}]
    if place or assistant != "{answer}":  # which adds nothing to a prompt without examples, and is left out there
        turns.append({"role": "BOT", "prompt": assistant})
    template: dict[str, Any] = {"type": f"{_OPENICL}.icl_prompt_template.PromptTemplate", "template": {"round": turns}}
    if place:
        template |= {"template": {"begin": _EXAMPLES_HERE, "round": turns}, "ice_token": _EXAMPLES_HERE}
    inferencer: dict[str, Any] = {"type": f"{_OPENICL}.icl_inferencer.GenInferencer"}
    if task.max_out_len is not None:
        inferencer["max_out_len"] = task.max_out_len
    if examples:
        inferencer["fix_id_list"] = list(range(examples))
    retriever = "FixKRetriever" if examples else "ZeroRetriever"
    infer_cfg = {
        "ice_template" if place else "prompt_template": template,
        "retriever": {"type": f"{_OPENICL}.icl_retriever.{retriever}"},
        "inferencer": inferencer,
    }
    return hashlib.sha256(json.dumps(infer_cfg, sort_keys=True).encode()).hexdigest()[:_LENGTH]
