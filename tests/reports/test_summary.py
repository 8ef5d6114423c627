"""A run as Markdown, and as JUnit XML; each read by what others read it with."""

from pathlib import Path

import pytest
from junitparser import JUnitXml, TestSuite
from markdown_it import MarkdownIt

from bundle.reports.comparison import compare
from bundle.reports.formats.junit import junit
from bundle.reports.formats.markdown import summary
from bundle.reports.gates.gates import GateResult, check_gates, parse_gates
from bundle.runs.recorded_run import read_recorded_run
from bundle.tasks.catalog import find_task
from tests.reports.run_directories import TIMING, random_outcomes, write_run

TASK = find_task("ceval_gen")
HOSTILE = "a`b``|c @team [x](http://evil.example) <script>alert(1)</script>\n# d \x1b[31m\u202e"


def rendered(text: str) -> str:
    """As GitHub would: Markdown with tables."""
    html: str = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    return html


def test_a_summary_shows_the_score_with_its_interval_the_groups_and_the_subjects(tmp_path: Path) -> None:
    run = read_recorded_run(write_run(tmp_path / "r", random_outcomes(TASK, 0.6), model="internlm"))

    text = summary(run)

    assert text.startswith("### `ceval_gen`: `internlm`\n")
    assert f"**{run.scores['ceval'].accuracy:.2f}** `ceval` (95 % interval " in text
    assert "520 of 520 questions answered." in text
    html = rendered(text)
    assert html.count("<table>") == 2
    assert html.count("<tr>") == (1 + 6) + (1 + 52)
    assert "<code>ceval-stem</code></td>" in html


def test_a_summary_says_that_replies_are_missing(tmp_path: Path) -> None:
    text = summary(read_recorded_run(write_run(tmp_path / "r", {"law": "11x."})))

    assert "2 of 4 questions answered ⚠️" in text
    assert "| `ceval-law` | 100.00 | 34.2 – 100.0 | 2/4 |" in text


def test_a_run_of_some_subjects_has_their_mean_with_its_interval(tmp_path: Path) -> None:
    text = summary(read_recorded_run(write_run(tmp_path / "r", {"law": "1100", "logic": "11"})))

    assert "**75.00** `mean of 2 of 52 subjects` (95 % interval " in text


def test_a_summary_with_a_baseline_has_the_change_and_the_gates(tmp_path: Path) -> None:
    write_run(tmp_path / "before", {"law": "1" * 10})
    run = read_recorded_run(write_run(tmp_path / "now", {"law": "1" * 9 + "0"}))
    gates = parse_gates(["ceval-law=50", "ceval-law=95"][:1], tmp_path / "before", 1.0)
    assert gates.baseline is not None

    text = summary(run, comparison=compare(gates.baseline, run), gates=check_gates(gates, run))

    assert "- ✅ `ceval-law 90.00, required: 50`" in text
    assert "- ❌ `ceval-law 90.00 is 10.00 points below 100.00 in before, allowed drop: 1; p = 1.00" in text
    assert "| 100.00 | −10.00 | " in text
    assert "Not statistically significant: it may be due to chance." in text


def test_no_name_can_become_a_link_a_mention_or_html(tmp_path: Path) -> None:
    run = read_recorded_run(write_run(tmp_path / "r", {"law": "10"}, model=HOSTILE))

    html = rendered(summary(run, gates=[GateResult("g", False, HOSTILE)]))

    assert "<a " not in html
    assert "<script" not in html
    assert "\x1b" not in html
    assert html.count("<h1>") == 0
    # Every "@" stands in code, where nobody is called.
    assert all("<code>" in line for line in html.splitlines() if "@team" in line)


# JUnit


def read(text: str) -> TestSuite:
    (suite,) = JUnitXml.fromstring(text.encode())
    return suite


def test_gates_are_test_cases_and_scores_are_properties(tmp_path: Path) -> None:
    run = read_recorded_run(write_run(tmp_path / "r", {"law": "1100"}))
    gates = check_gates(parse_gates(["ceval-law=60"], None, None), run)

    suite = read(junit(run, gates))

    assert (suite.name, suite.tests, suite.failures, suite.errors) == ("ceval_gen", 2, 1, 0)
    assert suite.time == TIMING["total_s"]
    scores = {one.name: one.value for one in suite.properties()}  # type: ignore[no-untyped-call]
    assert scores["ceval-law"] == "50.0000"
    whole, gate = suite
    assert (whole.name, whole.result) == ("every question has a reply", [])
    assert gate.name == "ceval-law is at least 60"
    (failure,) = gate.result
    assert failure.message == "ceval-law 50.00, required: 60"


def test_missing_replies_are_an_error(tmp_path: Path) -> None:
    suite = read(junit(read_recorded_run(write_run(tmp_path / "r", {"law": "11x."}))))

    assert (suite.tests, suite.failures, suite.errors) == (1, 0, 1)
    (case,) = suite
    assert case.result[0].message == "2 of 4 questions have no reply"


@pytest.mark.parametrize("name", [HOSTILE, "\x00\x08", "\ud800", "]]>", "\ufffe"])
def test_no_name_breaks_the_document(tmp_path: Path, name: str) -> None:
    run = read_recorded_run(write_run(tmp_path / "r", {"law": "1"}, model=HOSTILE))

    suite = read(junit(run, [GateResult(name, False, name)]))

    assert suite.failures == 1


def test_the_parts_of_a_suite_are_in_the_order_its_schema_wants(tmp_path: Path) -> None:
    run = read_recorded_run(write_run(tmp_path / "r", {"law": "1"}))

    suite = read(junit(run))._elem  # the element itself: junitparser does not tell the order

    assert [child.tag for child in suite] == ["properties", "testcase"]
    assert suite.get("timestamp") == run.began.strftime("%Y-%m-%dT%H:%M:%S")
