"""A run's page as a file: what it tells, of whole runs and of others, and what it is made of."""

import base64
import hashlib
import json
import os
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.reports import html
from bundle.reports.formats import FORMATS
from bundle.reports.html import render_page
from bundle.reports.html.content import sections
from bundle.reports.html.page import distribution, live_data
from bundle.reports.html.questions import OUTCOMES, question_data
from bundle.reports.templates import json_for_script
from bundle.reports.texts import catalog
from bundle.runs.recorded_run import read_recorded_run
from bundle.runs.statistics import Counts, accuracy_interval
from bundle.system.locks import Lock
from bundle.tasks.catalog import find_task
from tests.program import run as run_program
from tests.reports.run_directories import describe, random_outcomes, write_run
from tests.reports.sample_run import sample_run

HTML = Path(html.__file__).parent
VENDORED = tomllib.loads((HTML / "vendor" / "vendored.toml").read_text(encoding="utf-8"))


class Elements(HTMLParser):
    """What a page consists of.

    Attributes:
        tags: Every element's name and attributes.
        text: All text outside scripts and styles.
        inline: The content of every script that runs, and of every style.
        data: The content of the scripts that hold data, by id.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.inline: list[str] = []
        self.data: dict[str, Any] = {}
        self.feed(page)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style") and "type" not in dict(attrs):
            self.inline.append("")

    def handle_data(self, data: str) -> None:
        attributes = self.tags[-1][1] if self.tags else {}
        if self.cdata_elem is None:
            self.text += data
        elif "type" in attributes:
            self.data[str(attributes["id"])] = json.loads(data)
        else:
            self.inline[-1] += data


def page(directory: Path, language: Any = None) -> Elements:
    return Elements(render_page(read_recorded_run(directory), language=language))


def test_every_subject_group_and_the_mean_is_told_with_its_interval(tmp_path: Path) -> None:
    outcomes = random_outcomes(find_task("ceval_gen"), 0.6) | {"law": "110x"}
    run = read_recorded_run(write_run(tmp_path / "run", outcomes))
    (section,) = sections(run)
    text = page(run.directory).text

    low_high = accuracy_interval([Counts(2, 3)]) * 100
    (law,) = (line for line in section.subjects if line.english == "Law")
    assert law.score.interval == low_high
    assert section.overall.score == run.scores["ceval"]
    interval = section.overall.score.interval
    assert interval is not None
    assert interval.low < (run.scores["ceval"].accuracy or 0) < interval.high
    assert f"95 % interval {interval.low:.1f} – {interval.high:.1f}" in text
    assert [line.name for line in section.groups] == [
        "ceval-stem",
        "ceval-social-science",
        "ceval-humanities",
        "ceval-other",
        "ceval-hard",
    ]
    accuracies = [line.score.accuracy for line in section.subjects]
    assert len(accuracies) == 52
    assert accuracies == sorted(accuracies, key=lambda value: -(value or 0))
    for line in (*section.groups, *section.subjects):
        assert line.name in text
        assert f"{line.score.accuracy:.2f}" in text


def test_answers_are_counted_by_letter_against_the_right_ones(tmp_path: Path) -> None:
    (section,) = sections(read_recorded_run(write_run(tmp_path / "run", {"law": "11110-x."})))

    assert section.letters is not None
    assert section.letters.options == ("A", "B", "C", "D", "")
    assert section.letters.golds == {"A": 2, "B": 2, "C": 1, "D": 1}
    assert section.letters.answers == {"A": 1, "B": 2, "C": 1, "D": 1, "": 1}
    assert section.letters.pairs["A", "B"] == 1
    assert section.letters.pairs["B", ""] == 1


def test_a_part_of_the_subjects_is_called_a_part(tmp_path: Path) -> None:
    text = page(write_run(tmp_path / "run", {"law": "11", "logic": "10"})).text
    assert "75.00" in text
    assert "plain mean over 2 of 52 subjects" in text


def test_a_question_without_a_reply_is_told_apart_and_not_called_wrong(tmp_path: Path) -> None:
    run = read_recorded_run(write_run(tmp_path / "run", {"law": "1-x."}))
    data = question_data(run)
    assert [OUTCOMES[code].value for code in data.columns["outcome"]] == ["right", "silent", "failed", "unasked"]
    text = page(run.directory).text
    assert "2 of 4 questions have a reply. Failed: 1. Not asked: 1." in text
    assert "do not count as wrong" in text
    assert "50.00" in text


def test_a_subject_without_any_reply_leaves_the_mean_open(tmp_path: Path) -> None:
    text = page(write_run(tmp_path / "run", {"law": "111", "logic": "xx"})).text
    assert "No score: a subject has no reply" in text
    assert "100.00" in text  # that of law itself


def test_a_run_that_was_cut_off_says_so(tmp_path: Path) -> None:
    text = page(write_run(tmp_path / "run", {"law": "11.."}, results=False)).text
    assert "The run was cut off: scores cover" in text
    assert "cut off before its timing was saved" in text
    assert "2 of 4 questions have a reply" in text


def test_a_run_before_its_first_reply_is_a_page_too(tmp_path: Path) -> None:
    text = page(write_run(tmp_path / "run", {"law": "..", "logic": "x"}, results=False)).text
    assert "0 of 3 questions have a reply" in text
    assert "No replies yet." in text


def test_a_secret_split_has_counts_and_no_score(tmp_path: Path) -> None:
    own = tmp_path / "secret.toml"
    text = (Path(__file__).parents[2] / "configs" / "ceval_gen.toml").read_text(encoding="utf-8")
    own.write_text(text.replace('["val"]', '["val", "test"]'), encoding="utf-8")
    outcomes = {"val/law": "10", "test/law": "111-"}
    run = read_recorded_run(write_run(tmp_path / "run", outcomes, task=find_task(str(own))))

    shown, secret = sections(run)

    assert (shown.secret, shown.overall.score.accuracy) == (False, 50)
    assert (secret.secret, secret.overall.score.accuracy, secret.overall.score.interval) == (True, None, None)
    found = [OUTCOMES[code].value for code in question_data(run).columns["outcome"]]
    assert found == ["right", "wrong", "unscored", "unscored", "unscored", "silent"]
    assert "The gold answers of this split are secret" in page(run.directory).text
    live = live_data(run)
    assert (live["answered"], live["scored"], live["right"]) == (6, 2, 1)


def test_a_task_of_ones_own_has_no_groups_and_no_letters_where_answers_are_free(tmp_path: Path) -> None:
    (tmp_path / "sums.toml").write_text(
        'description = "Sums"\n[rows]\nfile = "sums.csv"\n[prompt]\nuser = "{question}"\n'
        '[answer]\nrule = "pattern"\npattern = "([0-9]+)"\n',
        encoding="utf-8",
    )
    (tmp_path / "sums.csv").write_text("question,answer\n1+1,2\n", encoding="utf-8")
    task = find_task(str(tmp_path / "sums.toml"))
    (subject,) = task.subjects
    directory = write_run(tmp_path / "run", {subject.name: "11"}, task=task)
    for name in ("predictions.jsonl", "prompts.jsonl"):
        path = directory / name
        path.write_text(re.sub(r'"(answer|gold)": ?"[A-D]"', r'"\1": "12"', path.read_text(encoding="utf-8")))
    (section,) = sections(read_recorded_run(directory))
    assert section.groups == ()
    assert section.letters is None
    assert "Answers by letter" not in page(directory).text


def test_a_name_that_is_not_text_for_people_is_made_so(tmp_path: Path) -> None:
    elements = page(write_run(tmp_path / "run", {"law": "1"}, model="a\u202eb"))
    assert r"a\u202eb" in elements.text


LOCAL = {
    "model": {
        "path": "/home/someone/secret-project/sft-2000",
        "architecture": "LlamaForCausalLM",
        "weight_bytes": 18_000_000,
        "quantization": None,
        "fingerprint": "0",
    },
    "engine": {"name": "lmdeploy", "version": "0.18.0", "arguments": [], "gpus": ["NVIDIA H100", "NVIDIA H100"]},
    "data": {"source": "/data/private/ceval", "origin": "directory /data/private/ceval", "fingerprint": "0"},
    "command": {"arguments": ["eval-local", "/home/someone/secret-project/sft-2000"], "directory": "/home/someone"},
}
"""What run.json says of a checkpoint on a machine with two GPUs."""


def test_one_line_under_the_title_says_how_it_was_measured(tmp_path: Path) -> None:
    found = " ".join(page(write_run(tmp_path / "20261124-024453-x", {"law": "10"}, record=LOCAL)).text.split())
    assert (
        "sft-2000 ceval_gen · data: ceval · 5-shot · chat turns · greedy · lmdeploy 0.18.0 · 2 × NVIDIA H100 "
        "· 2026-11-24 02:44"
    ) in found


def test_settings_are_told_in_words(tmp_path: Path) -> None:
    outcomes = random_outcomes(find_task("ceval_gen"), 0.5, questions=1)
    words = page(write_run(tmp_path / "run", outcomes, record=LOCAL)).text.rpartition("Settings and versions")[2]
    for said in (
        "5-shot · examples as chat turns",
        "greedy · at most 2,048 new tokens per reply",
        "read as they come, and stopped once the answer can no longer change",
        "the first capital letter of the reply · first_capital",
        "sft-2000 · LlamaForCausalLM · 18.0 MB of weights",
        "lmdeploy 0.18.0 · 2 × NVIDIA H100",
        "at most 8 at once, fewer where the server has no room for them · ordered for the server's prefix cache",
    ):
        assert said in words, said
    assert words.index("Machine") < words.index("As recorded in run.json") < words.index("sampling")


def test_where_the_questions_came_from_and_the_date_in_prompts_are_in_the_pages_language(tmp_path: Path) -> None:
    template = {"checked": 3, "equal": True, "note": None}
    sampling = describe(find_task("ceval_gen"), "sft").sampling.model_copy(update={"prompt_date": "2026-05-06"})
    context = {"max_tokens": 8192, "set_by": "model file", "counted_with": None}
    record = LOCAL | {"template": template, "sampling": sampling.model_dump(mode="json"), "context": context}
    FORMATS["html"].write(
        read_recorded_run(write_run(tmp_path / "run", {"law": "1"}, record=record)),
        tmp_path / "page.html",
        language="zh",
    )
    text = Elements((tmp_path / "page.html").read_text(encoding="utf-8")).text
    assert "目录 …/ceval" in text
    assert "每条 prompt 中的日期：2026-05-06" in text
    assert "由模型文件决定" in text


def test_tasks_that_differ_have_a_line_each(tmp_path: Path) -> None:
    tasks = ("ceval_gen", "ceval_zero_shot_gen")
    FORMATS["html"].write(sample_run(tmp_path / "run", tasks, subjects=("law",)), tmp_path / "page.html", language="zh")
    text = Elements((tmp_path / "page.html").read_text(encoding="utf-8")).text
    assert "ceval_gen · 5-shot · 示例作为多轮对话ceval_zero_shot_gen · 0-shot · 全部内容放在一条用户消息中" in text
    assert "贪心解码 · 单条回复最多 2,048 个 token" in text


def test_a_run_that_goes_on_says_so(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run", {"law": "10-x."}, results=False)
    assert "was cut off" in page(directory).text
    lock = Lock(directory)
    lock.take()
    try:
        text = page(directory).text
    finally:
        lock.release()
    assert text.index("The run was still running at") < text.index("Not asked: 1.")
    assert "No reply yet" in text
    assert "was cut off" not in text
    assert "Groups" not in text, "none of them has a score yet"


def test_no_path_of_the_machine_is_on_the_page(tmp_path: Path) -> None:
    text = render_page(read_recorded_run(write_run(tmp_path / "run", {"law": "10"}, record=LOCAL)))
    for part in ("/home", "someone", "secret-project", "private", str(tmp_path)):
        assert part not in text
    assert "…/sft-2000" in text


def test_it_names_no_address_to_load_anything_from(tmp_path: Path) -> None:
    for tag, attributes in page(write_run(tmp_path / "run", {"law": "1"})).tags:
        loads = [attributes.get(name) for name in ("src", "href", "srcset", "action", "data", "poster", "style")]
        assert all(one is None or one.startswith(("#", "data:,")) for one in loads), (tag, attributes)


def test_its_policy_allows_its_own_scripts_and_style_and_nothing_else(tmp_path: Path) -> None:
    elements = page(write_run(tmp_path / "run", {"law": "1"}))
    (policy,) = (a["content"] for tag, a in elements.tags if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.split(" ", 1) for rule in str(policy).split("; "))
    assert rules["default-src"] == "'none'"
    allowed = {one for name in ("script-src", "style-src") for one in rules[name].split()}
    digests = (base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in elements.inline)
    assert allowed == {f"'sha256-{digest}'" for digest in digests}
    assert len(elements.inline) == 5


@given(
    st.recursive(st.text(st.characters(codec=None)), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_data_in_a_script_is_what_it_was_and_cannot_end_it(value: Any) -> None:
    text = str(json_for_script(value))
    assert json.loads(text) == value
    text.encode()
    assert not re.search("[<>&\u2028\u2029]", text)


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_quantiles_are_numbers_that_occurred_in_order(numbers: list[float]) -> None:
    spread = distribution(numbers)
    assert spread is not None
    values = list(spread.values.values())
    assert values == sorted(values)
    assert set(values) <= set(numbers)
    assert (values[0], values[-1]) == (min(numbers), max(numbers))


def test_the_95th_of_a_hundred_is_the_95th() -> None:
    spread = distribution([*range(1, 101)])
    assert spread is not None
    assert spread.values == {"minimum": 1, "p5": 5, "median": 50, "p95": 95, "p99": 99, "maximum": 100}


@pytest.mark.parametrize("name", VENDORED)
def test_vendored_files_are_those_that_are_written_down_with_their_licence(name: str) -> None:
    told = VENDORED[name]
    content = (HTML / "vendor" / told["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == told["sha256"]
    assert f"v{told['version']} Copyright".encode() in content[:120]
    licence = (HTML / "vendor" / f"{name}.LICENSE").read_text(encoding="utf-8")
    assert "Permission to use, copy, modify, and/or distribute" in licence


def test_the_page_carries_the_licences_of_what_is_in_it(tmp_path: Path) -> None:
    scripts = "".join(page(write_run(tmp_path / "run", {"law": "1"})).inline)
    assert "Copyright 2010-2023 Mike Bostock" in scripts
    assert "Copyright 2020-2025 Observable, Inc." in scripts


def test_every_text_is_there_in_both_languages_with_the_same_places_to_fill_in() -> None:
    for key, both in catalog().items():
        assert set(both) == {"en", "zh"}, key
        assert all(both.values()), key
        assert set(re.findall(r"\{\w+", both["en"])) == set(re.findall(r"\{\w+", both["zh"])), key


def test_no_text_is_left_over() -> None:
    used = set()
    for path in [*HTML.parent.rglob("*.jinja"), *HTML.parent.glob("*/*.js")]:
        source = path.read_text(encoding="utf-8")
        used |= set(re.findall(r"""["'`]([a-z_]+(?:\.\w+)?)["'`]""", source))
    written = {key for key in catalog() if "." not in key}
    assert written <= used, written - used


def test_the_command_writes_the_page_beside_the_run_and_names_it_last(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run", {"law": "10"})
    result = run_program("report", directory, "--lang", "zh", environment=os.environ)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == str(directory / "report.html")
    assert Elements((directory / "report.html").read_text(encoding="utf-8")).tags[0] == ("html", {"lang": "zh-Hans"})


def test_the_command_says_why_it_cannot_write(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run", {"law": "10"})
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "page.html"
    result = run_program("report", directory, "-o", out, environment=os.environ)
    assert result.returncode == 2
    assert f"error: {out} cannot be written" in result.stderr
    assert "--out" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_mistyped_format_is_answered_with_the_nearest(tmp_path: Path) -> None:
    result = run_program("report", tmp_path, "--format", "htm", environment=os.environ)
    assert result.returncode == 2
    assert "Did you mean html?" in result.stderr


def test_the_page_says_whose_lengths_end_where_the_answer_was_final(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "r", {"law": "110"})
    rows = (directory / "predictions.jsonl").read_text()
    (directory / "predictions.jsonl").write_text(rows.replace('"decided_early":false', '"decided_early":true', 2))

    assert "2 of 3 replies were stopped once their answer was final" in render_page(read_recorded_run(directory))
