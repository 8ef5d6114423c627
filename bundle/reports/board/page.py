"""The board as a page, and as the data that a page which is open asks for again."""

import os
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from bundle.reports.board.board import Board, BoardRun, Table
from bundle.reports.comparison.page import write_page as write_comparison
from bundle.reports.comparison.wording import between, p_value, points
from bundle.reports.formats import FORMATS, Language, file_name, write_text
from bundle.reports.html.content import chance
from bundle.reports.templates import render
from bundle.reports.texts import Texts
from bundle.runs.files import PROMPTS
from bundle.runs.gpu_load import recent_utilization
from bundle.runs.listing import State

_MOST_COMPARED: Final = 12
"""Runs on one page of comparisons: the newest."""


def write_board(board: Board, path: Path, *, language: Language | None = None) -> None:
    """Write the board, and beside it a page of comparisons for every table with a base.

    Raises RunError if a file cannot be written.
    """
    links: dict[int, str] = {}
    for number, table in enumerate(board.tables):
        compared = table.comparisons[:_MOST_COMPARED]
        if compared:
            links[number] = f"{path.stem}-{file_name(_title(table))}.html"
            write_comparison(compared, path.with_name(links[number]), language=language)
    write_text(path, render_board(board, language=language, place=path.parent, links=links))


def render_board(
    board: Board, *, language: Language | None = None, place: Path | None = None, links: dict[int, str] | None = None
) -> str:
    """The page of a board.

    Args:
        language: The one it opens in; None for the browser's.
        place: Where it will be, for links to reports; None for one that is served and asks for its data again.
    """
    return render(
        "board/page.html.jinja",
        board_data(board, place=place, links=links),
        language=language,
        styles=["board/board.css"],
        scripts=["charts.js", "../board/board.js"],
        plots=True,
        live=place is None,
        board=board,
    )


def board_data(board: Board, *, place: Path | None = None, links: dict[int, str] | None = None) -> dict[str, Any]:
    return {
        "live": place is None,
        "now": datetime.now().astimezone().timestamp(),
        "tables": [_table(table, place, (links or {}).get(number)) for number, table in enumerate(board.tables)],
        "starting": [one.directory.name for one in board.starting],
        "never_asked": [one.directory.name for one in board.never_asked],
        "damaged": [{"run": one.directory.name, "fault": one.fault} for one in board.damaged],
    }


def _title(table: Table) -> str:
    section = table.section
    return section.task.name if len(section.task.splits) == 1 else f"{section.task.name}-{section.split}"


def _table(table: Table, place: Path | None, comparisons: str | None) -> dict[str, Any]:
    section = table.section
    return {
        "title": _title(table),
        "description": {"en": section.task.description, "zh": Texts.description(section.task)},
        "secret": section.secret,
        "chance": chance(section.letters),
        "columns": [{"key": line.group, "en": line.english, "zh": line.chinese} for line in table.columns],
        "base": None if table.base is None else table.base.run.name,
        "runs": [_run(one, place, table.base, comparisons) for one in table.runs],
    }


def _run(one: BoardRun, place: Path | None, base: BoardRun | None, comparisons: str | None) -> dict[str, Any]:
    run, step, scope = one.run, one.run.training_step, one.run.scopes[one.section.task.name]
    going_on = one.listed.state is State.RUNNING
    comparison = comparisons
    if comparison is None and base is not None:  # one that is made when it is asked for
        comparison = f"compare/{quote(base.run.name)}/{quote(run.name)}"
    return {
        "run": run.name,
        "model": run.model,
        "series": step and step[0],
        "step": step and step[1],
        "began": run.began.strftime("%Y-%m-%d %H:%M"),
        "state": one.listed.state.value,
        "partial": {**scope.selected, **({"sample_data": {}} if scope.sample_data else {})} or None,
        "doubtful": not going_on and not run.health.is_ok,
        "total": one.section.overall.score.n,
        "answered": one.section.overall.score.answered,
        "failed": one.section.failed,
        "since": _asking_since(run.directory) if going_on else None,
        "gpu": recent_utilization(run.directory) if going_on else None,
        "scores": {
            group: [line.score.accuracy, interval.low, interval.high]
            for group, line in one.lines.items()
            if (interval := line.score.interval) is not None
        },
        "changes": {
            group: {
                "difference": row.difference,
                "low": row.interval.low,
                "high": row.interval.high,
                "shown": points(row.difference),
                "between": between(row).replace(" to ", " … "),
                "p": p_value(row.p),
                "standing": row.standing.name.lower(),
            }
            for group, row in one.changes.items()
        },
        "incomparable": one.incomparable,
        "report": _report(run.directory, place),
        "comparison": comparison if one.comparison is not None else None,
    }


def _report(directory: Path, place: Path | None) -> str | None:
    """The address of a run's page; None where there is none."""
    name = FORMATS["html"].name
    if place is None:
        return f"runs/{quote(directory.name)}"
    page = directory / name
    return quote(Path(os.path.relpath(page, place)).as_posix()) if page.is_file() else None


def _asking_since(directory: Path) -> float | None:
    try:
        return (directory / PROMPTS).stat().st_mtime
    except OSError:
        return None
