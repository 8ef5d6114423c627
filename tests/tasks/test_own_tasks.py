"""Tasks of the user's own: a task file with rows in CSV or JSONL, and every kind of mistake in them."""

import re
from pathlib import Path

import pytest

from bundle.errors import BundleError, ConfigError, DataError
from bundle.tasks.catalog import Question, Task, find_task
from bundle.tasks.sources import Tables

ROOT = Path(__file__).parents[2]
TASK = """
description = "History of our town"
[rows]
file = "questions.csv"
examples_file = "dev.csv"
subject = "科目"
columns = { question = "题干", answer = "答案" }
[prompt]
examples = 1
user = "关于{subject}：{question}\\nA. {A}\\nB. {B}\\n答案: "
[answer]
rule = "first_option"
options = "AB"
"""
QUESTIONS = """科目,题干,A,B,答案,来源
人物,谁建了桥?,张三,李四,A,x
地理,河叫什么?,清河,"长
河",B,y
人物,谁写了书?,王五,赵六,B,z
"""
EXAMPLES = """科目,题干,A,B,答案
人物,例一?,甲,乙,A
地理,例二?,丙,丁,B
"""
BARE = """
description = "Ours"
[rows]
file = "questions.jsonl"
[prompt]
user = "{question}"
[answer]
rule = "pattern"
pattern = '答案: (.+)'
"""


def write(folder: Path, task: str = TASK, **files: str) -> str:
    """The task file's path, with its rows beside it."""
    (folder / "town.toml").write_text(task, encoding="utf-8")
    for name, text in ({"questions_csv": QUESTIONS, "dev_csv": EXAMPLES} | files).items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")
    return str(folder / "town.toml")


def load(task: Task) -> tuple[Tables, list[Question]]:
    tables = task.load(task.default_source, task.subjects, lambda _: None)
    return tables, list(task.questions(tables, task.subjects))


def test_a_task_file_with_rows_is_a_task_like_any_other(tmp_path: Path) -> None:
    task = find_task(write(tmp_path))
    tables, questions = load(task)

    assert (task.name, task.description, task.shape) == ("town", "History of our town", "turns")
    assert [subject.name for subject in task.subjects] == ["人物", "地理"]
    assert task.groups == {"town": (("questions", "人物"), ("questions", "地理"))}
    assert task.score_name("questions", "人物") == "town-人物"
    assert tables.origin == f"file {tmp_path / 'questions.csv'}"
    assert [(one.subject, one.id, one.gold, one.examples) for one in questions] == [
        ("人物", 0, "A", 1),
        ("人物", 1, "B", 1),
        ("地理", 0, "B", 1),
    ]
    assert questions[2].messages == [
        {"role": "user", "content": "关于地理：例二?\nA. 丙\nB. 丁\n答案: "},
        {"role": "assistant", "content": "B"},
        {"role": "user", "content": "关于地理：河叫什么?\nA. 清河\nB. 长\n河\n答案: "},
    ]
    assert task.answer_rule.extract("我选A") == "A"


def test_jsonl_rows_need_no_subject_and_answers_may_be_any_text(tmp_path: Path) -> None:
    rows = '{"question": "Which year?", "answer": 1984, "note": null}\n\n{"question": "1.50?", "answer": "一块五"}\n'
    task = find_task(write(tmp_path, BARE, questions_jsonl=rows))
    _, questions = load(task)
    assert [subject.name for subject in task.subjects] == ["questions"]
    assert [(one.gold, one.messages) for one in questions] == [
        ("1984", [{"role": "user", "content": "Which year?"}]),
        ("一块五", [{"role": "user", "content": "1.50?"}]),
    ]
    assert task.answer_rule.extract("…… 答案: 一块五") == "一块五"


def test_a_number_is_the_text_it_is_written_as(tmp_path: Path) -> None:
    rows = '{"question": 1.50, "answer": 0.10}\n'
    _, questions = load(find_task(write(tmp_path, BARE, questions_jsonl=rows)))
    assert (questions[0].messages[0]["content"], questions[0].gold) == ("1.50", "0.10")


def test_white_space_around_a_subject_makes_no_other(tmp_path: Path) -> None:
    task = find_task(write(tmp_path, questions_csv=QUESTIONS.replace("人物,谁写", "人物 ,谁写")))
    assert [(one.subject, one.id) for one in load(task)[1]] == [("人物", 0), ("人物", 1), ("地理", 0)]


def test_cells_are_shown_as_they_are(tmp_path: Path) -> None:
    question = "河,$\\mathbf{A}$ 与 {答案} 和 {answer}?,{B},乙{A},A,x"
    task = find_task(
        write(tmp_path, questions_csv="科目,题干,A,B,答案,来源\n" + question, dev_csv=EXAMPLES + "河,{A}?,甲,乙,B")
    )

    _, (asked,) = load(task)

    assert [turn["content"] for turn in asked.messages] == [
        "关于河：{A}?\nA. 甲\nB. 乙\n答案: ",
        "B",
        "关于河：$\\mathbf{A}$ 与 {答案} 和 {answer}?\nA. {B}\nB. 乙{A}\n答案: ",
    ]


def test_subjects_shape_first_and_scores_are_as_in_any_task(tmp_path: Path) -> None:
    changed = 'first = 1\nscores = "t"\n' + TASK.replace("[prompt]", '[prompt]\nshape = "flat"')
    task = find_task(write(tmp_path, changed))
    chosen = task.select(["人物"])
    tables = task.load(task.default_source, chosen, lambda _: None)
    questions = list(task.questions(tables, chosen))
    assert task.score_name("questions", "人物") == "t-人物"
    assert len(questions) == 1
    assert len(questions[0].messages) == 1
    assert set(tables.rows) == {("人物", "questions"), ("人物", "examples")}


def test_the_fingerprint_changes_with_what_is_asked_and_with_nothing_else(tmp_path: Path) -> None:
    def of(**files: str) -> str:
        return load(find_task(write(tmp_path, **files)))[0].fingerprint

    whole = of()
    assert of(questions_csv=QUESTIONS.replace(",x\n", ",another source\n")) == whole
    assert of(questions_csv=QUESTIONS.replace("\n", "\r\n")) == whole
    assert of(questions_csv=QUESTIONS.replace("清河", "青河")) != whole
    assert of(dev_csv=EXAMPLES.replace("例一", "例三")) != whole


def test_another_file_of_the_same_make_can_be_named(tmp_path: Path) -> None:
    task = find_task(write(tmp_path))
    other = tmp_path / "other.csv"
    other.write_text(QUESTIONS.replace("清河", "青河"), encoding="utf-8")
    tables = task.load(str(other), task.subjects, lambda _: None)
    assert tables.rows["地理", "questions"][0]["A"] == "青河"
    other.write_text(QUESTIONS.replace("地理", "历史"), encoding="utf-8")
    with pytest.raises(DataError, match="has rows of the subject '历史'"):
        task.load(str(other), task.subjects, lambda _: None)


def test_a_benchmark_s_source_is_none_of_a_task_with_rows_of_its_own(tmp_path: Path) -> None:
    task = find_task(write(tmp_path))
    with pytest.raises(DataError, match=r"sample is neither a .csv nor a .jsonl"):
        task.load("sample", task.subjects, lambda _: None)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('description = "History of our town"\n', "", r"the key 'description' is missing"),
        ("[rows]", 'benchmark = "ceval"\n[rows]', r"either the key 'benchmark' or a table \[rows\]"),
        ("[rows]", 'splits = ["val"]\n[rows]', r"'splits' is for benchmarks"),
        ("[rows]", 'example_split = "dev"\n[rows]', r"'example_split' is for benchmarks"),
        ("[rows]", "first = 0\n[rows]", r"key 'first': must be at least 1"),
        ("[rows]", "max_out_len = 0\n[rows]", r"key 'max_out_len'"),
        ("[rows]", "[row]", r"unknown key 'row'\. Did you mean rows\?"),
        ('file = "questions.csv"\n', "", r"the key 'rows\.file' is missing"),
        ("subject =", "subjects =", r"unknown key 'rows\.subjects'\. Did you mean subject\?"),
        ('examples_file = "dev.csv"\n', "", r"'rows\.examples_file' is not"),
        ("examples = 1\n", "", r"'prompt\.examples' does not say how many"),
        ("examples = 1", "examples = -1", r"key 'prompt\.examples'"),
        ("examples = 1", "exampels = 1", r"unknown key 'prompt\.exampels'\. Did you mean examples\?"),
        ("examples = 1", 'examples = 1\nshape = "falt"', r"key 'prompt\.shape'.*Did you mean flat\?"),
        ("{subject}：{question}\\nA. {A}\\nB. {B}", "{answer}", r"its prompt names no column"),
        ('rule = "first_option"', 'rule = "first_opton"', r"key 'answer\.rule'.*Did you mean first_option\?"),
        ('rule = "first_option"', 'rule = "first_capital"', r"the rule first_capital has no 'options'"),
        ('rule = "first_option"\noptions = "AB"', 'rule = "pattern"', r"needs the key 'pattern'"),
        ('options = "AB"', "pattern = '(A)'", r"the rule first_option has no 'pattern'"),
        ('options = "AB"', 'options = "A-D"', r"'A-D' are not distinct ASCII letters"),
        (
            'rule = "first_option"\noptions = "AB"',
            'rule = "pattern"\npattern = "(A"',
            r"not a valid regular",
        ),
        ('rule = "first_option"\noptions = "AB"', 'rule = "pattern"\npattern = "A"', r"no group"),
        ('[answer]\nrule = "first_option"\noptions = "AB"', "", r"the table \[answer\] is missing; its keys are rule"),
        ("B. {B}", "B. {A}", r"its prompt shows \{A\} as option B"),
        ("[answer]", "[answers]", r"unknown key 'answers'\. Did you mean answer\?"),
        ("description =", "description", r"not valid TOML.*line 2"),
    ],
)
def test_a_mistake_in_a_task_file_is_told_with_file_and_key(tmp_path: Path, old: str, new: str, fault: str) -> None:
    assert old in TASK
    path = write(tmp_path, TASK.replace(old, new, 1))
    with pytest.raises(ConfigError, match=fault) as raised:
        find_task(path)
    assert "town.toml" in raised.value.message


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('benchmark = "ceval"', 'benchmark = "cevall"', r"key 'benchmark'.*Did you mean ceval\?"),
        ('benchmark = "ceval"\n', "", r"either the key 'benchmark' or a table \[rows\]"),
        ('["val"]', '["vla"]', r"key 'splits': ceval has no split 'vla'\. Did you mean val\?"),
        ('["val"]', "[]", r"key 'splits'"),
        ('["val"]', '["val"]\nexample_split = "train"', r"'example_split': ceval has no split 'train'"),
        ("{question}", "{questoin}", r"names \{questoin\}.*Did you mean question\?"),
        ("{answer}", "{anwser}", r"names \{anwser\}.*Did you mean answer\?"),
    ],
)
def test_a_mistake_in_a_benchmark_s_task_file_is_told(tmp_path: Path, old: str, new: str, fault: str) -> None:
    shipped = (Path(__file__).parents[2] / "configs" / "ceval_gen.toml").read_text(encoding="utf-8")
    assert old in shipped
    path = tmp_path / "mine.toml"
    path.write_text(shipped.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError, match=fault) as raised:
        find_task(str(path))
    assert "mine.toml" in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("题干", "题目", r"town needs the column '题干', but .*questions\.csv, line 2"),
        (",A,B,", ",A,BB,", r"needs the column 'B'.*it has '科目', '题干', 'A', 'BB'"),
        ("科目", "学科", r"needs the column '科目'"),
        ("B,答案", "A,答案", r"column 'A' appears twice"),
        ("张三,李四,A,x", "张三,李四,A", r"line 2: 5 cells, but the header has 6"),
        ("李四,A,x", "李四,,x", r"line 2: the answer is empty"),
        ("李四,A,x", "李四,C,x", r"line 2: the answer is 'C', which is not one of the options A, B"),
        ("人物,谁写了书?", ",谁写了书?", r"line 5: the subject is empty"),
        ("谁写了书?,王五,赵六", ",,", r"line 5: the question is empty"),
        ('"长', "长", r"line 4: 2 cells|line 3: "),
        (QUESTIONS, "", r"questions\.csv is empty"),
        (QUESTIONS, "科目,题干,A,B,答案\n", r"questions\.csv has no rows"),
    ],
)
def test_a_mistake_in_a_csv_is_told_with_file_and_line(tmp_path: Path, old: str, new: str, fault: str) -> None:
    assert old in QUESTIONS
    with pytest.raises(DataError, match=fault):
        find_task(write(tmp_path, questions_csv=QUESTIONS.replace(old, new, 1)))


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("question", r"line 2: not valid JSON"),
        ('["question"]', r"line 2: not a JSON object"),
        ('{"question": "q"}', r"needs the column 'answer', but .*questions\.jsonl, line 2"),
        ('{"question": "q", "answer": null}', r"needs the column 'answer'"),
        ('{"question": "q", "answer": [1.5, null]}', r"line 2: the answer is empty"),
        ('{"question": "q", "answer": {"A": "x"}}', r"needs the column 'answer'"),
        ('{"question": "q", "answer": NaN}', r"not valid JSON \(NaN is not a number\)"),
        ('{"question": "q", "answer": "A", "answer": "B"}', r"the key 'answer' appears twice"),
        (
            '{"Question": "q", "answer": "A"}',
            r"needs the column 'question'.*Did you mean Question\? 'rows.columns' holds",
        ),
        ('{"question": " ", "answer": "A"}', r"line 2: the question is empty"),
        ('{"question": "\\ud800", "answer": "A"}', r"line 2: not valid JSON"),
        ("[" * 100_000, r"line 2: not valid JSON"),
    ],
)
def test_a_mistake_in_a_jsonl_is_told_with_file_and_line(tmp_path: Path, line: str, fault: str) -> None:
    rows = '{"question": "q", "answer": "A"}\n' + line + "\n"
    with pytest.raises(DataError) as raised:
        find_task(write(tmp_path, BARE, questions_jsonl=rows))
    assert raised.match(fault)


TWICE = """{"question": "1+1=?", "A": "1", "B": "2", "topic": "sums", "answer": "B"}
{"question": "1+1=?", "A": "2", "B": "1", "topic": "sums", "answer": "A"}
{"question": "1+1=? ", "A": "1", "B": "2", "topic": "sums", "answer": "b"}
{"question": "1+1=?", "A": "1", "B": "2", "topic": "sums of letters", "answer": "A"}
"""


def test_a_question_with_two_different_answers_is_told_with_both_places(tmp_path: Path) -> None:
    """Not one that has other options, the same answer, or another subject."""
    task = BARE.replace('"{question}"', '"{subject}: {question} {A} {B}"').replace(
        "[prompt]", 'subject = "topic"\n[prompt]'
    )
    path = write(tmp_path, task, questions_jsonl=TWICE)
    assert len(load(find_task(path))[1]) == 4
    again = '{"question": "1+1=?", "A": "1 ", "B": "2", "topic": "sums", "answer": "A"}\n'
    write(tmp_path, task, questions_jsonl=TWICE + again)
    fault = r"questions\.jsonl, line 5: the same question as in line 1, whose answer is 'B'; here it is 'A'"
    with pytest.raises(DataError, match=fault) as error:
        find_task(path)
    assert error.value.remedy == "Remove one of the two rows, or correct its answer."


def test_rows_that_are_not_there_or_of_another_kind_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no file .*nowhere\.csv"):
        find_task(write(tmp_path, TASK.replace("questions.csv", "nowhere.csv")))
    with pytest.raises(DataError, match=r"questions\.xlsx is neither a \.csv nor a \.jsonl"):
        find_task(write(tmp_path, TASK.replace("questions.csv", "questions.xlsx")))
    path = write(tmp_path)
    (tmp_path / "questions.csv").write_bytes(b"question,answer\n\xff,A\n")
    with pytest.raises(DataError, match=r"questions\.csv, line 2: not UTF-8"):
        find_task(path)


def test_a_question_among_the_examples_is_refused_as_they_show_its_answer(tmp_path: Path) -> None:
    task = find_task(write(tmp_path, dev_csv=EXAMPLES.replace("例一?,甲,乙,A", "谁写了书?,王五,赵六 ,B")))
    with pytest.raises(DataError, match=r"asks a question of 人物 that is also one of its examples.*谁写了书"):
        load(task)


def test_examples_must_be_enough_for_every_subject(tmp_path: Path) -> None:
    task = find_task(write(tmp_path, dev_csv=EXAMPLES.replace("地理", "人物")))
    with pytest.raises(DataError, match=r"dev\.csv has no rows of the subject '地理'"):
        load(task)
    task = find_task(write(tmp_path, TASK.replace("examples = 1", "examples = 2")))
    with pytest.raises(DataError, match=r"shows 2 examples, but .* has 1"):
        load(task)


@pytest.mark.parametrize("name", ["town.toml", "./town.toml"])
def test_a_task_file_is_found_by_its_path_and_its_rows_beside_it(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert find_task(name).name == "town"
    with pytest.raises(BundleError, match="There is no task town"):
        find_task("town")


def test_the_example_works_and_stands_in_the_documentation_as_it_is() -> None:
    town = ROOT / "examples" / "town"
    task = find_task(str(town / "town.toml"))
    _, questions = load(task)
    assert [(one.gold, len(one.messages)) for one in questions] == [("A", 3), ("B", 3)]
    shown = {
        name: re.findall(r"```(?:toml|csv)\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)
        for name in ("docs/tasks.md", "README.md", "README_zh-CN.md")
    }
    for name, blocks in shown.items():
        assert (town / "town.toml").read_text(encoding="utf-8") in blocks, name
    for name in ("questions.csv", "examples.csv"):
        assert (town / name).read_text(encoding="utf-8") in shown["docs/tasks.md"]
