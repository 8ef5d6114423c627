"""The page of a comparison, as text and in a real browser."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from bundle.reports.comparison import compare
from bundle.reports.comparison.page import render_page, write_page
from bundle.runs.recorded_run import read_recorded_run
from bundle.tasks.catalog import find_task
from tests.reports.browser import faults, opened
from tests.reports.run_directories import random_outcomes, write_run

HOSTILE = "</pre></script><img src=x onerror=alert(1)><script>alert(2)</script>\ud800\u202e"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and two others, one of them hostile in all its texts."""
    folder = tmp_path_factory.mktemp("page")
    task = find_task("ceval_gen")
    runs = [
        read_recorded_run(
            write_run(
                folder / f"run-{number}",
                random_outcomes(task, share, seed=number, questions=1) | {"law": "1010" if number else "0101"},
                model=model,
                replies={("law", row): HOSTILE for row in range(4)},
            )
        )
        for number, (share, model) in enumerate([(0.4, "base"), (0.7, "better"), (0.5, "<b>x</b>\u202e")])
    ]
    write_page([compare(runs[0], other) for other in runs[1:]], folder / "c.html")
    return folder / "c.html"


def test_a_page_holds_the_verdict_every_row_and_every_flip(tmp_path: Path) -> None:
    base = read_recorded_run(write_run(tmp_path / "a", {"law": "1100", "logic": "11"}))
    new = read_recorded_run(write_run(tmp_path / "b", {"law": "1001", "logic": "11"}))

    text = render_page([compare(base, new)])

    assert text.count('<details class="flip">') == 2
    assert "mean of 2 subjects: the same score, 75.00" in text
    assert "law 第 1 题 &lt;b&gt;?&lt;/b&gt;" in text
    assert '<span lang="zh">法学</span>' in text


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 390)])
def test_in_a_browser_it_asks_for_nothing_runs_nothing_of_a_reply_and_has_no_serious_fault(
    browser: Browser, page: Path, scheme: str, width: int
) -> None:
    with opened(browser, page, scheme=scheme, width=width) as shown:  # type: ignore[arg-type]
        assert shown.locator("section.card").count() == 3
        assert shown.locator("img").count() == 0
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        first = shown.locator("details.flip").first
        first.locator("summary").press("Enter")
        assert first.locator("pre").first.is_visible()
        assert faults(shown) == []
