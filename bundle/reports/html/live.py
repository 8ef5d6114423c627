"""What the page of a running run shows, and polls."""

import time
from typing import Any, Final
from urllib.parse import quote

from bundle.reports.html.curves import Asking
from bundle.runs.gpu_load import read_gpu_loads
from bundle.runs.recorded_run import RecordedRun

_RECENT_S: Final = 30.0


def live_data(run: RecordedRun, *, going_on: bool) -> dict[str, Any]:
    """How far a run is, and what its charts over time show."""
    return {"running": going_on, **progress(run), **over_time(run, going_on=going_on)}


def over_time(run: RecordedRun, *, going_on: bool = False) -> dict[str, Any]:
    """The data of the charts over the time of asking; see `Asking`."""
    asking = Asking(run.predictions, going_on=going_on)
    return {"pace": asking.pace(), "gpus": asking.gpus(read_gpu_loads(run.directory))}


def page_address(run: RecordedRun) -> str:
    """Where a page that is served beside others gets its `live_data`."""
    return f"{quote(run.name)}/now.json"


def progress(run: RecordedRun) -> dict[str, Any]:
    """Counts, and replies a second over the last half minute; None without any."""
    ends = [one.ended_at for one in run.predictions if one.ended_at is not None]
    recent = [end for end in ends if end > time.time() - _RECENT_S]
    scored = [one.correct for one in run.predictions if one.correct is not None]
    return {
        "total": run.total,
        "answered": run.answered,
        "failed": run.failed,
        "right": sum(scored) if scored else None,
        "rate": len(recent) / min(_RECENT_S, max(1.0, time.time() - min(ends))) if recent else None,
    }
