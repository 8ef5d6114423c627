"""``bundle.load`` and ``bundle.evaluate`` as a Python program or a notebook calls them."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import bundle
from bundle.errors import GateError, RunError, UnansweredError, UsageError
from tests.openai_api import Call, completion, error, remote_api
from tests.reports.run_directories import write_run
from tests.stand_ins.box import ROOT

NOTEBOOK = ROOT / "examples" / "notebook.ipynb"


async def always_b(call: Call) -> web.StreamResponse:
    return completion("B")


async def knows_nothing(call: Call) -> web.StreamResponse:
    return completion("?")


def test_importing_it_imports_nothing_else_but_the_version() -> None:
    code = "import sys, bundle; print([name for name in sys.modules if name.startswith('bundle.')])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT) == "['bundle.version']\n"


def test_a_run_is_read_with_its_scores_and_a_row_for_every_question(tmp_path: Path) -> None:
    write_run(tmp_path / "first", {"law": "10-x.", "logic": "11"}, model="sft-1000")

    run = bundle.load("sft-1000", out=tmp_path)

    assert run.scores["ceval-logic"].accuracy == 100
    told = (
        "sft-1000, mean of 2 of 52 subjects 66.67, 2 of 52 subjects: 7 questions, 5 of 7 answered, doubtful measurement"
    )
    assert repr(run) == f"<run first: {told}>"
    rows = [row for row in run.rows if row["subject"] == "law"]
    assert [(row["id"], row["answer"], row["correct"]) for row in rows] == [
        (0, "A", True),
        (1, "C", False),
        (2, "", False),
        (3, None, None),
        (4, None, None),
    ]
    assert rows[0]["question"] == "law 第 0 题 <b>?</b>"
    assert rows[0]["messages"][-1]["content"].endswith("D. 丁\n答案: ")
    assert rows[3]["error"] == "HTTP 500: overloaded"
    assert rows[4] == rows[4] | {"gold": "A", "reply": None, "error": None}


def test_as_a_frame_what_has_no_reply_counts_in_no_mean(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    write_run(tmp_path / "first", {"law": "10-x.", "logic": "11"})

    frame = bundle.load(tmp_path / "first").to_pandas()

    assert frame.groupby("subject")["correct"].mean().to_dict() == {"law": pytest.approx(1 / 3), "logic": 1.0}


def test_no_run_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="There are no runs"):
        bundle.load(out=tmp_path)


async def test_a_model_is_evaluated_where_an_event_loop_runs_already(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)}
    with remote_api(always_b) as api:
        run = bundle.evaluate(
            base_url=api.url, model="sft-1000", data="sample", subjects=["law", "logic"], limit=1, out=tmp_path
        )
    assert run.answered == run.total == 2
    assert run.directory.parent == tmp_path
    assert bundle.load(out=tmp_path).rows == run.rows
    assert {body["model"] for body in api.bodies} == {"sft-1000"}
    assert capfd.readouterr() == ("", "")
    assert handlers == {number: signal.getsignal(number) for number in handlers}


def test_it_is_shown_on_demand(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with remote_api(always_b) as api:
        bundle.evaluate(base_url=api.url, data="sample", subjects="law", limit=1, out=tmp_path, verbose=True)
    assert "1 of 1 question answered" in capfd.readouterr().out


def test_questions_without_a_reply_and_gates_are_errors(tmp_path: Path) -> None:
    async def refuses(call: Call) -> web.StreamResponse:
        first = call.body["messages"] == api.bodies[0]["messages"]
        return error(400, "filtered", code="content_filter") if first else completion("B")

    options: dict[str, Any] = {"model": "the-model", "data": "sample", "subjects": "law", "retries": 0}
    with (
        remote_api(refuses) as api,
        pytest.raises(UnansweredError, match=r"1 of 2 questions have no reply\. Continue with"),
    ):
        bundle.evaluate(base_url=api.url, out=tmp_path / "a", concurrency=1, **options)
    assert bundle.load(out=tmp_path / "a").failed == 1
    with remote_api(knows_nothing) as api, pytest.raises(GateError, match="A gate is not met"):
        bundle.evaluate(base_url=api.url, out=tmp_path / "b", min_score=["ceval-law=1"], allow_partial=True, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Give either model_dir"),
        ({"model_dir": "./m", "base_url": "http://127.0.0.1:1/v1"}, "Give either model_dir"),
        ({"model": "m", "limits": 3}, "no option 'limits'. Did you mean limit"),
        ({"model": "m", "engine": "vllm"}, "no option 'engine'"),
        ({"model": "m", "dry_run": True}, "no option 'dry_run'"),
        ({"model": "m", "engine_arguments": ["--tp", "2"]}, "give model_dir"),
        ({"model_dir": "./m", "adapter": ["a", "b"]}, "A run has one --adapter"),
        ({"model": "m", "adapter": "a"}, "no option 'adapter'"),
        ({"model": "m", "limit": 0}, "limit=0: must be at least 1"),
        ({"model": "m", "concurrency": "many"}, "concurrency='many': must be a valid integer"),
        ({"model": "m", "patience": "soon"}, "'soon' is not a valid time"),
        ({"model": "m", "subjects": ""}, "--subjects is empty"),
    ],
)
def test_what_cannot_be_used_is_told_in_our_words(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        bundle.evaluate(**options)
    assert message in str(caught.value)


def test_an_interruption_keeps_the_answers_so_far(tmp_path: Path) -> None:
    over = threading.Event()

    async def once(call: Call) -> web.StreamResponse:
        if call.number > 1:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            await asyncio.to_thread(over.wait)
        return completion("B")

    with remote_api(once) as api:
        with pytest.raises(KeyboardInterrupt):
            bundle.evaluate(
                base_url=api.url, model="m", data="sample", subjects="law", concurrency=1, stream="never", out=tmp_path
            )
        over.set()
    run = bundle.load(out=tmp_path)
    assert (run.answered, run.total) == (1, 2)


async def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells, one after the other, in a thread that has an event loop, as Jupyter's has."""
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {}
    with remote_api(always_b) as api:
        for cell in cells:
            if cell["cell_type"] == "code":
                source = "".join(cell["source"]).replace("http://127.0.0.1:23333/v1", api.url)
                exec(compile(source, NOTEBOOK.name, "exec"), names)
    assert names["run"].answered == names["run"].total == 104
    assert len(names["hardest"]) == 5
