"""A run as a table in Markdown, for a pull request or a job's page."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from bundle.reports.comparison import Comparison, Row, verdict
from bundle.reports.comparison.wording import between, left_out, p_value, points
from bundle.reports.formats import Export, Language
from bundle.reports.gates.gates import GateResult
from bundle.reports.health import described, headline, where
from bundle.runs.health import Health
from bundle.runs.recorded_run import RecordedRun
from bundle.runs.scoring import Score, headlines
from bundle.runs.statistics import Interval
from bundle.system.text import one_line, plural


def export(run: RecordedRun, language: Language | None) -> Export:
    """The summary of a run, without gates or a baseline."""
    return Export({"summary.md": summary(run)})


def summary(run: RecordedRun, *, comparison: Comparison | None = None, gates: Sequence[GateResult] = ()) -> str:
    """The summary of a run, in GitHub's Markdown.

    Text from outside, such as a model's name, is put in code spans: no name can become a link, a mention or HTML.
    """
    return "\n\n".join(_blocks(run, comparison, gates)) + "\n"


def _blocks(run: RecordedRun, comparison: Comparison | None, gates: Sequence[GateResult]) -> Iterator[str]:
    yield f"### {' + '.join(_code(task.name) for task in run.tasks)}: {_code(run.model)}"
    scores = [(one.name, one.score, one.score.interval) for one in headlines(run.tasks, run.scores)]
    yield "\n".join(
        f"**{score.percent}** {_code(name)}" + (f" (95 % interval {_interval(interval)})" if interval else "")
        for name, score, interval in scores
    )
    if run.partial:
        yield f"⚠️ **Partial**: {_code(run.partial)}"
    yield f"{run.answered} of {plural(run.total, 'question')} answered" + ("." if run.answered == run.total else " ⚠️")
    if run.health.no_reply:
        yield _list(f"{one.count} × {_code(one.reason)}: {one.cause.remedy}" for one in run.health.no_reply)
    if run.health.replies:
        yield _plain(headline(run.health)) + ("" if run.health.is_ok else " ⚠️")
    if not run.health.is_ok:
        yield _list(_findings(run.health))
    if any(one.sample_data for one in run.scopes.values()):
        yield "Sample questions only show that the pipeline works; the score says nothing about the model's quality."
    if gates:
        yield _list(f"{'✅' if gate.met else '❌'} {_code(gate.line)}" for gate in gates)
    if comparison is not None:
        part = f", partial: {_code(comparison.base.partial)}" if comparison.base.partial else ""
        yield f"Compared with {_code(comparison.base.model)} ({_code(comparison.base.name)}{part}):"
        # Except for the score's name a verdict is all our own text.
        verdicts = [f"{_code(row.name)}{verdict(row).removeprefix(row.name)}" for row in comparison.overall]
        yield _list([*verdicts, *left_out(comparison)])
    compared = {row.name: row for row in comparison.rows} if comparison is not None else None
    grouped = {run.score_names(task)[group] for task in run.tasks for group in task.groups}
    groups = [name for name in run.scores if name in grouped]
    subjects = [name for name in run.scores if name not in groups]
    if groups:
        yield _table(groups, run.scores, compared)
    if subjects:
        yield f"<details><summary>{plural(len(subjects), 'subject')}</summary>"
        yield _table(subjects, run.scores, compared)
        yield "</details>"
    yield f"Run {_code(run.name)}, started {run.began:%Y-%m-%d %H:%M}, data {_code(run.record.data.source)}."


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _findings(health: Health) -> Iterator[str]:
    several = len({one.task for one in health.findings}) > 1
    for one in health.findings:
        example = f" ({_code(where(one.example))}: {_code(one.example.text)})" if one.example is not None else ""
        yield f"{_plain(described(one, task=several))}{example}. {one.fault.remedy}"


def _plain(text: str) -> str:
    """Our own sentence with a few characters of a reply in it: none of them can begin anything in Markdown."""
    return re.sub(r"([\\`*_\[\]<>#|@~&!])", r"\\\1", text)


def _table(names: Sequence[str], scores: Mapping[str, Score], compared: Mapping[str, Row] | None) -> str:
    header = ["", "score", "95 % interval", "answered"]
    if compared is not None:
        header += ["base", "change", "95 % interval", "p"]
    rows = [header, [":--", *["--:"] * (len(header) - 1)]]
    for name in names:
        score = scores[name]
        cells = [_code(name), score.percent, _interval(score.interval), f"{score.answered}/{score.n}"]
        rows.append(cells if compared is None else cells + _change(compared.get(name)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _change(row: Row | None) -> list[str]:
    if row is None:
        return ["–"] * 4
    return [f"{row.base:.2f}", points(row.difference), between(row), p_value(row.shown_p).replace("<", "&lt;")]


def _interval(interval: Interval | None) -> str:
    return "–" if interval is None else f"{interval.low:.1f} – {interval.high:.1f}"


def _code(text: str) -> str:
    """A code span with this text, also safe inside a table."""
    content = one_line(text).replace("|", "\\|") or " "
    longest = max((len(run) for run in re.findall("`+", content)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if content.startswith("`") or content.endswith("`") else ""
    return f"{fence}{pad}{content}{pad}{fence}"
