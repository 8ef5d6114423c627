"""Options and answers of the user's own questions, in the ways people write them."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from bundle.errors import DataError
from bundle.tasks.answers import AllOptions, AnswerRule, FirstCapital, FirstOption, Pattern
from bundle.tasks.catalog import Question, Task, find_task

LETTERED = "{question}\nA. {A}\nB. {B}\nC. {C}\nD. {D}\n答案: "
LISTED = "{question}\n{choices}\nAnswer: "
FIRST_OPTION = 'rule = "first_option"'
FIRST_CAPITAL = 'rule = "first_capital"'
BY_PATTERN = "rule = 'pattern'\npattern = '答案\\s*[:：是]\\s*(.+)'"


def task_of(
    folder: Path, rows: str | Sequence[object], answer: str = FIRST_OPTION, user: str = LETTERED, more: str = ""
) -> Task:
    """A task with these rows: text for a CSV file, objects for a JSONL file."""
    name = "rows.csv" if isinstance(rows, str) else "rows.jsonl"
    text = rows if isinstance(rows, str) else "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / name).write_text(text, encoding="utf-8")
    more = more if "[prompt]" in more else f"{more}\n[prompt]"
    task = f'description = "d"\n[rows]\nfile = "{name}"\n{more}\nuser = {json.dumps(user)}\n[answer]\n{answer}\n'
    (folder / "mine.toml").write_text(task, encoding="utf-8")
    return find_task(str(folder / "mine.toml"))


def questions(task: Task) -> list[Question]:
    tables = task.load(task.default_source, task.subjects, lambda _: None)
    return list(task.questions(tables, task.subjects))


def golds(task: Task) -> list[str]:
    return [question.gold for question in questions(task)]


def asked(task: Task) -> list[str]:
    return [question.messages[-1]["content"] for question in questions(task)]


def csv_row(answer: str) -> str:
    return f'question,A,B,C,D,answer\n几?,一,二,三,四,"{answer}"\n'


@pytest.mark.parametrize("rule", [FIRST_OPTION, FIRST_CAPITAL, 'rule = "labelled"\nlabel = "答案"'])
@pytest.mark.parametrize(
    "written", ["B", "b", "Ｂ", "ｂ", " B ", "(B)", "（B）", "B.", "B、", "B）", "[B]", "【B】", "二", " 二 "]
)
def test_an_answer_is_the_same_letter_however_it_is_written(tmp_path: Path, rule: str, written: str) -> None:
    assert golds(task_of(tmp_path, csv_row(written), rule)) == ["B"]


@pytest.mark.parametrize("written", ["b", "(B)", "Ｂ"])
@pytest.mark.parametrize("reply", ["答案: B", "答案：b", "答案: （B）", "答案是 Ｂ"])
def test_with_a_pattern_both_the_file_and_the_reply_may_write_it_in_any_way(
    tmp_path: Path, written: str, reply: str
) -> None:
    task = task_of(tmp_path, csv_row(written), BY_PATTERN)
    assert task.answer_rule.extract(reply) == golds(task)[0] == "B"


def test_with_a_pattern_an_option_s_own_text_stays_text(tmp_path: Path) -> None:
    task = task_of(tmp_path, csv_row("二"), BY_PATTERN)
    assert task.answer_rule.extract("答案是二") == golds(task)[0] == "二"


@pytest.mark.parametrize(
    "written", ["AC", "CA", "A,C", "A、C", "A C", "ac", "Ａ，Ｃ", "A和C", "(A)(C)", "[A, C]", "A;C"]
)
@pytest.mark.parametrize("rule", [FIRST_OPTION, FIRST_CAPITAL, BY_PATTERN])
def test_several_right_answers_are_a_set(tmp_path: Path, written: str, rule: str) -> None:
    task = task_of(tmp_path, csv_row(written), rule)
    assert golds(task) == ["AC"]
    assert isinstance(task.answer_rule, AllOptions)
    for reply in ("AC", "CA", "A、C", "**AC**", "A, C", "A和C", "答案: AC", "答案：**A、C**", "答案是CA。"):
        assert task.answer_rule.extract(reply) == "AC", reply
    for reply in ("A", "ABC", "答案: A", "AB", "", "不知道"):
        assert task.answer_rule.extract(reply) != "AC", reply


def test_several_right_answers_may_be_a_list_in_json(tmp_path: Path) -> None:
    row = {"question": "q", "A": "1st", "B": "2nd", "C": "3rd", "D": "4th"}
    rows = [row | {"answer": ["C", "A"]}, row | {"question": "r", "answer": [0, 3]}]
    assert golds(task_of(tmp_path, rows)) == ["AC", "AD"]


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("AC", "AC"),
        ("ca", "AC"),
        ("A C", "AC"),
        ("A\nC", "AC"),
        ("(A)、(C)", "AC"),
        ("\\boxed{AC}", "AC"),
        ("正确答案是 A 和 C。", "AC"),
        ("答案：ＡＣ", "AC"),
        ("本题应选ACD。", "ACD"),
        ("故选：B、D", "BD"),
        ("AC。因为 B 是奇数", "AC"),
        ("A、C都是偶数，B不是", "AC"),
        ("A 是偶数，B 不是，C 是。答案：AC", "AC"),
        ("The answer is A and C.", "AC"),
        ("Answers: B, D", "BD"),
        ("不选A。答案是BD", "BD"),
        ("正确的是A、C", "AC"),
        ("A, C, and D are correct.", "ACD"),
        ("答案：\nA\nC", "AC"),
        ("答案：\n- A\n- C", "AC"),
        ("选项A和选项C", "AC"),
        ("A选项和C选项", "AC"),
        ("Option A and option C are correct", "AC"),
        ("答案不是A，而是BC", "BC"),
        ("答案为ACD，B错误", "ACD"),  # what is called wrong is not chosen
        ("答案：A、C（B和D不对）", "AC"),
        ("A,C; B is not", "AC"),
        ("BD错误，AC正确", "AC"),
        ("C说法错误，ABD正确", "ABD"),
        ("A、C错误", "AC"),  # where a question asks for what is wrong
        ("A对，B错，C对，D错。", ""),
        ("A是偶数，B不是，C是。", ""),
        ("A或C", ""),
        ("选A、C或D", ""),
        ("除了B都对", ""),
        ("A. 2是偶数\nB. 3不是", ""),  # neither says which it chooses
        ("选项 A 对，选项 B 也对", ""),
        ("AAC", ""),
        ("Because of it", ""),
        ("", ""),
    ],
)
def test_all_options_that_a_reply_chooses(reply: str, answer: str) -> None:
    assert AllOptions().extract(reply) == answer


@pytest.mark.parametrize("text", ["A错误，", "A、", "- A\n", "选项A ", "A是" + 99 * " ", "不是 A"])
def test_all_options_are_found_in_time_that_grows_with_the_reply(text: str) -> None:
    started = time.process_time()
    AllOptions().extract(100_000 // len(text) * text)
    assert time.process_time() - started < 5


def test_answers_of_both_kinds_in_one_file_are_sets_all_of_them(tmp_path: Path) -> None:
    task = task_of(tmp_path, csv_row("AC") + "再?,一,二,三,四,B\n")
    assert golds(task) == ["AC", "B"]
    assert task.answer_rule == AllOptions("ABCD")
    assert task.answer_rule.extract("BC") == "BC"


def test_another_file_of_the_task_may_not_have_several_where_its_own_has_one(tmp_path: Path) -> None:
    task = task_of(tmp_path, csv_row("B"))
    (tmp_path / "other.csv").write_text(csv_row("AC"), encoding="utf-8")
    with pytest.raises(
        DataError, match=r"line 2: the answer is 'AC', which the rule first_option can never find in a reply"
    ):
        task.load(str(tmp_path / "other.csv"), task.subjects, lambda _: None)


@pytest.mark.parametrize("kind", ["csv", "json", "json with null"])
def test_a_row_may_have_fewer_options_and_its_prompt_shows_no_empty_ones(tmp_path: Path, kind: str) -> None:
    two = {"question": "一?", "A": "1", "B": "2", "answer": "B"}
    four = {"question": "二?", "A": "1", "B": "2", "C": "3", "D": "4", "answer": "D"}
    rows = {
        "csv": "question,A,B,C,D,answer\n一?,1,2,,,B\n二?,1,2,3,4,D\n",
        "json": [two, four],
        "json with null": [two | {"C": None, "D": ""}, four],
    }[kind]
    task = task_of(tmp_path, rows)
    assert asked(task) == ["一?\nA. 1\nB. 2\n答案: ", "二?\nA. 1\nB. 2\nC. 3\nD. 4\n答案: "]
    assert golds(task) == ["B", "D"]


@pytest.mark.parametrize(
    ("user", "prompt"),
    [
        ("{question} A. {A} B. {B} C. {C}", "q A. x B. y"),
        ("{question} (A) {A} (B) {B} (C) {C}\nAnswer:", "q (A) x (B) y\nAnswer:"),
        ("{question}\n选项A：{A}\n选项B：{B}\n选项C：{C}", "q\n选项A：x\n选项B：y"),
        ("{question}\n{A}\n{B}\n{C}\n答：", "q\nx\ny\n答："),
    ],
)
def test_what_shows_an_absent_option_is_left_out_in_any_layout(tmp_path: Path, user: str, prompt: str) -> None:
    rows = "question,A,B,C,answer\nq,x,y,,A\nr,x,y,z,A\n"
    assert asked(task_of(tmp_path, rows, user=user))[0] == prompt


def test_an_empty_option_before_another_stays(tmp_path: Path) -> None:
    assert asked(task_of(tmp_path, "question,A,B,C,D,answer\nq,1,,3,,A\n")) == ["q\nA. 1\nB. \nC. 3\n答案: "]


def test_examples_are_shown_with_the_options_they_have(tmp_path: Path) -> None:
    (tmp_path / "dev.csv").write_text("question,A,B,C,D,answer\n例?,1,2,,,A\n", encoding="utf-8")
    more = 'examples_file = "dev.csv"\n[prompt]\nexamples = 1'
    task = task_of(tmp_path, csv_row("D"), more=more)
    assert questions(task)[0].messages[0]["content"] == "例?\nA. 1\nB. 2\n答案: "


@pytest.mark.parametrize("rule", [FIRST_OPTION, 'rule = "labelled"\nlabel = "答案"', 'rule = "all_options"'])
def test_a_rule_finds_every_option_that_is_shown(tmp_path: Path, rule: str) -> None:
    task = task_of(tmp_path, [{"question": "q", "choices": list("uvwxyz"), "answer": "A"}], rule, LISTED)
    assert task.answer_rule.extract("答案: F，而不是A") == "F"


@pytest.mark.parametrize("answer", ["B", 1, "no", "B. no", "(B) no"])
@pytest.mark.parametrize("listed", [["A. yes", "B. no", "C. both"], ["（A）yes", "（B）no", "（C）both"]])
def test_options_that_bring_their_letters_get_no_others(tmp_path: Path, listed: list[str], answer: object) -> None:
    task = task_of(tmp_path, [{"question": "q", "choices": listed, "answer": answer}], FIRST_CAPITAL, LISTED)
    assert asked(task) == ["q\nA. yes\nB. no\nC. both\nAnswer: "]
    assert golds(task) == ["B"]


def test_letters_that_options_bring_in_another_order_are_theirs(tmp_path: Path) -> None:
    row = {"question": "q", "choices": ["B. yes", "A. no"], "answer": "A"}
    task = task_of(tmp_path, [row], FIRST_CAPITAL, LISTED)
    assert (asked(task), golds(task)) == (["q\nB. yes\nA. no\nAnswer: "], ["A"])


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ("question,A,B,C,D,answer\nq,1,2,,,C\n", "the answer is 'C', which is not one of the options A, B"),
        ("question,A,B,C,D,answer\nq,1,,,,A\n", "it has fewer than two options"),
        ("question,A,B,C,D,answer\nq,x,x,y,z,x\n", "the answer 'x' is the text of several options: A, B"),
        ("question,A,B,C,D,answer\nq,x,y,z,w,AE\n", "the answer is 'AE', which is not one of the options"),
        ("question,A,B,C,D,answer\nq,1,2,3,4,2\n", r"the answer '2' can mean B \(as text\) or C \(as index\)"),
        ("question,A,B,C,D,answer\nq,AC,BD,x,y,AC\n", r"can mean AC \(as letter\) or A \(as text\)"),
        ("question,A,B,C,D,answer\nq,w,x,y,z,4\n", "the answer is 4, but the 4 options are numbered from 0"),
        ("question,A,B,C,answer\nq,w,x,y,A\n", "needs the column 'D'"),
        ("question,A,B,C,D,answer\nq,w,,y,z,B\n", "line 2: the right answer is B, and that option is empty"),
        ("question;A;B;C;D;answer\nq;w;x;y;z;B\n", "its columns are not separated by commas but by ';'"),
        ("question\tA\tB\tC\tD\tanswer\nq\tw\tx\ty\tz\tB\n", "separated by commas but by '\\\\t'"),
        ("sep=,\nquestion,A,B,C,D,answer\n", 'it begins with a line "sep='),
        ("Question,A,B,C,D,answer\nq,w,x,y,z,B\n", "needs the column 'question'"),
        (csv_row("B") + ",,,,,\n", "line 3: the question is empty"),
        (csv_row("B") + " ,w,x,y,z,A\n", "line 3: the question is empty"),
    ],
)
def test_an_answer_that_is_no_option_or_can_mean_two_is_an_error(tmp_path: Path, rows: str, fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        task_of(tmp_path, rows)


@pytest.mark.parametrize(
    ("answer_as", "answer"), [("text", "B"), ("index\nfirst_index = 0", "C"), ("index\nfirst_index = 1", "B")], ids=str
)
def test_a_task_file_can_say_how_answers_are_written(tmp_path: Path, answer_as: str, answer: str) -> None:
    name, _, more = answer_as.partition("\n")
    task = task_of(tmp_path, "question,A,B,C,D,answer\nq,1,2,3,4,2\n", more=f'answer_as = "{name}"\n{more}')
    assert golds(task) == [answer]


def test_options_may_be_a_list_and_the_answer_an_index(tmp_path: Path) -> None:
    rows = [
        {"question": "1+1=?", "choices": ["1", "2", "3", "4"], "answer": 1},
        {"question": "?", "choices": ["x", "y"], "answer": 0},
    ]
    task = task_of(tmp_path, rows, FIRST_CAPITAL, LISTED)
    assert asked(task) == ["1+1=?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: ", "?\nA. x\nB. y\nAnswer: "]
    assert golds(task) == ["B", "A"]


@pytest.mark.parametrize(
    "choices",
    [["1", "2", "3"], {"A": "1", "B": "2", "C": "3"}, {"text": ["1", "2", "3"], "label": ["A", "B", "C"]}, [1, 2, 3]],
    ids=["list", "object", "labels and texts", "numbers"],
)
def test_a_list_of_options_fills_the_columns_of_their_letters_too(tmp_path: Path, choices: object) -> None:
    task = task_of(tmp_path, [{"question": "q", "options": choices, "answer": "C"}], user=LETTERED)
    assert asked(task) == ["q\nA. 1\nB. 2\nC. 3\n答案: "]
    assert golds(task) == ["C"]


@pytest.mark.parametrize("cell", ['["1","2","3"]', "['1', '2', '3']", "[1, 2, 3]", '{"A":"1","B":"2","C":"3"}'])
def test_a_csv_s_cell_may_hold_a_list_as_json_or_python_writes_it(tmp_path: Path, cell: str) -> None:
    quoted = cell.replace('"', '""')
    task = task_of(tmp_path, f'question,choices,answer\nq,"{quoted}",C\n', FIRST_CAPITAL, LISTED)
    assert (asked(task), golds(task)) == (["q\nA. 1\nB. 2\nC. 3\nAnswer: "], ["C"])


def test_a_list_in_any_other_column_of_a_csv_is_text(tmp_path: Path) -> None:
    task = task_of(tmp_path, 'question,answer\n"[1, 2] + [3] = ?",A\n', FIRST_CAPITAL, "{question}")
    assert asked(task) == ["[1, 2] + [3] = ?"]


def test_labels_that_are_digits_are_no_indices(tmp_path: Path) -> None:
    choices = {"text": ["x", "y", "z"], "label": ["1", "2", "3"]}
    task = task_of(
        tmp_path,
        [{"question": "q", "choices": choices, "answer": "1"}],
        'rule = "first_option"\noptions = "123"',
        LISTED,
    )
    assert (asked(task), golds(task)) == (["q\n1. x\n2. y\n3. z\nAnswer: "], ["1"])


def test_numbers_that_may_be_texts_or_indices_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"can mean B \(as text\) or C \(as index\)"):
        task_of(tmp_path, [{"question": "q", "choices": [1, 2, 3], "answer": 2}], FIRST_CAPITAL, LISTED)


def test_an_index_in_a_csv_is_taken_from_0_only_where_0_is_among_them(tmp_path: Path) -> None:
    rows = "question,A,B,C,D,answer\nq,w,x,y,z,2\n"
    with pytest.raises(DataError, match="may be numbered from 0 or from 1"):
        task_of(tmp_path, rows)
    assert golds(task_of(tmp_path, rows + "r,w,x,y,z,0\n")) == ["C", "A"]
    assert golds(task_of(tmp_path, rows, more="first_index = 1")) == ["B"]


def test_several_answers_of_which_none_is_0_are_not_taken_as_numbered_from_0(tmp_path: Path) -> None:
    rows = [{"question": str(number), "choices": ["x", "y", "z", "w"], "answer": 1 + number} for number in range(2)]
    with pytest.raises(DataError, match="may be numbered from 0 or from 1"):
        task_of(tmp_path, rows, FIRST_CAPITAL, LISTED)
    assert golds(task_of(tmp_path, rows, FIRST_CAPITAL, LISTED, "first_index = 1")) == ["A", "B"]
    assert golds(task_of(tmp_path, rows, FIRST_CAPITAL, LISTED, "first_index = 0")) == ["B", "C"]


def test_a_list_that_no_prompt_names_says_nothing_of_the_options(tmp_path: Path) -> None:
    rows = [{"question": "A. x B. y?", "tags": ["one", "two"], "answer": "B"}]
    assert golds(task_of(tmp_path, rows, FIRST_CAPITAL, "{question}")) == ["B"]


def test_without_options_an_answer_is_text_as_it_is(tmp_path: Path) -> None:
    rows = [{"question": answer, "answer": answer} for answer in ("USA", "(b)", "AC", "Ａ", 3)]
    task = task_of(tmp_path, rows, BY_PATTERN, "{question}")
    assert golds(task) == ["USA", "(b)", "AC", "Ａ", "3"]
    assert task.answer_rule == Pattern("答案\\s*[:：是]\\s*(.+)")


@pytest.mark.parametrize(("rule", "expected"), [(FIRST_CAPITAL, FirstCapital()), (FIRST_OPTION, FirstOption())])
def test_single_answers_leave_the_rule_as_it_is(tmp_path: Path, rule: str, expected: AnswerRule) -> None:
    assert task_of(tmp_path, csv_row("b"), rule).answer_rule == expected


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_what_excel_adds_changes_nothing(tmp_path: Path, line_end: str, mark: bytes) -> None:
    task = task_of(tmp_path, csv_row("B"))
    rows = 'question,A,B,C,D,answer,,\n"两\n行?",0.10,NA,null,None,NA,,\n再?,1,2,3,4,b,,\n'
    (tmp_path / "rows.csv").write_bytes(mark + rows.replace("\n", line_end).encode())
    task = find_task(str(tmp_path / "mine.toml"))
    assert asked(task) == ["两\n行?\nA. 0.10\nB. NA\nC. null\nD. None\n答案: ", "再?\nA. 1\nB. 2\nC. 3\nD. 4\n答案: "]
    assert golds(task) == ["B", "B"]


@pytest.mark.parametrize(
    ("encoding", "remedy"), [("gbk", "It may be GBK"), ("gb18030", "It may be GBK"), ("utf-16", "It is UTF-16")]
)
def test_another_encoding_is_not_guessed_but_named(tmp_path: Path, encoding: str, remedy: str) -> None:
    task_of(tmp_path, csv_row("B"))
    (tmp_path / "rows.csv").write_bytes(csv_row("B").encode(encoding))
    with pytest.raises(DataError, match="not UTF-8") as caught:
        find_task(str(tmp_path / "mine.toml"))
    assert remedy in (caught.value.remedy or "")


def test_the_numbers_of_a_jsonl_file_are_the_text_they_are_written_as(tmp_path: Path) -> None:
    task = task_of(tmp_path, [{"question": "q", "A": 0, "B": 1, "C": 2, "D": 3, "answer": "B"}])
    written = '{"question": "q", "A": 0.10, "B": 1e5, "C": "null", "D": -0, "answer": "B"}\r\n'
    (tmp_path / "rows.jsonl").write_text("\ufeff" + written, encoding="utf-8")
    task = find_task(str(tmp_path / "mine.toml"))
    assert (asked(task), golds(task)) == (["q\nA. 0.10\nB. 1e5\nC. null\nD. -0\n答案: "], ["B"])


@pytest.mark.parametrize("answer", ["-1", "2", "1.0", "true", "null", "NaN", "9" * 5000, "[]", "{}"])
def test_an_answer_in_json_that_is_no_option_is_an_error(tmp_path: Path, answer: str) -> None:
    task_of(tmp_path, [{"question": "q", "choices": ["x", "y"], "answer": 0}], FIRST_CAPITAL, LISTED)
    (tmp_path / "rows.jsonl").write_text('{"question": "q", "choices": ["x", "y"], "answer": ' + answer + "}\n")
    with pytest.raises(DataError, match=r"rows\.jsonl, line 1"):
        find_task(str(tmp_path / "mine.toml"))


def test_cells_are_the_text_in_the_file(tmp_path: Path) -> None:
    task = task_of(tmp_path, "question,A,B,C,D,answer\n0.10?,NA,null,None,1e5,NA\n")
    assert asked(task) == ["0.10?\nA. NA\nB. null\nC. None\nD. 1e5\n答案: "]
    assert golds(task) == ["A"]


def test_the_cases_that_were_handed_in_are_read(shared: Path) -> None:
    cases = shared / "cases" / "own_tasks"
    multi = find_task(str(cases / "multi.toml"))
    assert golds(multi) == ["AC", "AB", "ABC"]
    assert {multi.answer_rule.extract(reply) for reply in ("CA", "A、C", "**AC**", "答案: CA", "答案：**A、C**")} == {
        "AC"
    }
    for name in ("opts", "optsj"):
        task = find_task(str(cases / f"{name}.toml"))
        assert golds(task) == ["B", "E"]
        assert asked(task)[0] == "一加一等于几？\nA. 1\nB. 2\n答案: "
    listed = find_task(str(cases / "list.toml"))
    assert (golds(listed), asked(listed)) == (["B"], ["1+1=?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: "])
