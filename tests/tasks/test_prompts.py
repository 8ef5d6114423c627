"""From rows to messages."""

from bundle.tasks.prompts import chat_turns, fill

ROW = {"id": "0", "question": "1+1=?", "A": "1", "B": "2", "C": "3", "D": "4", "answer": "B", "explanation": ""}


def test_cells_take_the_place_of_their_columns() -> None:
    assert fill("{question}\nA. {A}\nB. {B}", ROW) == "1+1=?\nA. 1\nB. 2"


def test_braces_that_name_no_column_stay() -> None:
    assert fill(r"\frac{1}{2} {question}", ROW) == r"\frac{1}{2} 1+1=?"


def test_a_column_named_in_an_earlier_cell_is_filled_too_as_in_opencompass() -> None:
    row = {**ROW, "question": r"$\bar{A}$ 表示____。"}
    assert fill("{question}", row) == r"$\bar1$ 表示____。"


def test_a_column_named_in_a_later_cell_stays_until_the_whole_prompt_is_filled() -> None:
    row = {**ROW, "D": "{A}"}
    assert fill("{D}", row) == "{A}"


def test_examples_come_first_and_the_question_ends_the_conversation_without_its_answer() -> None:
    asked = {**ROW, "question": "2+2=?", "answer": ""}
    assert chat_turns("问: {question}\n答: ", "{answer}", [ROW], asked) == [
        {"role": "user", "content": "问: 1+1=?\n答: "},
        {"role": "assistant", "content": "B"},
        {"role": "user", "content": "问: 2+2=?\n答: "},
    ]


def test_what_an_example_leaves_open_is_filled_from_the_question_as_in_opencompass() -> None:
    example = {**ROW, "D": "{A}"}
    asked = {**ROW, "A": "seven", "answer": ""}
    first = chat_turns("{D}", "{answer}", [example], asked)[0]
    assert first["content"] == "seven"
