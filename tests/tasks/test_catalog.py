"""Tasks by name: what is asked, in which order, and under which names it is scored."""

import csv
from pathlib import Path

import pytest

from bundle.config.files import file_names
from bundle.errors import ConfigError, DataError, UsageError
from bundle.tasks.benchmarks import BENCHMARKS
from bundle.tasks.catalog import find_task
from tests.tasks.source_files import CEVAL, ceval_rows, csv_bytes, question, write_files


@pytest.fixture
def data(tmp_path: Path) -> str:
    """Three subjects of C-Eval, ten questions in every split."""
    rows = ceval_rows()
    subjects = {subject for subject, _ in rows}
    rows |= {(subject, "test"): [question(number) for number in range(10)] for subject in subjects}
    names = CEVAL.file_names(list(rows))
    columns = ["id", "question", "A", "B", "C", "D"]
    files = {
        name: csv_bytes(rows[pair], columns if pair[1] == "test" else [*columns, "answer", "explanation"])
        for pair, name in names.items()
    }
    return str(write_files(tmp_path / "ceval", files))


@pytest.fixture
def cmmlu(tmp_path: Path) -> str:
    """One subject of CMMLU, ten questions in every split, one of which names columns."""
    rows = [question(number) for number in range(10)]
    rows[0] |= {"question": "{id} {A} {explanation}"}
    cells = [
        {"": str(number), "Question": row["question"], **{letter: row[letter] for letter in "ABCD"}, "Answer": "B"}
        for number, row in enumerate(rows)
    ]
    files = {f"{split}/agronomy.csv": csv_bytes(cells) for split in ("dev", "test")}
    return str(write_files(tmp_path / "cmmlu", files))


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("ceval_gen_5f30c7", "ceval_gen"),
        ("ceval_zero_shot_gen_bd40ef", "ceval_zero_shot_gen"),
        ("cmmlu_gen_c13365", "cmmlu_gen"),
        ("cmmlu_0shot_cot_gen_305931", "cmmlu_0shot_cot_gen"),
    ],
)
def test_opencompass_s_longer_names_find_the_same_task(alias: str, name: str) -> None:
    assert find_task(alias) == find_task(name)
    assert find_task(alias).name == name
    assert alias in find_task(name).description


def test_a_mistyped_alias_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean cmmlu_0shot_cot_gen_305931"):
        find_task("cmmlu_0shot_cot_gen_305930")


def test_every_task_ships_a_description_and_a_shape() -> None:
    shapes = {name: find_task(name).shape for name in file_names("configs")}
    assert shapes == dict.fromkeys(shapes, "turns") | {
        "demo_cmmlu_chat_gen": "flat",
        "ceval_ppl": "plain",
        "cmmlu_ppl": "plain",
    }
    assert all(find_task(name).description for name in shapes)


def test_only_the_zero_shot_task_says_how_long_a_reply_may_be() -> None:
    limits = {name: find_task(name).max_out_len for name in file_names("configs")}
    assert limits == dict.fromkeys(limits, None) | {"ceval_zero_shot_gen": 256}


def test_ceval_has_its_subjects_and_groups() -> None:
    task = find_task("ceval_gen")
    sizes = {name: len(members) for name, members in task.groups.items()}
    assert list(sizes.items()) == [
        ("ceval", 52),
        ("ceval-stem", 20),
        ("ceval-social-science", 10),
        ("ceval-humanities", 11),
        ("ceval-other", 11),
        ("ceval-hard", 8),
    ]
    assert task.groups["ceval"] == tuple(("val", subject.name) for subject in task.subjects)


def test_cmmlu_has_its_subjects_and_groups_and_a_subject_may_be_in_two() -> None:
    task = find_task("cmmlu_gen")
    sizes = {name: len(members) for name, members in task.groups.items()}
    assert list(sizes.items()) == [
        ("cmmlu", 67),
        ("cmmlu-humanities", 13),
        ("cmmlu-stem", 17),
        ("cmmlu-social-science", 22),
        ("cmmlu-other", 15),
        ("cmmlu-china-specific", 15),
    ]
    member = ("test", "chinese_history")
    assert member in task.groups["cmmlu-humanities"]
    assert member in task.groups["cmmlu-china-specific"]


def test_scores_bear_opencompass_s_names() -> None:
    both = find_task("ceval_gen_2daf24")
    assert both.score_name("val", "law") == "ceval-law"
    assert both.score_name("test", "law") == "ceval-test-law"
    assert list(both.groups)[6:8] == ["ceval-test", "ceval-test-stem"]
    assert both.groups["ceval-test-hard"][0] == ("test", "advanced_mathematics")
    assert both.secret_splits == {"test"}
    demo = find_task("demo_cmmlu_chat_gen")
    assert demo.score_name("test", "agronomy") == "demo_cmmlu-agronomy"
    assert "demo_cmmlu-china-specific" in demo.groups


def test_where_the_files_of_both_benchmarks_are_and_what_they_hold() -> None:
    ceval, cmmlu = BENCHMARKS["ceval"], BENCHMARKS["cmmlu"]
    assert (ceval.hub, ceval.modelscope, ceval.archive) == (
        "ceval/ceval-exam",
        "opencompass/ceval-exam",
        "ceval-exam.zip",
    )
    assert (cmmlu.hub, cmmlu.modelscope, cmmlu.archive) == ("haonan-li/cmmlu", "opencompass/cmmlu", "cmmlu_v1_0_1.zip")
    assert ceval.file_names([("law", "val")]) == {("law", "val"): "val/law_val.csv"}
    assert cmmlu.file_names([("anatomy", "test")]) == {("anatomy", "test"): "test/anatomy.csv"}
    assert (ceval.splits, cmmlu.splits) == (("dev", "val", "test"), ("dev", "test"))
    assert (ceval.secret_splits, cmmlu.secret_splits) == (frozenset({"test"}), frozenset())
    assert ceval.columns == cmmlu.columns == ("id", "question", "A", "B", "C", "D", "answer")
    assert (ceval.renames, cmmlu.renames) == ({}, {"": "id", "Question": "question", "Answer": "answer"})
    assert (ceval.optional, cmmlu.optional) == ({"answer": "", "explanation": ""}, {})
    assert ceval.answers == cmmlu.answers == set("ABCD")


def test_questions_come_split_by_split_and_subject_by_subject_and_secret_answers_are_empty(data: str) -> None:
    task = find_task("ceval_gen_2daf24")
    subjects = task.select(["physician", "law"])
    tables = task.load(data, subjects, lambda _: None)
    asked = list(task.questions(tables, subjects, limit=2))
    assert [(one.split, one.subject, one.id, one.gold) for one in asked] == [
        ("val", "law", 0, "B"),
        ("val", "law", 1, "B"),
        ("val", "physician", 0, "B"),
        ("val", "physician", 1, "B"),
        ("test", "law", 0, ""),
        ("test", "law", 1, ""),
        ("test", "physician", 0, ""),
        ("test", "physician", 1, ""),
    ]
    assert {one.task for one in asked} == {"ceval_gen_2daf24"}
    assert {len(one.messages) for one in asked} == {11}


def test_questions_of_a_subject_share_their_examples_and_are_made_when_they_are_asked(data: str) -> None:
    task = find_task("ceval_gen")
    subjects = task.select(["law"])
    first, second, *_ = task.questions(task.load(data, subjects, lambda _: None), subjects)
    assert all(one is other for one, other in zip(first.messages[:-1], second.messages[:-1], strict=True))
    assert first.messages == first.messages
    assert first.messages is not first.messages


def test_the_demo_asks_the_first_four_questions_or_fewer(cmmlu: str) -> None:
    task = find_task("demo_cmmlu_chat_gen")
    subjects = task.select(["agronomy"])
    tables = task.load(cmmlu, subjects, lambda _: None)
    assert [one.id for one in task.questions(tables, subjects)] == [0, 1, 2, 3]
    assert [one.id for one in task.questions(tables, subjects, limit=2)] == [0, 1]
    assert [one.id for one in task.questions(tables, subjects, limit=9)] == [0, 1, 2, 3]


def test_cmmlu_s_row_numbers_are_no_column_of_a_prompt_as_in_opencompass(cmmlu: str) -> None:
    task = find_task("cmmlu_0shot_cot_gen")
    subjects = task.select(["agronomy"])
    first = next(task.questions(task.load(cmmlu, subjects, lambda _: None), subjects))
    assert "\n\n{id} 0 {explanation}\n\n" in first.messages[0]["content"]


def test_examples_are_left_out_from_the_end_until_the_prompt_fits(data: str) -> None:
    task = find_task("ceval_gen")
    subjects = task.select(["law"])
    tables = task.load(data, subjects, lambda _: None)
    whole = next(task.questions(tables, subjects))
    shortened = next(task.questions(tables, subjects, fits=lambda messages: len(messages) <= 5))
    assert (whole.examples, shortened.examples) == (5, 2)
    assert shortened.messages == [*whole.messages[:4], whole.messages[-1]]


def test_a_question_too_long_by_itself_is_asked_without_examples(data: str) -> None:
    task = find_task("ceval_gen")
    subjects = task.select(["law"])
    tables = task.load(data, subjects, lambda _: None)
    assert {one.examples for one in task.questions(tables, subjects, fits=lambda _: False)} == {0}


def test_too_few_examples_are_an_error(data: str) -> None:
    path = Path(data) / "dev" / "law_dev.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    path.write_bytes(csv_bytes(rows[:3]))
    task = find_task("ceval_gen")
    with pytest.raises(DataError, match=r"shows 5 examples, but .* has 3 in the split dev of law"):
        task.load(data, task.select(["law"]), lambda _: None)


def test_a_task_without_examples_does_not_load_any(data: str) -> None:
    task = find_task("ceval_zero_shot_gen")
    tables = task.load(data, task.select(["law"]), lambda _: None)
    assert list(tables.rows) == [("law", "val")]


@pytest.mark.parametrize(
    ("task", "name", "subjects"),
    [
        ("ceval_gen", "法学", ["law"]),
        ("ceval_gen", "Law", ["law"]),
        ("ceval_gen", "ceval-law", ["law"]),
        ("ceval_gen", "Law 法学", ["law"]),
        ("ceval_gen", "computer-network", ["computer_network"]),
        ("ceval_gen", "Computer Network", ["computer_network"]),
        ("ceval_gen_2daf24", "ceval-test-law", ["law"]),
        ("cmmlu_gen", "农学", ["agronomy"]),
        ("demo_cmmlu_chat_gen", "demo_cmmlu-agronomy", ["agronomy"]),
    ],
)
def test_a_subject_is_found_by_every_name_it_is_shown_under(task: str, name: str, subjects: list[str]) -> None:
    assert [one.name for one in find_task(task).select([name])] == subjects


@pytest.mark.parametrize(
    ("task", "name", "count"),
    [
        ("ceval_gen", "stem", 20),
        ("ceval_gen", "STEM", 20),
        ("ceval_gen", "ceval-stem", 20),
        ("ceval_gen", "hard", 8),
        ("ceval_gen", "social_science", 10),
        ("ceval_gen", "ceval", 52),
        ("ceval_gen_2daf24", "stem", 20),
        ("ceval_gen_2daf24", "ceval-test-hard", 8),
        ("cmmlu_gen", "china-specific", 15),
        ("demo_cmmlu_chat_gen", "demo_cmmlu-other", 15),
    ],
)
def test_a_group_stands_for_its_subjects(task: str, name: str, count: int) -> None:
    assert len(find_task(task).select([name])) == count


def test_names_of_several_kinds_are_put_together_in_the_task_s_order() -> None:
    chosen = find_task("ceval_gen").select(["physician", "法学", "hard", "law"])
    assert [one.name for one in chosen if one.name not in CEVAL.groups["hard"]] == ["law", "physician"]
    assert len(chosen) == 10


def test_an_unknown_subject_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no subject 'laws'. Did you mean law"):
        find_task("ceval_gen").select(["laws"])


def test_an_unknown_shape_is_an_error(data: str) -> None:
    task = find_task("ceval_gen")
    subjects = task.select(["law"])
    tables = task.load(data, subjects, lambda _: None)
    with pytest.raises(UsageError, match="no prompt shape 'round'"):
        next(task.questions(tables, subjects, shape="round"))
