"""The results on the screen, in Chinese."""

import re
from io import StringIO
from pathlib import Path

import pytest
from rich.cells import cell_len

from bundle.reports.screen.console import Screen
from bundle.reports.texts import terminal_language
from bundle.runs.recorded_run import read_recorded_run
from bundle.tasks.catalog import find_task
from tests.openai_api import remote_api
from tests.pipeline.test_eval_remote import ENVIRONMENT
from tests.program import run as run_program
from tests.reports.run_directories import write_run


@pytest.mark.parametrize(
    ("variables", "language"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LC_ALL": "en_US.UTF-8", "LANG": "zh_CN.UTF-8"}, "en"),
        ({"LC_ALL": "", "LC_MESSAGES": "zh_TW", "LANG": "C"}, "zh"),
        ({}, "en"),
    ],
)
def test_the_locale_decides(variables: dict[str, str], language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert terminal_language() == language


def shown(directory: Path) -> str:
    """What the screen shows of a run in Chinese."""
    run, stream = read_recorded_run(directory), StringIO()
    assert run.results is not None
    Screen(out=stream, language="zh").results(run.tasks, run.results, run.health, scopes=run.scopes)
    return stream.getvalue()


def test_table_health_and_counts_are_in_chinese(tmp_path: Path) -> None:
    outcomes = {subject.name: "1100" for subject in find_task("ceval_gen").subjects} | {"law": "--x."}
    text = shown(write_run(tmp_path / "run", outcomes, limit=4))
    assert re.search("得分 +95% 区间 +已答", text)
    assert "ceval-stem，20 科" in text
    assert "部分评测：每科前 4 题，" in text
    assert "另有 " in text
    assert "测量：正常；206 条回复中 2 条没有选项" in text
    assert "共 208 题，已答 206 题，1 题无回复，1 题未提问" in text
    assert "启动服务 12.5 秒" in text
    assert not re.search(r"answered|questions|\bsubjects|reply|replies", text.replace("--all-subjects", ""))
    assert max(map(cell_len, text.splitlines())) <= 100


def test_a_doubtful_measurement_says_so_with_a_remedy_and_a_mean_is_named(tmp_path: Path) -> None:
    text = shown(write_run(tmp_path / "run", {"law": "-" * 20, "logic": "10" * 10}))
    assert "52 科中 2 科的平均：25.00（95% 区间 " in text
    assert "测量：存疑，40 条回复中 20 条未提取到选项（50.0%）" in text
    assert "看示例：模型是否看到了题目" in text


def test_the_option_chooses_it(tmp_path: Path) -> None:
    with remote_api() as api:
        options = ["--base-url", api.url, "--data", "sample", "--subjects", "law", "--out", tmp_path, "--lang", "zh"]
        result = run_program("eval-remote", "m", *options, environment=ENVIRONMENT)
    assert result.returncode == 0, result.stderr
    assert "共 2 题，已答 2 题" in result.stdout
    assert "报告：" in result.stdout
