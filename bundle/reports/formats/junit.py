"""A run as JUnit XML, for CI servers."""

from collections.abc import Sequence
from xml.etree import ElementTree

from bundle.reports.formats import Export, Language, unanswered
from bundle.reports.gates.gates import GateResult
from bundle.reports.health import health_lines, no_reply_lines
from bundle.runs.recorded_run import RecordedRun
from bundle.system.text import one_line


def export(run: RecordedRun, language: Language | None) -> Export:
    """The test suite of a run, without gates."""
    return Export({"junit.xml": junit(run)})


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
        message = unanswered(missing, run.total)
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
