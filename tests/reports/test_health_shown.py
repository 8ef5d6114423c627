"""The health of a measurement in everything that is made of a run."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bundle.reports.comparison import compare, verdict
from bundle.reports.comparison.page import to_json
from bundle.reports.comparison.wording import left_out
from bundle.reports.formats.junit import junit
from bundle.reports.formats.markdown import summary
from bundle.reports.gates.gates import check_gates, parse_gates
from bundle.reports.health import health_lines
from bundle.reports.html.content import sections
from bundle.reports.html.page import render_page
from bundle.reports.html.questions import OUTCOMES, Outcome, question_data
from bundle.runs.files import PREDICTIONS, RESULTS
from bundle.runs.recorded_run import RecordedRun, read_recorded_run
from tests.reports.run_directories import write_run


@pytest.fixture
def good(tmp_path: Path) -> RecordedRun:
    return read_recorded_run(write_run(tmp_path / "good", {"law": "1111111100", "logic": "1111110000"}))


@pytest.fixture
def silent(tmp_path: Path) -> RecordedRun:
    """Half of the replies contain no option; one of them is hostile."""
    replies = {("law", 5): '<script>alert("1")</script> | [x](http://x) @all *b* \x1b[31m'}
    outcomes = {"law": "11110-----", "logic": "1110-0----"}
    return read_recorded_run(write_run(tmp_path / "silent", outcomes, replies=replies))


def test_a_good_run_has_one_short_line_and_no_more(good: RecordedRun) -> None:
    assert list(health_lines(good.health)) == ["measurement: ok"]
    assert "measurement: ok" in summary(good)
    assert "Measurement: ok" in render_page(good)
    assert "system-out" not in junit(good)


def test_a_doubtful_one_says_what_how_often_where_and_what_to_do(silent: RecordedRun) -> None:
    first, *rest = health_lines(silent.health)
    assert first == "measurement: DOUBTFUL, no option found in 10 of 20 replies (50.0 %)"
    assert rest[0] == "  - 10 of 20 replies contain no option"
    assert rest[1].startswith("    e.g. law #5: <script>")
    assert "\x1b" not in rest[1]
    assert rest[2].startswith("    Read some of them")


def test_it_is_in_results_json(silent: RecordedRun) -> None:
    written = json.loads((silent.directory / RESULTS).read_bytes())["health"]
    assert (written["ok"], written["replies"], written["unparsed"], written["unparsed_percent"]) == (False, 20, 10, 50)
    (finding,) = written["findings"]
    assert finding["fault"] == "no_option"
    assert (finding["count"], finding["of"]) == (10, 20)
    assert (finding["example"]["subject"], finding["example"]["id"]) == ("law", 5)
    assert finding["remedy"]


def test_it_is_in_the_summary_and_no_reply_becomes_markup(silent: RecordedRun) -> None:
    text = summary(silent)
    assert "measurement: DOUBTFUL, no option found in 10 of 20 replies (50.0 %) ⚠️" in text
    (line,) = [line for line in text.splitlines() if line.startswith("- 10 of 20 replies contain no option")]
    assert "(`law #5`: `<script>" in line


def test_it_is_in_the_suite_as_properties_and_output(silent: RecordedRun) -> None:
    suite = ElementTree.fromstring(junit(silent))[0]
    properties = {one.get("name"): one.get("value") for one in suite.iter("property")}
    assert (properties["measurement"], properties["unparsed"]) == ("doubtful", "10")
    output = suite.find("system-out")
    assert output is not None
    assert "10 of 20 replies contain no option" in (output.text or "")


@pytest.mark.parametrize(
    ("language", "words"),
    [("en", "10 of 20 replies contain no option"), ("zh", "20 条回复中 10 条没有选项")],
)
def test_it_is_on_the_page_in_both_languages(silent: RecordedRun, language: str, words: str) -> None:
    page = render_page(silent, language=language)  # type: ignore[arg-type]
    assert words in page
    assert "<script>alert" not in page


def test_answers_that_are_no_option_are_none_on_the_page(tmp_path: Path) -> None:
    """ "The answer is B." gives "T" under the rule of the first capital, every time."""
    outcomes = {"law": "0000000000"}
    directory = write_run(tmp_path / "run", outcomes)
    rows = (directory / PREDICTIONS).read_text(encoding="utf-8").splitlines()
    said = [json.loads(row) | {"reply": "The answer is B.", "answer": "T"} for row in rows]
    (directory / PREDICTIONS).write_text("".join(f"{json.dumps(row)}\n" for row in said))
    run = read_recorded_run(directory)
    (section,) = sections(run)
    assert section.unparsed == run.health.unparsed == 10
    assert question_data(run).outcomes[OUTCOMES.index(Outcome.SILENT)] == 10
    tile = re.search("Replies without an answer</span></dt><dd>([^<]+)", render_page(run))
    assert tile is not None
    assert tile[1] == "10"


@pytest.mark.parametrize(("most", "met"), [(50.0, True), (49.9, False), (0.0, False), (100.0, True)])
def test_a_gate_on_replies_without_an_option(silent: RecordedRun, most: float, met: bool) -> None:
    (gate,) = check_gates(parse_gates((), None, None, max_unparsed=most), silent)
    assert gate.met is met
    assert gate.line == f"50.00 % of the replies without an option (10 of 20), allowed: {most:g} %"


def test_without_a_reply_that_gate_is_not_met(tmp_path: Path) -> None:
    run = read_recorded_run(write_run(tmp_path / "r", {"law": "xx"}))
    (gate,) = check_gates(parse_gates((), None, None, max_unparsed=100), run)
    assert not gate.met


def test_a_comparison_says_how_many_are_lost_to_no_letter(good: RecordedRun, silent: RecordedRun) -> None:
    comparison = compare(good, silent)
    (overall,) = comparison.overall
    assert (overall.lost, overall.lost_without) == (7, 4)
    assert "7 lost (3 to another letter, 4 to no letter)" in verdict(overall)
    said = list(left_out(comparison))
    assert said[0] == "Replies without an option: 0 in the base, 10 in the new run."
    assert said[1].startswith("Doubtful measurement (new): 10 of 20 replies contain no option. Read")
    assert to_json([comparison])["comparisons"][0]["unparsed"] == {"base": 0, "new": 10}


def test_a_comparison_of_good_runs_says_nothing_of_it(good: RecordedRun, tmp_path: Path) -> None:
    other = read_recorded_run(write_run(tmp_path / "o", {"law": "0111111100", "logic": "1111110000"}))
    comparison = compare(good, other)
    assert "1 lost, p" in verdict(comparison.overall[0])
    assert not list(left_out(comparison))
