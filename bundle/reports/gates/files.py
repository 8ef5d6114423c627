"""A run as files for CI: a table in Markdown for a pull request or a job's page, and JUnit XML."""

import re
from collections.abc import Iterator, Mapping, Sequence
from xml.etree import ElementTree

from bundle.reports.comparison import Comparison, Row, verdict
from bundle.reports.comparison.wording import between, left_out, p_value, points
from bundle.reports.gates.gates import GateResult
from bundle.reports.health import described, health_lines, no_reply_lines, where
from bundle.runs.health import Health
from bundle.runs.recorded_run import RecordedRun
from bundle.runs.scoring import Score, headlines, intervals
from bundle.runs.statistics import Interval
from bundle.system.text import one_line, plural


def summary(run: RecordedRun, *, comparison: Comparison | None = None, gates: Sequence[GateResult] = ()) -> str:
    """The summary of a run, in GitHub's Markdown.

    Text from outside, such as a model's name, is put in code spans: no name can become a link, a mention or HTML.
    """
    return "\n".join(_lines(run, comparison, gates)) + "\n"


def _lines(run: RecordedRun, comparison: Comparison | None, gates: Sequence[GateResult]) -> Iterator[str]:
    sure = intervals(run.tasks, run.scores)
    yield f"### {' + '.join(_code(task.name) for task in run.tasks)}: {_code(run.model)}"
    yield ""
    for one in headlines(run.tasks, run.scores):
        interval = f" (95 % interval {_interval(sure.get(one.name))})" if one.name in sure else ""
        yield f"**{_percent(one.score)}** {_code(one.name)}{interval}"
    yield ""
    if run.partial:
        yield f"⚠️ **Partial**: {_code(run.partial)}"
        yield ""
    yield f"{run.answered} of {plural(run.total, 'question')} answered" + ("." if run.answered == run.total else " ⚠️")
    if run.health.no_reply:
        yield ""
        yield from (f"- {one.count} × {_code(one.reason)}: {one.remedy}" for one in run.health.no_reply)
    yield from _health(run.health)
    if run.record.data.source == "sample":
        yield ""
        yield "Sample questions only show that the pipeline works; the score says nothing about the model's quality."
    if gates:
        yield ""
        yield from (f"- {'✅' if gate.met else '❌'} {_code(gate.line)}" for gate in gates)
    if comparison is not None:
        yield ""
        yield f"Compared with {_code(comparison.base.model)} ({_code(comparison.base.name)}):"
        yield ""
        # Except for the score's name a verdict is all our own text.
        yield from (f"- {_code(row.name)}{verdict(row).removeprefix(row.name)}" for row in comparison.overall)
        yield from (f"- {sentence}" for sentence in left_out(comparison))
    compared = {row.name: row for row in comparison.rows} if comparison is not None else None
    grouped = {run.score_names(task)[group] for task in run.tasks for group in task.groups}
    groups = [name for name in run.scores if name in grouped]
    subjects = [name for name in run.scores if name not in groups]
    if groups:
        yield ""
        yield from _table(groups, run.scores, sure, compared)
    if subjects:
        yield ""
        yield f"<details><summary>{plural(len(subjects), 'subject')}</summary>"
        yield ""
        yield from _table(subjects, run.scores, sure, compared)
        yield ""
        yield "</details>"
    yield ""
    yield f"Run {_code(run.name)}, started {run.began:%Y-%m-%d %H:%M}, data {_code(run.record.data.source)}."


def _health(health: Health) -> Iterator[str]:
    if not health.headline:
        return
    yield ""
    yield _plain(health.headline) + (" ⚠️" if not health.is_ok else "")
    if health.is_ok:
        return
    several = len({one.task for one in health.findings}) > 1
    yield ""
    for one in health.findings:
        example = f" ({_code(where(one.example))}: {_code(one.example.text)})" if one.example is not None else ""
        yield f"- {_plain(described(one, task=several))}{example}. {one.remedy}"


def _plain(text: str) -> str:
    """Our own sentence with a few characters of a reply in it: none of them can begin anything in Markdown."""
    return re.sub(r"([\\`*_\[\]<>#|@~&!])", r"\\\1", text)


def _table(
    names: Sequence[str],
    scores: Mapping[str, Score],
    sure: Mapping[str, Interval],
    compared: Mapping[str, Row] | None,
) -> Iterator[str]:
    header = ["", "score", "95 % interval", "answered"]
    if compared is not None:
        header += ["base", "change", "95 % interval", "p"]
    yield f"| {' | '.join(header)} |"
    yield f"|{'|'.join([':--'] + ['--:'] * (len(header) - 1))}|"
    for name in names:
        score = scores[name]
        cells = [_code(name), _percent(score), _interval(sure.get(name)), f"{score.answered}/{score.n}"]
        if compared is not None:
            cells += _change(compared.get(name))
        yield f"| {' | '.join(cells)} |"


def _change(row: Row | None) -> list[str]:
    if row is None:
        return ["–"] * 4
    return [f"{row.base:.2f}", points(row.difference), between(row), p_value(row.shown_p).replace("<", "&lt;")]


def _percent(score: Score) -> str:
    return "–" if score.accuracy is None else f"{score.accuracy:.2f}"


def _interval(interval: Interval | None) -> str:
    return "–" if interval is None else f"{interval.low:.1f} – {interval.high:.1f}"


def _code(text: str) -> str:
    """A code span with this text, also safe inside a table."""
    content = one_line(text).replace("|", "\\|") or " "
    longest = max((len(run) for run in re.findall("`+", content)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if content.startswith("`") or content.endswith("`") else ""
    return f"{fence}{pad}{content}{pad}{fence}"


def junit(run: RecordedRun, gates: Sequence[GateResult] = (), *, allow_unanswered: int = 0) -> str:
    """JUnit XML: one suite, as Ant writes it (the schema windyroad/JUnit-Schema), which Jenkins and GitLab read.

    A test case passes or fails and keeps its name from build to build: one that every question has a reply, and one per
    gate. Scores are not tests; they are properties of the suite, under their names in ``results.json``. So is the
    health of the measurement; what is wrong with it is the suite's output.
    """
    missing = run.total - run.answered
    if missing <= allow_unanswered:
        missing = 0
    health = run.health
    failed = sum(not gate.met for gate in gates)
    seconds = f"{run.timing.get('total_s', 0):.3f}"
    counts = {"tests": str(1 + len(gates)), "failures": str(failed), "errors": str(int(missing > 0))}
    name = " + ".join(one_line(task.name) for task in run.tasks)
    root = ElementTree.Element("testsuites", {"name": "bundle", **counts, "time": seconds})
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        {"name": name, **counts, "skipped": "0", "time": seconds, "timestamp": f"{run.began:%Y-%m-%dT%H:%M:%S}"},
    )
    properties = ElementTree.SubElement(suite, "properties")
    facts = {"run": run.name, "model": run.model, "questions": str(run.total), "answered": str(run.answered)}
    if run.partial:
        facts["partial"] = run.partial
    facts |= {"measurement": "ok" if health.is_ok else "doubtful", "unparsed": str(health.unparsed)}
    scores = {key: f"{one.accuracy:.4f}" for key, one in run.scores.items() if one.accuracy is not None}
    for key, value in (facts | scores).items():
        ElementTree.SubElement(properties, "property", {"name": one_line(key), "value": one_line(value)})
    case = _case(suite, name, "every question has a reply", seconds)
    if missing:
        message = f"{missing} of {run.total} questions have no reply"
        ElementTree.SubElement(case, "error", {"type": "unanswered", "message": message}).text = "\n".join(
            [message, *no_reply_lines(health, most=100)]
        )
    for gate in gates:
        case = _case(suite, name, one_line(gate.name), "0")
        if not gate.met:
            line = one_line(gate.line)
            ElementTree.SubElement(case, "failure", {"type": "gate", "message": line}).text = line
    if not health.is_ok:
        ElementTree.SubElement(suite, "system-out").text = "\n".join(health_lines(health))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def _case(suite: ElementTree.Element, task: str, name: str, seconds: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", {"classname": f"bundle.{task}", "name": name, "time": seconds})
