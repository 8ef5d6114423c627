"""The ``model-index`` of a model card: the block of YAML a model's README on the Hugging Face hub begins with.

It is made with ``huggingface_hub``. There is one entry per task and split; its metrics are the groups. Where no group
has a score, each subject has an entry. A score that does not cover all questions says so in its name.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bundle.errors import RunError
from bundle.reports.formats import Export, unanswered
from bundle.runs.recorded_run import RecordedRun
from bundle.runs.scoring import Score
from bundle.runs.task_record import TaskRecord
from bundle.tasks.benchmarks import BENCHMARKS
from bundle.tasks.sources.hub import require_endpoint

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_FILE = "model-card.md"


def export(run: RecordedRun, language: str | None = None) -> Export:
    """The block with the run's scores, as a file that can be a README by itself.

    Raises RunError if nothing has a score; DataError if HF_ENDPOINT cannot be used.
    """
    require_endpoint()
    # imported late: slow, and only this format needs it
    from huggingface_hub.repocard_data import eval_results_to_model_index
    from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]

    # Task by task: in one go, two tasks that ask the same split would be taken for one, with the examples of the first.
    results = [
        entry
        for task in run.record.tasks
        if (scores := list(_eval_results(run, task)))
        for entry in eval_results_to_model_index(run.model, scores)[0]["results"]
    ]
    if not results:
        raise RunError(
            f"{run.name} has no score that a model card could show.",
            remedy="For answers to a secret split use --format submission; a run without replies can be resumed.",
        )
    metadata = yaml_dump({"model-index": [{"name": run.model, "results": results}]}, sort_keys=False)
    remarks = []
    if run.answered < run.total:
        remarks.append(f"{unanswered(run.total - run.answered, run.total)}: the metrics' names say so")
    return Export({_FILE: f"---\n{metadata}---\n"}, tuple(remarks))


def _eval_results(run: RecordedRun, record: TaskRecord) -> "Iterator[EvalResult]":
    task = record.scored
    names = run.score_names(task)
    for split, prefix in task.splits.items():
        known = {own: run.scores[names[own]] for own in names if names[own] in run.scores}
        groups = {
            own: score
            for own, score in known.items()
            if score.accuracy is not None and own in task.groups and task.groups[own][0][0] == split
        }
        for own, score in groups.items():
            what = f"{own}, mean over {len(task.groups[own])} subjects" if len(task.groups[own]) > 1 else own
            yield _eval_result(record, split, None, what, score)
        if prefix in groups:
            continue
        in_groups = {member for own in groups for member in task.groups[own]}
        for subject in task.subjects:
            own = task.score_name(split, subject.name)
            if own in known and known[own].accuracy is not None and (split, subject.name) not in in_groups:
                yield _eval_result(record, split, subject.name, own, known[own])


def _eval_result(task: TaskRecord, split: str, subject: str | None, what: str, score: Score) -> "EvalResult":
    from huggingface_hub import EvalResult  # imported late: slow, and only this format needs it

    assert score.accuracy is not None
    benchmark = BENCHMARKS.get(task.benchmark)
    counted = "" if score.answered == score.n else f", over {score.answered} of {score.n} questions"
    stderr = {} if score.stderr is None else {"stderr": round(score.stderr, 2)}
    return EvalResult(
        task_type="text-generation",
        task_name="Text Generation",
        dataset_type=benchmark.hub if benchmark else task.benchmark,
        dataset_name=_dataset_name(task),
        dataset_config=subject,
        dataset_split=split,
        dataset_args={"num_few_shot": task.examples, "task": task.name},
        metric_type="accuracy",
        metric_name=f"{what}{counted}",
        metric_value=round(score.accuracy, 2),
        metric_args={"questions": score.n, "answered": score.answered, **stderr},
    )


def _dataset_name(task: TaskRecord) -> str:
    limits = [number for number in (task.first, task.limit) if number is not None]
    limited = f", only the first {min(limits)} questions of every subject" if limits else ""
    if task.sample is not None:
        limited += f", only {task.sample} questions drawn from every subject"
    return re.sub(r"\s+", " ", task.description or task.name) + limited
