"""The ``model-index`` of a model card: the block of YAML a model's README on the Hugging Face hub begins with.

It is made with ``huggingface_hub``. One entry a task and split; its metrics are the groups, or where no
group could be scored, each subject has an entry. A score that not all questions are in says so in its name.
"""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from bundle.errors import RunError
from bundle.reports.formats.export import Export, unanswered
from bundle.runs.recorded_run import RecordedRun
from bundle.runs.recorded_task import RecordedTask
from bundle.runs.scoring import Score
from bundle.tasks.benchmarks import BENCHMARKS

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

FILE = "model-card.md"


def export_model_card(run: RecordedRun) -> Export:
    """The block with the run's scores, as a file that can be a README by itself.

    Raises:
        RunError: Nothing has a score, or the questions are the sample's, which say nothing about a model.
    """
    from huggingface_hub.repocard_data import eval_results_to_model_index
    from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]

    _require_real_questions(run)
    # Task by task: in one go, two tasks that ask the same split would be taken for one, with the examples of the first.
    results = [
        entry
        for task in run.tasks
        if (scores := list(_eval_results(run, task)))
        for entry in eval_results_to_model_index(run.model, scores)[0]["results"]
    ]
    if not results:
        raise RunError(
            f"Nothing in {run.name} has a score that a model card could show.",
            remedy="Answers to a secret split go into --format submission; a run without replies can be gone on with.",
        )
    metadata = yaml_dump({"model-index": [{"name": run.model, "results": results}]}, sort_keys=False)
    remarks = []
    if run.answered < run.total:
        remarks.append(f"{unanswered(run.total - run.answered, run.total)}: the names of the metrics say so")
    return Export({FILE: f"---\n{metadata}---\n"}, tuple(remarks))


def _require_real_questions(run: RecordedRun) -> None:
    data = run.record.get("data")
    source = str(data.get("source")) if isinstance(data, dict) else ""
    if "sample" in source.split(","):
        raise RunError(
            "The run's questions are the sample in the package, and a model card would show them as a benchmark's.",
            remedy="Run the benchmark itself (--data hub, or your copy of it), and report that run.",
        )


def _eval_results(run: RecordedRun, task: RecordedTask) -> "Iterator[EvalResult]":
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
            yield _eval_result(task, split, None, what, score)
        if prefix in groups:
            continue
        in_groups = {member for own in groups for member in task.groups[own]}
        for subject in task.subjects:
            own = task.score_name(split, subject.name)
            if own in known and known[own].accuracy is not None and (split, subject.name) not in in_groups:
                yield _eval_result(task, split, subject.name, own, known[own])


def _eval_result(task: RecordedTask, split: str, subject: str | None, what: str, score: Score) -> "EvalResult":
    from huggingface_hub import EvalResult

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
        dataset_args={"num_few_shot": task.record.get("examples", 0), "task": task.name},
        metric_type="accuracy",
        metric_name=f"{what}{counted}",
        metric_value=round(score.accuracy, 2),
        metric_args={"questions": score.n, "answered": score.answered, **stderr},
    )


def _dataset_name(task: RecordedTask) -> str:
    limits: Sequence[object] = (task.record.get("first"), task.record.get("limit"))
    counts = [number for number in limits if isinstance(number, int)]
    limited = f", only the first {min(counts)} questions of every subject" if counts else ""
    return re.sub(r"\s+", " ", task.description or task.name) + limited
