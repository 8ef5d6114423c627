"""The results on the screen, in Chinese."""

import os
import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from bundle.reports.comparison.series import Entry, compare_all, show
from bundle.reports.gates.conclusion import parse_conclusion
from bundle.reports.screen.console import Screen
from bundle.reports.screen.output import console
from bundle.reports.texts import Words, terminal_language
from bundle.runs.recorded_run import read_recorded_run
from bundle.tasks.catalog import find_task
from tests.openai_api import remote_api
from tests.pipeline.test_eval_remote import ENVIRONMENT
from tests.program import call
from tests.program import run as run_program
from tests.reports.run_directories import random_outcomes, write_run


@pytest.mark.parametrize(
    ("language", "said"),
    [("en", "2,340 more lost and 9 more won: --flips 2359,"), ("zh", "2,340 题变错、9 题变对：--flips 2359、")],
)
def test_numbers_have_their_thousands_set_apart_and_options_can_be_typed(language: Any, said: str) -> None:
    assert said in Words(language)("screen.more_flips", lost=2340, won=9, all=2359)


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
    assert "看几条这样的回复：模型是否看到了题目" in text


def test_the_option_chooses_it(tmp_path: Path) -> None:
    with remote_api() as api:
        options = ["--base-url", api.url, "--data", "sample", "--subjects", "law", "--out", tmp_path, "--lang", "zh"]
        result = run_program("eval-remote", "m", *options, environment=ENVIRONMENT)
    assert result.returncode == 0, result.stderr
    assert "共 2 题，已答 2 题" in result.stdout
    assert "报告：" in result.stdout


ENGLISH = re.compile(
    r"(?<!-)\b(answered|questions?|subjects?|base|new|won|lost|score|better|change|time|of|in|run)\b|model(?!\.)"
)
"""Words of the English tables; names of scores, options and commands hold none of them."""


def chinese(*arguments: object) -> str:
    """What a command prints under a Chinese locale."""
    result = call(*arguments, environment=dict(os.environ) | {"LC_ALL": "zh_CN.UTF-8"})
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two whole runs, a part, one without an option in its replies, and one that never asked."""
    out, task = tmp_path_factory.mktemp("out"), find_task("ceval_gen")
    for number, share in enumerate((0.4, 0.9)):
        outcomes = random_outcomes(task, share, seed=number, questions=4) | {"law": "10-x"}
        write_run(out / f"2026010{number + 1}-000000-{'ab'[number]}", outcomes, model="ab"[number], limit=4)
    write_run(out / "20260103-000000-c", {"law": "-" * 20, "logic": "10"}, model="c", results=False)
    (out / "20260104-000000-d").mkdir()
    (out / "20260104-000000-d" / "predictions.jsonl").touch()
    return out


def test_the_list_of_runs_is_in_chinese(out: Path) -> None:
    text = chinese("runs", "--out", out)
    assert re.search("评测 +模型 +任务 +得分 +已答 +用时", text)
    assert "已中断" in text
    assert re.search(r"\* [\d、-]*20260102-000000[\d、-]*：每科前 4 题", text)
    assert "1 次评测在提问前就已结束：--failed 可列出" in text
    assert "? 测量存疑，原因见 bundle report：20260103-000000" in text
    assert not ENGLISH.search(text)
    assert "score" in call("runs", "--out", out, "--lang", "en", environment=os.environ).stdout


def test_a_comparison_is_in_chinese(out: Path) -> None:
    text = chinese("compare", "20260101", "20260102", "--out", out)
    assert re.search("基准 +新 +变化 +95% 区间 +变对 +变错 +p", text)
    assert re.search(r"ceval：提高 \d+\.\d\d 分，.*（95% 区间 .* 至 .*；\d+ 题变对，\d+ 题变错，p .*）。差异显著", text)
    assert "1 题未计入，因为没有在两次评测中都得到回复" in text
    assert "未提取到选项的回复：基准 1 条，新评测 1 条。" in text
    assert re.search("变化 +标准答案 +基准 +新 +科目 +# +题目", text)
    assert not ENGLISH.search(text)
    few = chinese("compare", "20260101", "20260103", "--out", out, "--common")
    assert "2 科平均：" in few
    assert "测量存疑（新评测）" in few


def test_the_table_of_a_sweep_is_in_chinese(out: Path) -> None:
    runs = [read_recorded_run(out / name) for name in ("20260101-000000-a", "20260102-000000-b", "20260103-000000-c")]
    entries = [Entry(run.model, run, "") for run in runs] + [Entry("d", None, "服务失败（退出码 3）")]
    stream = StringIO()
    compare_all(entries)
    show(console(stream, width=200), entries, Words("zh"))
    text = stream.getvalue()
    assert re.search("ceval +变化 +p", text)
    assert "变化与 p（McNemar 精确检验）：对比 a" in text
    assert "* a、b：每科前 4 题" in text
    assert "c：测量：存疑" in text


def gates(directory: Path, **asked: Any) -> list[str]:
    """What is said of a run's gates in Chinese."""
    lines: list[str] = []
    parse_conclusion(**asked).conclude(directory, 0, lines.append, Words("zh"))
    return lines


def test_scores_that_are_required_are_in_chinese(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"law": "11-x"}, limit=4)
    asked = ["ceval-law=50", "ceval=60"]
    assert gates(run, min_scores=asked, max_unparsed=5, allow_unanswered=1) == [
        "达到门槛：ceval-law 66.67，要求：50；未计入 4 题中无回复的 1 题；部分评测：每科前 4 题",
        "未达到门槛：ceval 没有得分：其科目未全部提问；要求：60",
        "未达到门槛：33.33% 的回复没有选项（3 条中 1 条），允许：5%",
    ]
    assert gates(run, min_scores=asked[:1]) == ["未达到门槛：ceval-law 66.67，要求：50；但 4 题中 1 题无回复"]
    silent = write_run(tmp_path / "silent", {"law": "xx"})
    assert gates(silent, min_scores=asked[:1], max_unparsed=5) == [
        "未达到门槛：ceval-law 没有得分，要求：50；但 2 题中 2 题无回复",
        "未达到门槛：所有题都没有回复，无法得知没有选项的回复所占比例",
    ]


def test_a_drop_that_is_allowed_is_in_chinese_and_its_files_are_in_english(tmp_path: Path) -> None:
    base = write_run(tmp_path / "base", {"law": "1110x", "logic": "11"})
    new = write_run(tmp_path / "new", {"law": "10001", "logic": "10"})
    files = {"junit": tmp_path / "j.xml", "summary": tmp_path / "s.md"}
    (line,) = gates(new, baseline=base, max_drop=1, **files)
    assert line.startswith(
        "未达到门槛：2 科平均 37.50，低 50.00 分于 base 的 87.50，允许降低：1；p = 0.25，差异不显著；"
    )
    assert line.endswith("；1 题未计入，因为基准中没有回复")
    for file in files.values():
        assert "50.00 points below 87.50 in base, allowed drop: 1" in file.read_text(encoding="utf-8")
    assert gates(base, baseline=base, max_drop=1, allow_unanswered=1)[0].startswith("达到门槛：")
    other = write_run(tmp_path / "other", {"law": "xxxx1", "logic": "xx"}, results=False)
    assert gates(other, baseline=base, max_drop=1) == ["未达到门槛：最多比基准低 1 分：没有在两次评测中都得到回复的题"]
