"""The earlier run of the same checkpoint with the same settings, to be skipped or resumed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.errors import RunError
from bundle.pipeline.plan import Plan
from bundle.runs.files import LARGEST_JSON, RECORD
from bundle.runs.finding import runs_in
from bundle.runs.predictions import count_rows
from bundle.runs.record import LocalModelRecord, RunRecord, Served
from bundle.runs.results import Results
from bundle.runs.same_settings import require_same_plan
from bundle.system.files import read_regular
from bundle.tasks.sources import Tables


def earlier_run(
    plan: Plan, tables: Sequence[Tables], model: LocalModelRecord, engine: Mapping[str, Any]
) -> Path | None:
    """The newest run, finished or not, that asked the same rows of the same checkpoint in the same way; or None.

    Of the checkpoint only its content counts, not where it is. ``engine`` is as from `Local.given_to`.
    """
    tasks = plan.task_records(tables)

    def is_same(directory: Path) -> bool:
        try:
            if model.fingerprint.encode() not in read_regular(directory / RECORD, LARGEST_JSON):
                return False  # in a fraction of the time that reading it whole takes
            then = RunRecord.read(directory)
            if then.engine is None:
                return False
            served = Served(model, then.engine.model_copy(update=engine))
            require_same_plan(then, tasks, plan.sampling({}), served)
        except (OSError, RunError):
            return False
        return [one.data_fingerprint for one in then.tasks] == [one.data_fingerprint for one in tasks]

    return next(filter(is_same, runs_in(plan.options.out)), None)


def unanswered(directory: Path) -> int | None:
    """How many questions of a run have no reply; None where it was cut off before it could say. Raises RunError."""
    results = Results.read(directory)
    if results is None:
        return None
    results.require_replies(directory, count_rows(directory))
    return results.coverage.total - results.coverage.answered
