"""The earlier run of the same checkpoint with the same settings, to be skipped or resumed."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bundle.errors import RunError
from bundle.pipeline.plan import Plan
from bundle.runs.files import LARGEST_JSON, RECORD
from bundle.runs.finding import runs_in
from bundle.runs.predictions import count_rows
from bundle.runs.record import RunRecord
from bundle.runs.results import Results
from bundle.runs.same_settings import require_same_plan
from bundle.runs.served import LocalModelRecord, Served
from bundle.system.files import read_regular
from bundle.tasks.sources import Tables


class Wanted(NamedTuple):
    """What a run must have asked to count.

    Attributes:
        plan: What is to be asked.
        tables: Its rows.
        model: The checkpoint; only its content counts, not where it is.
        engine: The engine's name.
        arguments: What follows ``--``.
    """

    plan: Plan
    tables: Sequence[Tables]
    model: LocalModelRecord
    engine: str
    arguments: Sequence[str]


def earlier_run(out: Path, wanted: Wanted) -> Path | None:
    """The newest such run in ``out``, finished or not; None if there is none."""
    return next((directory for directory in runs_in(out) if _is_same(directory, wanted)), None)


def unanswered(directory: Path) -> int | None:
    """How many questions of a run have no reply; None where it was cut off before it could say.

    Raises:
        RunError: It is damaged.
    """
    results = Results.read(directory)
    if results is None:
        return None
    results.require_replies(directory, count_rows(directory))
    return results.coverage.total - results.coverage.answered


def _is_same(directory: Path, wanted: Wanted) -> bool:
    try:
        if wanted.model.fingerprint.encode() not in read_regular(directory / RECORD, LARGEST_JSON):
            return False  # in a fraction of the time that reading it whole takes
        then = RunRecord.read(directory)
        if then.engine is None:
            return False
        engine = then.engine.model_copy(update={"name": wanted.engine, "arguments": tuple(wanted.arguments)})
        tasks = wanted.plan.task_records(wanted.tables)
        require_same_plan(then, tasks, wanted.plan.sampling({}), Served(wanted.model, engine))
    except (OSError, RunError):
        return False
    return [one.data_fingerprint for one in then.tasks] == [one.data_fingerprint for one in tasks]
