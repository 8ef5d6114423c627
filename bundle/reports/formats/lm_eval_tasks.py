"""A run's subjects as tasks of the LM Evaluation Harness."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bundle.errors import RunError
from bundle.reports.formats.export import file_name
from bundle.reports.formats.prompt_versions import prompt_version
from bundle.runs.recorded_run import Part, RecordedRun
from bundle.runs.recorded_task import RecordedTask
from bundle.runs.scoring import Score
from bundle.tasks.benchmarks import Subject

METRIC = "exact_match"


@dataclass(frozen=True, slots=True)
class Scored:
    """A subject that has a score.

    Attributes:
        name: What the task is called.
        part: Task, split and subject.
        score: Of the questions with a reply.
        filter: The name of the answer rule.
        examples: How many examples a question is shown with.
        version: The prompt's version, as OpenCompass makes it.
        config: The task as the harness would configure it.
    """

    name: str
    part: Part
    score: Score
    filter: str
    examples: int
    version: str
    config: Mapping[str, Any]


def scored_tasks(run: RecordedRun) -> Iterator[Scored]:
    """Every subject with a score, in the run's order.

    Raises:
        RunError: Two subjects would have the same name.
    """
    seen: set[str] = set()
    for task in run.tasks:
        names = run.score_names(task)
        for part in run.questions:
            if part[0] != task.name:
                continue
            full_name = names[task.score_name(*part[1:])]
            score = run.scores[full_name]
            if score.accuracy is None:
                continue
            name = file_name(full_name)
            if name in seen:
                raise RunError(
                    f"Two subjects of the run would both be called {name}.",
                    remedy="The format names files after subjects; give the subjects names that differ in letters.",
                )
            seen.add(name)
            (subject,) = (one for one in task.subjects if one.name == part[2])
            yield _scored(run, task, part, subject, name, score)


def nested(groups: Mapping[str, Sequence[str]], tasks: Sequence[str]) -> dict[str, list[str]]:
    """Groups with the groups and tasks in them.

    The harness shows a tree. So a group holds smaller groups where these share nothing, and tasks for the rest; a group
    that shares tasks with another without being part of it stands by itself, as ceval-hard does.

    Args:
        groups: The tasks of every group.
        tasks: All tasks; without any group, each stands for itself.
    """
    if not groups:
        return {name: [] for name in tasks}
    tree: dict[str, list[str]] = {}
    placed: set[str] = set()
    larger_first = sorted(groups, key=lambda name: -len(groups[name]))
    for name in larger_first:
        left = set(groups[name])
        inside = []
        for other in larger_first:
            if other not in placed and len(groups[other]) < len(groups[name]) and left.issuperset(groups[other]):
                inside.append(other)
                left -= set(groups[other])
        placed |= set(inside)
        tree[name] = [*inside, *(member for member in groups[name] if member in left)]
    return tree


def generation(record: Mapping[str, Any], task: str) -> dict[str, Any]:
    """How replies were generated, in the harness's words."""
    sampling = record.get("sampling")
    sampling = sampling if isinstance(sampling, Mapping) else {}
    longest, temperature = sampling.get("max_out_len"), sampling.get("temperature")
    if isinstance(longest, Mapping):
        longest = longest.get(task)
    return {"until": [], "max_gen_toks": longest, "temperature": temperature, "do_sample": bool(temperature)}


def _scored(run: RecordedRun, task: RecordedTask, part: Part, subject: Subject, name: str, score: Score) -> Scored:
    record = task.record
    rule = record.get("answer")
    rule = rule if isinstance(rule, Mapping) else {}
    answer_filter = str(rule.get("rule", "answer"))
    examples = int(record.get("examples", 0))
    version = prompt_version(record, subject) or "N/A"
    data = run.record.get("data")
    config = {
        "task": name,
        "dataset_path": str(data.get("origin", "")) if isinstance(data, Mapping) else "",
        "dataset_name": subject.name,
        "test_split": part[1],
        "fewshot_split": record.get("example_split"),
        "doc_to_text": _template(str(record.get("user", "")), record, subject),
        "doc_to_target": "{{answer}}",
        "description": "",
        "target_delimiter": "",
        "fewshot_delimiter": "\n",
        "fewshot_config": {"sampler": "first_n"},
        "num_fewshot": examples,
        "metric_list": [{"metric": METRIC, "aggregation": "mean", "higher_is_better": True}],
        "output_type": "generate_until",
        "generation_kwargs": generation(run.record, task.name),
        "repeats": 1,
        "filter_list": [{"name": answer_filter, "filter": [{"function": f"bundle.{answer_filter}", **rule}]}],
        "should_decontaminate": False,
        "metadata": {"version": version, "bundle_task": task.name},
    }
    return Scored(name, part, score, answer_filter, examples, version, config)


def _template(text: str, record: Mapping[str, Any], subject: Subject) -> str:
    """A prompt with its columns as Jinja has them."""
    columns = "|".join(re.escape(str(column)) for column in record.get("columns", ()))
    text = text.replace("{subject}", subject.chinese)
    return re.sub(rf"\{{({columns})\}}", r"{{\1}}", text) if columns else text
