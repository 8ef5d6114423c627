"""The page of comparisons, as text and in a real browser."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from bundle.reports.comparison import compare
from bundle.reports.comparison.page import render_page, write_page
from bundle.reports.comparison.terminal import show
from bundle.reports.screen.output import console
from bundle.runs.recorded_run import read_recorded_run
from bundle.tasks.catalog import find_task
from tests.reports.browser import faults, opened, sticking_out
from tests.reports.run_directories import random_outcomes, write_run

HOSTILE = "</pre></script><img src=x onerror=alert(1)><script>alert(2)</script>\ud800\u202e"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and three others, one of them hostile in all its texts."""
    folder = tmp_path_factory.mktemp("page")
    runs = [
        read_recorded_run(
            write_run(
                folder / f"run-{number}",
                {"law": law, "logic": "10"},
                model=model,
                replies={("law", row): HOSTILE for row in range(4)},
            )
        )
        for number, (law, model) in enumerate(
            [("0101", "base"), ("1111", "better"), ("1010", "<b>x</b>\u202e"), ("0000", "worse")]
        )
    ]
    write_page([compare(runs[0], other) for other in runs[1:]], folder / "c.html")
    return folder / "c.html"


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One comparison: two questions of law are lost, two are won, 30 others are won."""
    folder = tmp_path_factory.mktemp("single")
    base = write_run(folder / "a", {"law": "1100", "logic": "0" * 30}, replies={("law", 0): "选 zebra"})
    new = write_run(folder / "b", {"law": "0-11", "logic": "1" * 30}, model="sft")
    write_page([compare(read_recorded_run(base), read_recorded_run(new))], folder / "c.html")
    return folder / "c.html"


def data_of(text: str) -> dict[str, Any]:
    found = re.search(r'id="data">(.*?)</script>', text)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_a_page_holds_the_verdict_every_row_and_every_flip(tmp_path: Path) -> None:
    base = read_recorded_run(write_run(tmp_path / "a", {"law": "1100", "logic": "11"}))
    new = read_recorded_run(write_run(tmp_path / "b", {"law": "1001", "logic": "11"}))

    text = render_page([compare(base, new)])

    assert "75.00 → 75.00" in text
    assert "Not statistically significant" in text
    assert 'data-zh="法学"' in text
    data = data_of(text)
    (comparison,) = data["comparisons"]
    assert [(flip["lost"], data["questions"][flip["q"]]["id"]) for flip in comparison["flips"]] == [
        (True, 1),
        (False, 3),
    ]
    assert data["questions"][0]["content"][0] == ["question", "law 第 1 题 <b>?</b>"]


def test_subjects_and_runs_come_in_the_order_of_their_change(tmp_path: Path) -> None:
    runs = [
        read_recorded_run(write_run(tmp_path / name, outcomes, model=name))
        for name, outcomes in {
            "base": {"law": "1100", "logic": "0000"},
            "worse": {"law": "0000", "logic": "0000"},
            "better": {"law": "1000", "logic": "1111"},
        }.items()
    ]
    text = render_page([compare(runs[0], other) for other in runs[1:]])
    assert text.index('id="title-0">better') < text.index('id="title-1">worse')
    first = text[text.index('id="title-0"') :]
    assert first.index("ceval-logic") < first.index("ceval-law")
    assert '<tr class="trend">' not in text


def test_settings_that_differ_are_in_words(tmp_path: Path) -> None:
    def served(gpus: list[str], **sampling: Any) -> dict[str, Any]:
        engine = {
            "name": "lmdeploy",
            "version": "0.18.0",
            "arguments": ["--chat-template", "/home/me/t.json"][: len(gpus)],
        }
        return {
            "engine": {**engine, "gpus": gpus},
            "sampling": {"temperature": 0.0, "max_out_len": 8, "max_seq_len": None, **sampling},
        }

    base, new = (
        read_recorded_run(write_run(tmp_path / name, {"law": "10"}, record=record))
        for name, record in [("a", served([])), ("b", served(["NVIDIA H100"] * 2, extra_body={"top_p": 0.9}))]
    )
    comparison = compare(base, new)
    page = render_page([comparison])
    assert re.findall(r"<li>.*>([^<]+)</span>: <code>(.*)</code> → <code>(.*)</code>", page) == [
        ("engine arguments", "–", "--chat-template, …/t.json"),
        ("GPUs", "–", "NVIDIA H100, NVIDIA H100"),
        ("request field top p", "–", "0.9"),
    ]
    assert "/home/me" not in page
    stream = io.StringIO()
    show(console(stream, width=200), comparison, subjects=False, flips=0)
    assert "     engine arguments: – → --chat-template, …/t.json" in stream.getvalue().splitlines()
    assert "     request field top p: – → 0.9" in stream.getvalue().splitlines()


@pytest.mark.parametrize(("base_name", "points"), [("base", 3), ("sft-100", 4)])
def test_runs_of_a_series_come_in_the_order_of_their_steps_with_the_trend(
    tmp_path: Path, base_name: str, points: int
) -> None:
    outcomes = random_outcomes(find_task("ceval_gen"), 0.5, questions=1)
    base, *others = (
        read_recorded_run(write_run(tmp_path / name, outcomes | {"law": law}, model=name))
        for name, law in [(base_name, "0000"), ("sft-900", "1111"), ("sft-1000", "0000"), ("sft-800", "1000")]
    )
    text = render_page([compare(base, other) for other in others])
    assert re.findall(r'id="title-\d">([\w-]+)', text) == ["sft-800", "sft-900", "sft-1000"]
    lines = re.findall(r'<polyline points="([\d., ]+)"', text)
    assert len(lines) == 6
    assert {len(line.split()) for line in lines} == {points}


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 390)])
def test_in_a_browser_it_asks_for_nothing_runs_nothing_of_a_reply_and_has_no_serious_fault(
    browser: Browser, page: Path, scheme: Any, width: int
) -> None:
    with opened(browser, page, scheme=scheme, width=width) as shown:
        assert shown.locator("section.card").count() == 5
        expect(shown.locator(".matrix tbody tr")).to_have_count(4)
        shown.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
        expect(shown.locator(".flip pre").first).to_be_visible()
        assert shown.locator("img").count() == 0
        assert sticking_out(shown) == []
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        formula = shown.locator(".flip[open] .flip-text").first
        formula.evaluate("one => { one.textContent = 'x'.repeat(500) }")
        assert formula.evaluate("one => one.scrollWidth <= one.clientWidth"), "a long formula is broken, not cut"
        assert faults(shown) == []
        shown.get_by_role("button", name="中文").click()
        expect(shown.locator("h2").first).to_have_text("各次评测与学科大类")
        assert faults(shown) == []


def test_flips_are_filtered_and_opened_with_the_question_its_options_and_both_replies(
    browser: Browser, single: Path
) -> None:
    with opened(browser, single) as shown:
        found, lines = shown.locator("[data-flips] [role=status]"), shown.locator(".flips > li")
        expect(found).to_have_text("34 of 34 questions")
        expect(lines).to_have_count(20)
        shown.get_by_role("button", name="Show 14 more").click()
        expect(lines).to_have_count(34)
        shown.get_by_label("Outcome").select_option("lost")
        expect(lines).to_have_count(2)
        assert shown.evaluate("location.hash") == "#kind=lost"
        shown.get_by_role("searchbox").fill("zebra")
        expect(found).to_have_text("1 of 34 questions")
        expect(lines.locator("summary")).to_contain_text("law 第 0 题 <b>?</b>")
        lines.locator("summary").press("Enter")
        right, chosen = lines.locator("li.right"), lines.locator("li.wrong")
        expect(right).to_contain_text("A 甲 ✓ correct answer Base: tiny")
        expect(chosen).to_contain_text("B 乙 New: sft")
        assert lines.locator("pre").all_inner_texts() == ["选 zebra", "B"]
    with opened(browser, single, fragment="kind=won&words=logic") as shown:
        expect(shown.locator("[data-flips] [role=status]")).to_have_text("30 of 34 questions")
