"""A run's page as its reader meets it: in a real browser, without a network."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from bundle.reports.formats import FORMATS
from bundle.runs.files import PREDICTIONS
from bundle.runs.gpu_load import GpuLoad, append_gpu_loads
from bundle.runs.predictions import Prediction
from bundle.runs.recorded_run import read_recorded_run
from bundle.tasks.catalog import find_task
from tests.patience import wait_until
from tests.reports.browser import faults, opened, sticking_out
from tests.reports.run_directories import random_outcomes, write_run
from tests.reports.sample_run import sample_run

REPLIES = {("law", 0): "我认为选 B，因为 zebra", ("law", 1): "x" * 30_000}
"""Everybody else replies with a letter alone."""


def page_of(run: Path, language: Literal["zh", "en"] | None = None) -> Path:
    file = run / "report.html"
    FORMATS["html"].write(read_recorded_run(run), file, language=language)
    return file


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run of all subjects, with outcomes of every kind."""
    outcomes = random_outcomes(find_task("ceval_gen"), 0.6, questions=3) | {"law": "0110-x.", "logic": "000"}
    return page_of(write_run(tmp_path_factory.mktemp("runs") / "run", outcomes, replies=REPLIES))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run of two subjects, which axe-core is through with sooner; outcomes of every kind there too."""
    return page_of(write_run(tmp_path_factory.mktemp("runs") / "run", {"law": "10-x.", "marxism": "10"}))


def rows(page: Page) -> list[str]:
    return page.locator("#rows td.column-part").all_inner_texts()


def column(page: Page, name: str) -> list[str]:
    return page.locator(f"#rows td.column-{name}").all_inner_texts()


def test_the_scores_are_shown_and_every_chart_is_drawn_and_told_in_words(browser: Browser, file: Path) -> None:
    with opened(browser, file) as page:
        expect(page.locator(".chart svg.plot")).to_have_count(8)
        for chart in page.locator(".chart").all():
            label = chart.locator("svg.plot").get_attribute("aria-label")
            assert label
            over_time = chart.get_attribute("data-chart") in ("pace", "in_flight")
            assert label.split(";")[-1].strip().startswith("see the table") or (over_time and "at most" in label)
        subjects = page.locator('[data-chart="subjects"] svg.plot')
        assert subjects.locator(".subject > *").count() == 52
        assert "52 subjects" in (subjects.get_attribute("aria-label") or "")
        run = read_recorded_run(file.parent)
        assert page.locator(".big").first.inner_text().startswith(f"{run.scores['ceval'].accuracy:.2f}")
        expect(page.locator(".headline").first).to_contain_text("95 % interval")


def test_questions_are_filtered_by_subject_outcome_and_text(browser: Browser, file: Path) -> None:
    with opened(browser, file) as page:
        found = page.locator("#found")
        expect(found).to_have_text("160 of 160 questions")
        page.get_by_label("Subject", exact=True).select_option("Law")
        expect(found).to_have_text("7 of 160 questions")
        assert rows(page) == [f"Law #{number}" for number in (0, 3, 4, 5, 6, 1, 2)]
        for label, expected in {
            "Correct": ["Law #1", "Law #2"],
            "Wrong": ["Law #0", "Law #3"],
            "Unparsed 1": ["Law #4"],
            "No reply 1": ["Law #5"],
            "Not asked 1": ["Law #6"],
        }.items():
            page.locator(".chips button", has_text=label).click()
            expect(page.locator("#rows td.column-part")).to_have_text(expected)
        page.get_by_role("button", name="Reset").click()
        search = page.get_by_role("searchbox")
        search.fill("因为 ZEBRA")
        expect(page.locator("#rows .opener")).to_have_text(["law 第 0 题 <b>?</b>"])
        search.fill("marxism 题")
        expect(found).to_have_text("3 of 160 questions")
        search.fill("no such text")
        expect(found).to_have_text("No questions match these filters.")


def test_a_cell_of_the_table_of_letters_leads_to_as_many_questions_as_it_says(browser: Browser, tmp_path: Path) -> None:
    predictions = write_run(tmp_path / "run", {"law": "00000--"}) / PREDICTIONS
    rows = [json.loads(line) for line in predictions.read_text(encoding="utf-8").splitlines()]
    rows[:2] = [row | {"reply": "The answer is B.", "answer": "T"} for row in rows[:2]]
    predictions.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")

    with opened(browser, page_of(predictions.parent)) as page:
        for cell in page.locator(".confusion tbody td a").all():
            number = cell.inner_text()
            cell.click()
            expect(page.locator("#found")).to_have_text(f"{number} of 7 questions")


def test_filters_stand_in_the_address_and_charts_lead_to_questions(browser: Browser, file: Path) -> None:
    with opened(browser, file, fragment="outcome=wrong&words=law") as page:
        found = page.locator("#found")
        expect(found).to_have_text("2 of 160 questions")
        expect(page.locator('.chips [aria-pressed="true"]')).to_contain_text("Wrong")
        expect(page.get_by_role("searchbox")).to_have_value("law")
        page.get_by_role("button", name="Reset").click()
        expect(found).to_have_text("160 of 160 questions")
        assert "#" not in page.evaluate("location.href")
        cell = page.locator(".confusion tbody tr").first.locator("td").nth(1).get_by_role("link")
        wrong = cell.inner_text()
        cell.click()
        expect(found).to_have_text(f"{wrong} of 160 questions")
        expect(page.locator("#letters-chosen")).to_have_text("Gold answer: A · Model's answer: B")
        assert set(column(page, "gold")) == {"A"}
        page.get_by_role("button", name="Reset").click()
        expect(found).to_have_text("160 of 160 questions")
        chart = page.locator('[data-chart="subjects"]')
        best = chart.locator(".subject > *").first

        def is_pointed_at() -> bool:  # which the chart knows a frame later
            best.hover(force=True)
            return bool(chart.locator("svg.clickable").evaluate("svg => Boolean(svg.value)"))

        wait_until(is_pointed_at)
        best.click(force=True)
        expect(found).not_to_have_text("160 of 160 questions")
        assert page.evaluate("location.hash").startswith("#part=")
        assert len({row.split(" #")[0] for row in rows(page)}) == 1


def test_questions_are_sorted_by_a_column_and_what_is_not_known_comes_last(browser: Browser, file: Path) -> None:
    with opened(browser, file) as page:
        page.get_by_label("Subject", exact=True).select_option("Law")
        expect(page.locator("#rows tr")).to_have_count(7)
        latency = page.locator('th[data-sort="latency"]')
        latency.get_by_role("button").click()
        expect(latency).to_have_attribute("aria-sort", "ascending")
        seconds = [f"0.5{number} s" for number in range(6)]
        assert column(page, "latency") == [*seconds, "–"]
        latency.get_by_role("button").click()
        expect(latency).to_have_attribute("aria-sort", "descending")
        assert column(page, "latency") == [*reversed(seconds), "–"]
        latency.get_by_role("button").click()
        expect(latency).to_have_attribute("aria-sort", "none")
        assert rows(page) == [f"Law #{number}" for number in (0, 3, 4, 5, 6, 1, 2)]


def test_questions_of_several_tasks_are_told_apart(browser: Browser, tmp_path: Path) -> None:
    run = sample_run(tmp_path / "run", ("ceval_gen", "ceval_zero_shot_gen"), subjects=("law",))
    FORMATS["html"].write(run, tmp_path / "report.html")
    with opened(browser, tmp_path / "report.html") as page:
        expect(page.get_by_role("heading", level=2).filter(has_text="ceval_zero_shot_gen")).to_be_visible()
        page.get_by_label("Subject", exact=True).select_option("Law · ceval_zero_shot_gen val")
        expect(page.locator("#rows tr")).to_have_count(2)
        assert set(rows(page)) == {"Law · ceval_zero_shot_gen val #0", "Law · ceval_zero_shot_gen val #1"}


def test_pages_are_turned(browser: Browser, file: Path) -> None:
    with opened(browser, file) as page:
        expect(page.locator("#rows tr")).to_have_count(50)
        expect(page.get_by_role("button", name="Previous")).to_be_disabled()
        for number in (2, 3, 4):
            page.get_by_role("button", name="Next").click()
            expect(page.locator("#page")).to_have_text(f"Page {number} of 4")
        expect(page.locator("#rows tr")).to_have_count(10)
        expect(page.get_by_role("button", name="Next")).to_be_disabled()


def test_a_question_is_opened_with_the_keyboard_and_shows_its_options_and_the_whole_conversation(
    browser: Browser, file: Path
) -> None:
    with opened(browser, file) as page:
        page.get_by_role("searchbox").fill("zebra")
        expect(page.locator("#rows .opener")).to_have_count(1)  # the list is drawn anew a moment after the last letter
        opener = page.get_by_role("button", name="law 第 0 题")
        opener.focus()
        page.keyboard.press("Enter")
        expect(opener).to_have_attribute("aria-expanded", "true")
        detail = page.locator("#rows .detail")
        expect(detail.locator(".reply pre")).to_have_text(REPLIES["law", 0])
        expect(detail.locator("li.right")).to_have_text("A 甲 ✓ correct answer")
        expect(detail.locator("li.wrong")).to_have_text("B 乙 the model's answer")
        detail.get_by_text("What was sent (3 messages)").click()
        expect(detail.locator("details pre").nth(0)).to_contain_text("例题 1 + 1 = ?")
        assert "law 第 0 题 <b>?</b>\nA. 甲" in detail.locator("details pre").nth(2).inner_text()
        expect(detail.locator(".facts")).to_contain_text("460")
        opener.focus()
        page.keyboard.press("Space")
        expect(detail).to_have_count(0)
        page.locator("#rows .column-outcome").click()  # anywhere on its line
        expect(detail).to_have_count(1)


def test_a_very_long_reply_is_cut_until_it_is_asked_for(browser: Browser, file: Path) -> None:
    with opened(browser, file) as page:
        page.get_by_role("searchbox").fill("xxxxx")
        expect(page.locator("#rows .opener")).to_have_count(1)
        page.get_by_role("button", name="law 第 1 题").click()
        text = page.locator(".detail .reply pre")
        assert len(text.inner_text()) == 20_000
        page.get_by_role("button", name="Show all 30,000 characters").click()
        assert len(text.inner_text()) == 30_000


def test_the_browser_chooses_the_language_unless_the_file_does_and_the_switch_changes_it(
    browser: Browser, file: Path, tmp_path: Path
) -> None:
    with opened(browser, file, locale="zh-CN") as page:
        expect(page.locator("html")).to_have_attribute("lang", "zh-Hans")
        expect(page.locator("#found")).to_have_text("160 道题中的 160 道")
        expect(page.locator('[data-chart="subjects"] svg.plot')).to_contain_text("计算机网络")
        page.get_by_role("button", name="English").click()
        expect(page.locator("html")).to_have_attribute("lang", "en")
        expect(page.locator("#found")).to_have_text("160 of 160 questions")
        expect(page.locator('[data-chart="subjects"] svg.plot')).to_contain_text("Computer Network")
        assert rows(page)[0].startswith("Computer Network #")
    run = write_run(tmp_path / "run", {"law": "10"})
    with opened(browser, page_of(run, "zh")) as page:
        expect(page.get_by_role("heading", name="科目")).to_be_visible()


def test_the_theme_is_the_systems_until_the_switch_is_used(browser: Browser, file: Path) -> None:
    with opened(browser, file, scheme="dark") as page:
        background = "getComputedStyle(document.body).backgroundColor"
        dark = page.evaluate(background)
        page.get_by_role("button", name="Light").click()
        assert page.evaluate(background) != dark
        page.emulate_media(color_scheme="light")
        expect(page.get_by_role("button", name="Dark")).to_be_visible()
        page.get_by_role("button", name="Dark").click()
        assert page.evaluate(background) == dark


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_anybody_from_using_it(browser: Browser, small: Path, scheme: Literal["light", "dark"]) -> None:
    with opened(browser, small, scheme=scheme) as page:
        expect(page.locator(".chart svg.plot")).to_have_count(5)
        page.locator("summary, #rows .opener").evaluate_all("all => all.forEach((one) => one.click())")
        assert faults(page) == []
        page.get_by_role("button", name="中文").click()
        page.locator("#rows .opener").evaluate_all("all => all.forEach((one) => one.click())")
        assert faults(page) == []


def test_accuracy_is_shown_by_the_length_of_replies(browser: Browser, tmp_path: Path) -> None:
    def longer_where_wrong(one: Prediction) -> Prediction:
        return replace(one, completion_tokens=one.id + (10 if one.correct else 100))

    directory = tmp_path / "20260101-000000-ceval_gen-m"
    sample_run(directory, outcome=longer_where_wrong)
    with opened(browser, page_of(directory), width=390) as page:
        chart = page.locator('[data-chart="by_length"]')
        expect(chart.locator("svg.plot")).to_be_visible()
        page.locator("figure", has=chart).get_by_text("Show as a table").click()
        table = page.locator("table", has=page.locator("caption", has_text="Accuracy by reply length"))
        expect(table.locator("tbody tr").first).to_contain_text("100.00")
        expect(table.locator("tbody tr").last).to_contain_text("0.00")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert faults(page) == []


@pytest.mark.parametrize(("gpus", "width"), [(1, 1200), (2, 390)])
def test_how_busy_gpus_were_is_drawn_below_replies_a_second(
    browser: Browser, tmp_path: Path, gpus: int, width: int
) -> None:
    directory = tmp_path / "20260101-000000-ceval_gen-m"
    begin = min(one.ended_at or 0 for one in sample_run(directory).predictions)
    for gpu in range(gpus):
        loads = [
            GpuLoad(at=begin + n / 500, gpu=gpu, utilization=90 - 10 * gpu, used_mib=40960 + n, total_mib=81559)
            for n in range(10)
        ]
        append_gpu_loads(directory, loads)
    with opened(browser, page_of(directory), width=width) as page:
        charts = page.locator("#time .over-time .chart")
        expect(charts.locator("svg.plot")).to_have_count(4)
        assert [one.get_attribute("data-chart") for one in charts.all()] == ["pace", "in_flight", "gpu", "gpu_memory"]
        label = charts.nth(2).locator("svg.plot").get_attribute("aria-label") or ""
        assert "GPU 0: mean 90 %" in label
        assert ("GPU 1: mean 80 %" in label) == (gpus == 2)
        expect(charts.nth(3)).to_contain_text("at most 40.0 of 79.6 GiB")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert faults(page) == []


@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
def test_on_a_phone_nothing_is_wider_than_the_screen(browser: Browser, file: Path, locale: str) -> None:
    with opened(browser, file, width=390, locale=locale) as page:
        assert sticking_out(page) == []
        page.set_viewport_size({"width": 360, "height": 900})
        expect(page.locator(".chart svg.plot")).to_have_count(8)
        page.get_by_role("searchbox").fill("xxxxx")
        expect(page.locator("#rows .opener")).to_have_count(1)
        page.get_by_role("button", name="law 第 1 题").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_on_paper_it_is_black_on_white_and_without_controls(browser: Browser, file: Path) -> None:
    with opened(browser, file, scheme="dark") as page:
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
        for hidden in (".filters", ".pages", ".switches"):
            expect(page.locator(hidden)).to_be_hidden()
        expect(page.locator(".chart svg.plot").first).to_be_visible()


@pytest.mark.slow
def test_14_000_questions_make_no_more_rows_than_a_page_has(browser: Browser, tmp_path: Path) -> None:
    outcomes = random_outcomes(find_task("ceval_gen"), 0.6, questions=270)
    with opened(browser, page_of(write_run(tmp_path / "run", outcomes))) as page:
        expect(page.locator("#found")).to_have_text("14,040 of 14,040 questions")
        expect(page.locator("#rows tr")).to_have_count(50)
        page.get_by_role("searchbox").fill("marxism 第 269 题")
        expect(page.locator("#found")).to_have_text("1 of 14,040 questions")
        page.get_by_role("button", name="Reset").click()
        page.locator('th[data-sort="latency"] button').click()
        expect(page.locator("#rows td.column-part").first).to_have_text("Computer Network #0")
