"""All runs in a directory side by side: what stands on the board, its page, and the server."""

import http.client
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from bundle.errors import UsageError
from bundle.reports.board.board import Reader
from bundle.reports.board.page import board_data, write_board
from bundle.reports.board.server import BoardServer
from bundle.reports.comparison import Comparison, compare
from bundle.reports.comparison.wording import p_value
from bundle.reports.html.content import OVERALL
from bundle.runs.files import PREDICTIONS, RECORD
from bundle.runs.gpu_load import GpuLoad, append_gpu_loads
from bundle.runs.recorded_run import RecordedRun, read_recorded_run
from bundle.system.locks import Lock
from bundle.tasks.catalog import find_task
from tests.program import call, run
from tests.reports.browser import faults, opened
from tests.reports.run_directories import describe, random_outcomes, write_run

TASK = find_task("ceval_gen")


def write_runs(out: Path) -> Path:
    """A base, three checkpoints of one training, and a run of two subjects."""
    for hour, (model, share) in enumerate(
        [("base", 0.3), ("sft-step-1000", 0.5), ("sft-step-2000", 0.9), ("sft-step-3000", 0.7)]
    ):
        outcomes = random_outcomes(TASK, share, seed=hour, questions=3)
        write_run(out / f"20261124-0{hour}0000-{model}", outcomes, model=model)
    write_run(out / "20261124-080000-few", {"law": "10-x.", "logic": "11"}, model="sft-step-4000", limit=5)
    return out


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_runs(tmp_path_factory.mktemp("board") / "outputs")


def runs_of(out: Path) -> dict[str, Any]:
    (table,) = board_data(Reader(out).read())["tables"]
    return {run["model"]: run for run in table["runs"]}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("sft-step-1000", ("sft", 1000)),
        ("sft-1000", ("sft", 1000)),
        ("checkpoint-2000", ("", 2000)),
        ("iter_0004000-hf", ("hf", 4000)),
        ("global_step300", ("", 300)),
        ("internlm2_5-1_8b-chat", None),
        ("qwen2.5-7b", None),
        ("gpt-4", None),
    ],
)
def test_a_training_step_is_found_in_a_models_name(
    tmp_path: Path, model: str, expected: tuple[str, int] | None
) -> None:
    read = read_recorded_run(write_run(tmp_path / "run", {"law": "1"}, model=model))
    assert read.training_step == expected


def test_a_checkpoint_without_a_name_belongs_to_its_training(tmp_path: Path) -> None:
    local = describe(TASK, "x").to_json() | {
        "model": {
            "path": "/runs/dpo-7b/checkpoint-500",
            "architecture": "LlamaForCausalLM",
            "weight_bytes": 1,
            "quantization": None,
            "fingerprint": "0",
        }
    }
    del local["requests"]
    write_run(tmp_path / "run", random_outcomes(TASK, 0.5, questions=1), record=local)
    assert read_recorded_run(tmp_path / "run").training_step == ("dpo-7b", 500)
    assert "/runs" not in json.dumps(board_data(Reader(tmp_path).read()))


def test_every_run_is_compared_with_the_oldest_whole_one(out: Path) -> None:
    runs = runs_of(out)

    base, new = (read_recorded_run(out / name) for name in ("20261124-000000-base", "20261124-020000-sft-step-2000"))
    rows = {row.name: row for row in compare(base, new).rows}
    changes = runs["sft-step-2000"]["changes"]
    assert changes[OVERALL]["difference"] == rows["ceval"].difference
    assert changes["stem"]["p"] == p_value(rows["ceval-stem"].p)
    assert changes.keys() == {OVERALL, "stem", "social-science", "humanities", "other", "hard"}
    assert runs["sft-step-2000"]["scores"]["hard"][0] == new.scores["ceval-hard"].accuracy
    assert runs["base"]["changes"] == {}


def test_the_base_is_the_oldest_run_with_the_newest_ones_questions(tmp_path: Path) -> None:
    for hour, (model, data) in enumerate([("sample", "s"), ("first", "c"), ("second", "c")]):
        outcomes = random_outcomes(TASK, 0.5, seed=hour, questions=3)
        write_run(tmp_path / f"20261124-0{hour}0000-{model}", outcomes, model=model, data=data)

    (table,) = board_data(Reader(tmp_path).read())["tables"]

    runs = {run["model"]: run for run in table["runs"]}
    assert table["base"] == "20261124-010000-first"
    assert runs["second"]["changes"]
    assert "different questions" in runs["sample"]["incomparable"]


def test_a_run_with_another_prompt_is_not_the_base(tmp_path: Path) -> None:
    for hour, shape in enumerate(["flat", "turns", "turns"]):
        outcomes = random_outcomes(TASK, 0.5, seed=hour, questions=3)
        directory = write_run(tmp_path / f"20261124-0{hour}0000-{shape}", outcomes, data="c")
        record = json.loads((directory / "run.json").read_text())
        record["tasks"][0]["shape"] = shape
        (directory / "run.json").write_text(json.dumps(record))

    (table,) = board_data(Reader(tmp_path).read())["tables"]

    assert table["base"] == "20261124-010000-turns"
    assert "different prompts" in {run["run"]: run for run in table["runs"]}["20261124-000000-flat"]["incomparable"]


def test_a_table_without_the_base_that_was_named_has_one_of_its_own(tmp_path: Path) -> None:
    for hour, task in enumerate(("cmmlu_gen", "cmmlu_gen", "ceval_gen", "ceval_gen")):
        outcomes = random_outcomes(find_task(task), 0.5, seed=hour, questions=1)
        write_run(tmp_path / f"20261124-0{hour}0000-x", outcomes, task=task)

    tables = board_data(Reader(tmp_path, base=tmp_path / "20261124-030000-x").read())["tables"]

    assert {one["title"]: one["base"] for one in tables} == {
        "ceval_gen": "20261124-030000-x",
        "cmmlu_gen": "20261124-000000-x",
    }


def test_what_cannot_be_compared_says_why_and_a_part_is_called_one(out: Path) -> None:
    few = runs_of(out)["sft-step-4000"]
    assert "different subjects" in few["incomparable"]
    assert few["changes"] == {}
    assert few["partial"] == {"limit": {"n": 5}, "subjects": {"n": 2, "all": 52}}
    assert (few["state"], few["answered"], few["failed"], few["total"]) == ("incomplete", 5, 1, 7)


def test_runs_that_go_on_that_are_damaged_and_that_never_asked_are_told_apart(tmp_path: Path) -> None:
    going = write_run(tmp_path / "going", {"law": "11."}, results=False)
    loads = [(0, 50), (0, 70), (1000, 1), (0, None)]  # seconds ago
    append_gpu_loads(
        going,
        [GpuLoad(at=time.time() - ago, gpu=0, utilization=busy, used_mib=1, total_mib=1) for ago, busy in loads],
    )
    (write_run(tmp_path / "damaged", {"law": "1"}) / RECORD).write_text("{")
    (tmp_path / "never").mkdir()
    (tmp_path / "never" / PREDICTIONS).touch()
    lock = Lock(going)
    lock.take()
    try:
        data = board_data(Reader(tmp_path).read())
    finally:
        lock.release()
    (one,) = data["tables"][0]["runs"]
    assert (one["state"], one["answered"], one["total"]) == ("running", 2, 3)
    assert one["since"] is not None
    assert one["gpu"] == pytest.approx(60)
    assert data["tables"][0]["base"] is None
    assert data["never_asked"] == ["never"]
    assert data["damaged"][0]["run"] == "damaged"


def test_a_reader_sees_what_was_answered_since(tmp_path: Path) -> None:
    going = write_run(tmp_path / "going", {"law": "11."}, results=False)
    line = (write_run(tmp_path / "elsewhere" / "x", {"law": "111"}) / PREDICTIONS).read_text().splitlines()[2]
    reader = Reader(tmp_path)
    assert reader.read().tables[0].runs[0].run.answered == 2
    with (going / PREDICTIONS).open("a") as file:
        file.write(line + "\n")
    assert reader.read().tables[0].runs[0].run.answered == 3


def test_a_base_that_goes_away_while_it_is_compared_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = write_run(tmp_path / "a", {"law": "10"})
    write_run(tmp_path / "b", {"law": "11"})

    def compared_too_late(*runs: RecordedRun) -> Comparison:
        shutil.rmtree(base)
        return compare(*runs)

    monkeypatch.setattr("bundle.reports.board.board.compare", compared_too_late)
    (table,) = Reader(tmp_path).read().tables
    assert {one.run.name: len(one.changes) for one in table.runs} == {"a": 0, "b": 1}


def test_the_command_writes_the_board_and_its_comparisons_and_links_reports(tmp_path: Path) -> None:
    out = write_runs(tmp_path / "outputs")
    report = out / "20261124-020000-sft-step-2000" / "report.html"
    report.touch()
    result = run("board", out, "--base", "sft-step-1000", "-o", tmp_path / "b.html", environment=os.environ)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{tmp_path / 'b.html'}\n"
    found = re.search(r'id="data">(.*?)</script>', (tmp_path / "b.html").read_text(encoding="utf-8"))
    assert found is not None
    (table,) = json.loads(found[1])["tables"]
    assert table["base"] == "20261124-010000-sft-step-1000"
    links = {run["model"]: (run["report"], run["comparison"]) for run in table["runs"]}
    assert links["sft-step-2000"] == ("outputs/20261124-020000-sft-step-2000/report.html", "b-ceval_gen.html")
    assert links["base"] == (None, "b-ceval_gen.html")
    assert links["sft-step-4000"] == (None, None)
    assert "sft-step-3000" in (tmp_path / "b-ceval_gen.html").read_text(encoding="utf-8")


def test_a_base_that_the_board_does_not_show_is_refused(tmp_path: Path) -> None:
    elsewhere, _ = (write_run(tmp_path / name, {"law": "10"}) for name in ("elsewhere", "outputs/a"))
    (write_run(tmp_path / "outputs" / "damaged", {"law": "1"}) / RECORD).write_text("{")
    for base in (elsewhere, "damaged"):
        result = call("board", tmp_path / "outputs", "--base", base, environment=os.environ)
        assert (result.returncode, result.stdout) == (2, "")
        assert f"--base: the board of {tmp_path / 'outputs'} does not show" in result.stderr


def test_serving_and_writing_exclude_each_other(tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    result = run("board", tmp_path / "outputs", "--serve", "-o", tmp_path / "b.html", environment=os.environ)
    assert (result.returncode, "--serve writes no file" in result.stderr) == (2, True)


@contextmanager
def served(out: Path) -> Iterator[BoardServer]:
    with BoardServer(Reader(out), out) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_the_server_gives_its_own_pages_to_this_machine_and_nothing_else(out: Path) -> None:
    def ask(path: str, host: str | None = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
        connection.request("GET", path, headers={} if host is None else {"Host": host})
        reply = connection.getresponse()
        return reply.status, reply.read().decode()

    base, new = "20261124-000000-base", "20261124-020000-sft-step-2000"
    with served(out) as server:
        assert server.server_address[0] == "127.0.0.1"
        status, text = ask("/")
        assert status == 200
        assert "connect-src 'self'" in text.replace("&#39;", "'")
        assert json.loads(ask("/board.json")[1])["tables"][0]["base"] == base
        assert base in ask(f"/runs/{base}")[1]
        assert json.loads(ask(f"/runs/{base}/now.json")[1])["running"] is False
        assert new in ask(f"/compare/{base}/{new}")[1]
        assert ask("/board.json", host="example.com")[0] == 403
        for nothing in ("/runs/none", "/runs/..", "/runs/%2E%2E%2Foutputs", f"/runs/{base}/run.json", "/etc/passwd"):
            assert ask(nothing)[0] == 404
        assert ask(f"/compare/{base}/20261124-080000-few")[0] == 500
        with pytest.raises(UsageError, match="cannot be used"):
            BoardServer(Reader(out), out, port=server.server_port)


def test_a_run_that_the_served_directory_is_in_is_not_served(tmp_path: Path) -> None:
    inner = write_run(tmp_path / "run", {"law": "1"}) / "inner"
    write_run(inner / "other", {"law": "1"})
    with served(inner) as server:
        assert server.page(["runs", "other"]) is not None
        assert server.page(["runs", ".."]) is None


# In a browser.


@pytest.fixture(scope="module")
def file(out: Path) -> Path:
    write_board(Reader(out).read(), out / "board.html")
    return out / "board.html"


@pytest.mark.slow
def test_runs_are_sorted_filtered_and_turned_to_differences(browser: Browser, file: Path) -> None:
    with opened(browser, file) as page:
        names = page.locator(".board tbody .name")
        expect(names.first).to_have_text("sft-step-2000")
        expect(page.locator(".chart svg.plot")).to_have_count(1)
        expect(page.locator(".score.best")).to_have_count(6)
        page.get_by_role("button", name="Model").click()
        assert names.all_inner_texts() == ["base", *(f"sft-step-{n}000" for n in (1, 2, 3, 4))]
        page.get_by_role("button", name="Difference from the base").click()
        expect(page.get_by_role("button", name="Difference from the base")).to_be_focused()
        expect(page.locator("tr", has_text="sft-step-2000").locator("td").nth(2)).to_contain_text("+")
        assert page.evaluate("location.hash") == "#sort=model&view=change"
        expect(page.locator("tr", has_text="sft-step-4000")).to_contain_text("not comparable")
    with opened(browser, file, fragment="sort=model") as page:
        expect(page.locator(".board tbody .name").first).to_have_text("base")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1400), ("dark", 390)])
def test_nothing_keeps_anybody_from_using_it(browser: Browser, file: Path, scheme: Any, width: int) -> None:
    with opened(browser, file, scheme=scheme, width=width) as page:
        expect(page.locator(".board tbody tr")).to_have_count(5)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert faults(page) == []
        page.get_by_role("button", name="中文").click()
        expect(page.locator("#status")).to_contain_text("5 次评测")
        assert faults(page) == []


@pytest.mark.slow
def test_a_page_that_is_served_shows_how_far_a_run_is(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "outputs"
    task = "ceval_gen_2daf24"
    going = write_run(out / "going", {"val/law": "11x..", "test/law": "1...."}, task=task, results=False)
    line = (write_run(tmp_path / "x", {"val/law": "11111"}, task=task) / PREDICTIONS).read_text().splitlines()[3]
    lock = Lock(going)
    lock.take()
    page = browser.new_page()
    try:
        with served(out) as server:
            page.goto(server.url)
            first, other = page.locator(".progress").first, page.locator(".progress").last
            expect(first).to_contain_text("3 / 5")
            expect(first).to_contain_text("1 failed")
            expect(other).not_to_contain_text("failed")
            with (going / PREDICTIONS).open("a") as file:
                file.write(line + "\n")
            expect(first).to_contain_text("4 / 5")
            expect(other).to_contain_text("1 / 5 · 0.0 questions/s")
        expect(page.locator("#status")).to_contain_text("no longer served")
    finally:
        lock.release()
        page.close()


def test_the_page_of_a_run_that_goes_on_follows_it_and_shows_its_end(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "outputs"
    going = write_run(out / "20260101-000000-going", {"law": "1101x" + "." * 15, "logic": "1" * 10}, results=False)
    more = write_run(tmp_path / "x", {"law": "1" * 20}) / PREDICTIONS
    append_gpu_loads(going, [GpuLoad(at=1_700_000_003.0, gpu=0, utilization=91, used_mib=1, total_mib=1024)])
    lock = Lock(going)
    lock.take()
    page = browser.new_page()
    try:
        with served(out) as server:
            page.goto(server.url)
            page.get_by_role("link", name="tiny").click()
            live = page.locator("#live")
            expect(live).to_contain_text("15 of 30 questions")
            expect(live.locator("svg.plot")).to_have_count(4)
            expect(live).to_contain_text("1 failed")
            assert faults(page) == []
            page.get_by_role("button", name="中文").click()
            page.get_by_role("button", name="深色").click()
            with (going / PREDICTIONS).open("a") as file:
                file.writelines(line + "\n" for line in more.read_text().splitlines()[5:])
            expect(live).to_contain_text("30 / 30 题")
            expect(live).to_contain_text("目前 29 题中答对 96.6%")
            lock.release()
            expect(live).to_have_count(0)
            expect(page.get_by_role("button", name="浅色")).to_be_visible()  # as it was chosen before
            expect(page.locator("#time svg.plot")).to_have_count(4)
    finally:
        lock.release()
        page.close()


def test_a_reader_of_a_reply_is_not_torn_out_of_it_by_the_end(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "outputs"
    going = write_run(out / "20260101-000000-going", {"law": "1101x."}, results=False)
    lock = Lock(going)
    lock.take()
    page = browser.new_page()
    try:
        with served(out) as server:
            page.goto(f"{server.url}runs/{going.name}")
            page.locator("#rows .opener").first.click()
            lock.release()
            expect(page.locator("#live-says")).to_have_text("The run has ended. Press Update to see its results.")
            expect(page.locator("#rows .detail")).to_be_visible()
            page.get_by_role("button", name="Update").click()
            expect(page.locator("#live")).to_have_count(0)
    finally:
        lock.release()
        page.close()


def test_a_doubtful_run_is_not_the_best(browser: Browser, tmp_path: Path) -> None:
    for hour, marks in enumerate(("10", "110", "1" * 18 + "--")):
        outcomes = {subject.name: marks for subject in TASK.subjects}
        write_run(tmp_path / f"20261124-0{hour}0000-x", outcomes)
    write_board(Reader(tmp_path).read(), tmp_path / "board.html")
    with opened(browser, tmp_path / "board.html") as page:
        expect(page.locator("td.wide-cell .score").first).to_have_text("90.00")
        assert set(page.locator(".score.best").all_text_contents()) == {"66.67"}


@pytest.mark.slow
def test_the_line_joins_runs_of_the_same_questions_and_none_of_others(browser: Browser, tmp_path: Path) -> None:
    """A newer run of a few questions is not the checkpoint's point among whole ones; where all are parts, they are."""
    for hour, (step, limit) in enumerate([(1000, None), (2000, None), (1000, 2), (2000, 2), (3000, 2)]):
        outcomes = random_outcomes(TASK, 0.5, seed=hour, questions=limit or 3)
        write_run(tmp_path / f"20261124-0{hour}0000-x", outcomes, model=f"sft-{step}", limit=limit)
    for base, points in ((None, 2), (tmp_path / "20261124-020000-x", 3)):
        file = tmp_path / f"board-{points}.html"
        write_board(Reader(tmp_path, base=base).read(), file)
        with opened(browser, file) as page:
            expect(page.locator(".chart path[d^='M4.5,0']")).to_have_count(points)
