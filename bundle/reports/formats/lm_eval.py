"""The results of the LM Evaluation Harness: ``MODEL/results_DATE.json`` and ``MODEL/samples_TASK_DATE.jsonl``.

Names and keys are those version 0.4.13 writes with ``--output_path`` and ``--log_samples`` (``evaluator_utils.py``,
``loggers/evaluation_tracker.py``, ``result_schema.py``). A subject is a task, scored by ``exact_match`` under a filter
that is named after the answer rule; a group is the plain mean over its subjects (``weight_by_size: false``).

A question without a reply is in no score: ``n-samples`` has the questions as ``original`` and those with a reply as
``effective``, and the samples hold the latter only. What was never scored is left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bundle.errors import RunError
from bundle.reports.formats.export import Export, file_name, to_json, unanswered
from bundle.reports.formats.lm_eval_samples import samples_of, task_hash
from bundle.reports.formats.lm_eval_tasks import METRIC, Scored, generation, nested, scored_tasks
from bundle.runs.recorded_run import RecordedRun
from bundle.runs.scoring import Score


def export_lm_eval(run: RecordedRun) -> Export:
    """The run as the harness would have left it.

    Raises:
        RunError: There is nothing in it that has a score.
    """
    tasks = list(scored_tasks(run))
    if not tasks:
        raise RunError(
            f"Nothing in {run.name} has a score that the format could hold.",
            remedy="Answers to a secret split go into --format submission; a run without replies can be gone on with.",
        )
    groups = {
        file_name(names[own]): [file_name(names[task.score_name(*member)]) for member in members]
        for task in run.tasks
        for names in [run.score_names(task)]
        for own, members in task.groups.items()
        if own in names and _accuracy(run.scores.get(names[own])) is not None
    }
    stamp = run.began.replace(tzinfo=None).isoformat(timespec="microseconds").replace(":", "-")
    place = file_name(run.model)
    samples = {one.name: samples_of(one, run) for one in tasks} if run.prompts is not None else {}
    files = {
        f"{place}/samples_{name}_{stamp}.jsonl": "".join(f"{to_json(row)}\n" for row in rows)
        for name, rows in samples.items()
    }
    hashes = {name: task_hash(rows) for name, rows in samples.items()}
    results = _results(run, tasks, groups) | {"task_hashes": hashes} | _experiment(run)
    files[f"{place}/results_{stamp}.json"] = to_json(results, indent=2)
    return Export(files, tuple(_remarks(run, tasks)))


def _results(run: RecordedRun, tasks: Sequence[Scored], groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    by_name = {one.name: one for one in tasks}
    subtasks = nested(groups, list(by_name))
    group_results = {
        name: _group_metrics(name, run, [by_name[member] for member in members]) for name, members in groups.items()
    }
    shots = {one.name: one.examples for one in tasks}
    shots |= {name: max(shots[member] for member in members) for name, members in groups.items()}
    return {
        "results": {one.name: _metrics(one.name, one.score, one.filter) for one in tasks} | group_results,
        **({"groups": group_results} if group_results else {}),
        "group_subtasks": subtasks,
        "configs": {one.name: one.config for one in sorted(tasks, key=lambda one: one.name)},
        "versions": {one.name: one.version for one in sorted(tasks, key=lambda one: one.name)},
        "n-shot": dict(sorted(shots.items())),
        "higher_is_better": {name: {METRIC: True} for name in sorted([*by_name, *groups])},
        "n-samples": _counts(run, tasks),
        "config": _config(run),
        "git_hash": None,
        "date": run.began.timestamp(),
        "pretty_env_info": _environment(run.record),
        "transformers_version": _versions(run.record).get("transformers", "N/A"),
        "lm_eval_version": f"N/A (bundle {_versions(run.record).get('bundle', 'unknown')})",
        "upper_git_hash": None,
    }


def _metrics(name: str, score: Score, answer_filter: str) -> dict[str, Any]:
    """Shares instead of percent; a standard error that cannot be told is "N/A", as with the harness."""
    assert score.accuracy is not None
    return {
        "name": name,
        "alias": name,
        "sample_len": score.answered,
        f"{METRIC},{answer_filter}": score.accuracy / 100,
        f"{METRIC}_stderr,{answer_filter}": "N/A" if score.stderr is None else score.stderr / 100,
    }


def _group_metrics(name: str, run: RecordedRun, members: Sequence[Scored]) -> dict[str, Any]:
    score = {file_name(known): one for known, one in run.scores.items()}[name]
    answer_filter = members[0].filter
    counts = {"sample_count": {f"{METRIC},{answer_filter}": score.answered}}
    return _metrics(name, score, answer_filter) | counts


def _counts(run: RecordedRun, tasks: Sequence[Scored]) -> dict[str, dict[str, int]]:
    """Questions of every subject and how many of them are in its score, of those without a score as well."""
    names = {task.name: run.score_names(task) for task in run.tasks}
    own_names = {task.name: task for task in run.tasks}
    scored = {one.part: one.score.answered for one in tasks}
    return {
        file_name(names[part[0]][own_names[part[0]].score_name(*part[1:])]): {
            "original": n,
            "effective": scored.get(part, 0),
        }
        for part, n in run.questions.items()
    }


def _config(run: RecordedRun) -> dict[str, Any]:
    model = run.record.get("model")
    told = {key: value for key, value in model.items() if key != "name"} if isinstance(model, Mapping) else {}
    limits = [task.record.get("limit") for task in run.tasks]
    return {
        "model": "bundle",
        "model_args": {"model": run.model, **told},
        "batch_size": None,
        "batch_sizes": [],
        "device": None,
        "use_cache": None,
        "limit": limits[0] if limits else None,
        "gen_kwargs": generation(run.record, run.tasks[0].name),
    }


def _experiment(run: RecordedRun) -> dict[str, Any]:
    """What ``GeneralConfigTracker`` adds."""
    total = run.timing.get("total_s")
    return {
        "model_source": "bundle",
        "model_name": run.model,
        "model_name_sanitized": file_name(run.model),
        "system_instruction": None,
        "system_instruction_sha": None,
        "fewshot_as_multiturn": any(task.record.get("shape") == "turns" for task in run.tasks),
        "chat_template": None,
        "chat_template_sha": None,
        "total_evaluation_time_seconds": None if total is None else str(total),
    }


def _environment(record: Mapping[str, Any]) -> str:
    hardware = record.get("hardware")
    told = {**_versions(record), **(hardware if isinstance(hardware, Mapping) else {})}
    return "\n".join(f"{name}: {value}" for name, value in told.items())


def _versions(record: Mapping[str, Any]) -> Mapping[str, Any]:
    versions = record.get("versions")
    return versions if isinstance(versions, Mapping) else {}


def _accuracy(score: Score | None) -> float | None:
    return None if score is None else score.accuracy


def _remarks(run: RecordedRun, tasks: Sequence[Scored]) -> Iterator[str]:
    if run.answered < run.total:
        yield f"{unanswered(run.total - run.answered, run.total)}: they are in no score, and n-samples says how many"
    if left_out := len(run.questions) - len(tasks):
        yield f"{left_out} of {len(run.questions)} subjects have no score and are left out"
    if run.prompts is None:
        yield "the run has no record of its prompts: there are no samples"
