"""Text of a model or a data set on a run's page: whatever it is, it is shown and does nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from bundle.reports.formats import FORMATS
from bundle.runs.files import PREDICTIONS, PROMPTS
from bundle.runs.predictions import read_predictions
from bundle.runs.prompts import prompt_lines, read_prompts
from bundle.runs.recorded_run import read_recorded_run
from bundle.tasks.catalog import Question
from tests.reports.browser import faults, opened
from tests.reports.run_directories import write_run

RAN = "document.documentElement.dataset.ran = 'yes'"
HOSTILE = [
    f"<script>{RAN}</script>",
    f"</script><script>{RAN}</script>",
    f'</SCRIPT ><img src=x onerror="{RAN}">',
    f"<!--<script>{RAN}</script>",
    f']]></style></textarea></title><svg onload="{RAN}">',
    f'"\'><iframe srcdoc="<script>parent.{RAN}</script>">',
    f'<a href="javascript:{RAN}">here</a>',
    "<meta http-equiv=refresh content='0;url=https://example.com/'><link rel=stylesheet href=//example.com/x.css>",
    "<form action=https://example.com/><button>Send</button></form>",
    "{{ 7 * 7 }} {% raw %} ${7 * 7}",
    "A\u202egpj.exe\u202c B\u2066C\u200f",
    "half a character \ud83d and \udc00 alone",
    "nul \0 and escape \x1b[31m",
    "line\u2028separator\u2029",
    "\ufeffB\ufffe",
    "文" * 1_000_000,
]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run in which all that others wrote is hostile: messages, replies, answers, names and settings."""
    directory = write_run(
        tmp_path_factory.mktemp("runs") / "run",
        {"law": "1" * len(HOSTILE), "logic": "x"},
        model=HOSTILE[1],
        record={
            "sampling": {"temperature": 0.0, "max_out_len": 1, "max_seq_len": None, HOSTILE[0]: HOSTILE[4]},
            "data": {"source": HOSTILE[2], "origin": "", "fingerprint": ""},
        },
    )
    law = [one for one in read_predictions(directory) if one.subject == "law"]
    (failed,) = (one for one in read_predictions(directory) if one.subject == "logic")
    predictions = [
        replace(one, reply=text, answer=text[:500], gold=text[:500], thinking=text, finish_reason=text[:500])
        for one, text in zip(law, HOSTILE, strict=True)
    ]
    predictions.append(replace(failed, error=HOSTILE[3]))
    content = "".join(one.to_json() + "\n" for one in predictions)
    (directory / PREDICTIONS).write_text(content, encoding="utf-8")
    gold = {one.key: one.gold for one in predictions}
    questions = [
        Question(*key, [{"role": "user", "content": f"{text} {key[3]}"}], gold[key], 0)
        for key, text in zip(read_prompts(directory), [*HOSTILE, HOSTILE[0]], strict=True)
    ]
    (directory / PROMPTS).write_bytes(b"".join(prompt_lines(questions)))
    page = directory / "report.html"
    FORMATS["html"].write(read_recorded_run(directory), page)
    return page


def test_hostile_text_is_shown_as_it_is_and_does_not_run(browser: Browser, file: Path) -> None:
    with opened(browser, file) as page:
        expect(page.locator("#rows tr")).to_have_count(len(HOSTILE) + 1)
        for opener in page.locator("#rows .opener").all():
            opener.click()
        details = page.locator("#rows .detail")
        expect(details).to_have_count(len(HOSTILE) + 1)
        shown = details.locator(".reply pre").all_inner_texts()
        assert shown[:10] == HOSTILE[:10]
        assert page.locator("html").get_attribute("data-ran") is None
        assert page.locator("iframe, #rows a, #rows img, #rows form, main svg[onload]").count() == 0
        expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE[1])
        expect(page.locator("footer")).to_be_visible()
        assert faults(page) == []


def test_what_nobody_would_see_is_written_out(browser: Browser, file: Path) -> None:
    with opened(browser, file) as page:
        for number, shown in {
            10: "AU+202Egpj.exeU+202C BU+2066CU+200F",
            11: "half a character U+D83D and U+DC00 alone",
            12: "nul U+0000 and escape U+001B[31m",
            13: "lineU+2028separatorU+2029",
            14: "U+FEFFBU+FFFE",
        }.items():
            line = page.locator("#rows tr", has=page.get_by_role("cell", name=f"Law #{number}", exact=True))
            opener = line.get_by_role("button")
            opener.click()
            expect(page.locator("#rows .detail .reply pre")).to_have_text(shown)
            opener.click()


def test_a_script_that_got_in_would_not_run(browser: Browser, file: Path, tmp_path: Path) -> None:
    # What if escaping failed one day? The policy is put to the test with a page into which a script was smuggled.
    smuggled = tmp_path / "smuggled.html"
    text = file.read_text(encoding="utf-8")
    body = f"<body onload=\"{RAN}\"><script>{RAN}</script><img src='https://example.invalid/x.png'>"
    smuggled.write_text(text.replace("<body>", body, 1), encoding="utf-8")
    with browser.new_context() as context:
        page = context.new_page()
        requests: list[str] = []
        page.on("requestfinished", lambda request: requests.append(request.url))
        page.goto(smuggled.as_uri())
        expect(page.locator("#rows tr").first).to_be_visible()
        assert page.locator("html").get_attribute("data-ran") is None
        assert requests == [smuggled.as_uri()]
