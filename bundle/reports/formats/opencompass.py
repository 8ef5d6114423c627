"""OpenCompass's working directory: ``predictions/MODEL/``, ``results/MODEL/`` and ``summary/``.

Layout, names, keys and indentation are those of version 0.3.3 (``tasks/openicl_infer.py``, ``tasks/openicl_eval.py``,
``openicl/icl_inferencer/icl_base_inferencer.py``, ``summarizers/default.py``), so that its summarizer reads the
directory and its evaluation finds nothing left to do.

OpenCompass cannot express that a question has no reply: an empty one counts as wrong there. So such a question is left
out of the predictions, and its subject has an error in place of its accuracy. The summarizer shows a dash for it and
for every group it belongs to. Subjects with secret answers have predictions only.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from bundle.errors import RunError
from bundle.reports.export import Export, file_name, unanswered
from bundle.reports.formats.opencompass_summary import Dataset, Group, Result, summary_csv, summary_txt
from bundle.reports.formats.prompt_versions import prompt_version
from bundle.runs.files import to_json
from bundle.runs.predictions import Prediction
from bundle.runs.prompts import Messages
from bundle.runs.recorded_run import RecordedRun
from bundle.runs.task_record import TaskRecord
from bundle.tasks.scores import Part, ScoredTask

_ROLES = {"user": "HUMAN", "assistant": "BOT", "system": "SYSTEM"}
_INDENT = 4


def export(run: RecordedRun, language: str | None = None) -> Export:
    """The run as OpenCompass would have left it.

    Where tasks of the run share score names, as ``ceval_gen`` and ``ceval_zero_shot_gen`` do, each has its own working
    directory, named after it.

    Raises:
        RunError: Two subjects would have the same file.
    """
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
        groups = [group for task in tasks for group in _groups(task.scored)]
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


def _groups(task: ScoredTask) -> Iterator[Group]:
    """In OpenCompass's order: the group of all subjects after the others of its split."""
    for split, prefix in task.splits.items():
        names = [name for name, members in task.groups.items() if members and members[0][0] == split]
        for name in sorted(names, key=lambda name: name == prefix):
            members = tuple(file_name(task.score_name(*member)) for member in task.groups[name])
            yield Group(file_name(name), members)


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
