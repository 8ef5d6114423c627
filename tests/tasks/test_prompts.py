"""From rows to messages."""

from bundle.tasks.prompts import Message, Prompt, cut, fill, is_plain

ROW = {"id": "0", "question": "1+1=?", "A": "1", "B": "2", "C": "3", "D": "4", "answer": "B", "explanation": ""}
ASKED = {**ROW, "question": "2+2=?", "A": "seven", "answer": ""}


def few_shot(user: str, assistant: str = "{answer}") -> Prompt:
    return Prompt(user, assistant, examples=1, place_for_examples=True)


def messages(prompt: Prompt, shape: str, examples: list[dict[str, str]], asked: dict[str, str]) -> list[Message]:
    return prompt.after(shape, prompt.shown(examples), asked)


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


def test_what_an_example_leaves_open_is_filled_from_the_question_as_in_opencompass() -> None:
    first = messages(few_shot("{D}"), "turns", [{**ROW, "D": "{A}"}], ASKED)[0]
    assert first["content"] == "seven"


def test_the_subject_s_name_is_put_in_both_turns() -> None:
    prompt = few_shot("{subject}: {question}", "{subject}: {answer}").about("法学")
    assert [message["content"] for message in messages(prompt, "turns", [ROW], ASKED)] == [
        "法学: 1+1=?",
        "法学: B",
        "法学: 2+2=?",
    ]


def test_in_turns_examples_come_first_and_the_question_ends_the_conversation_without_its_answer() -> None:
    assert messages(few_shot("问: {question}", "答: {answer}"), "turns", [ROW], ASKED) == [
        {"role": "user", "content": "问: 1+1=?"},
        {"role": "assistant", "content": "答: B"},
        {"role": "user", "content": "问: 2+2=?"},
    ]


def test_flat_is_one_message_that_ends_with_what_comes_before_the_answer() -> None:
    assert messages(few_shot("问: {question}", "答: {answer}"), "flat", [ROW], ASKED) == [
        {"role": "user", "content": "问: 1+1=?\n答: B\n问: 2+2=?\n答: "}
    ]


def test_plain_is_the_flat_text_with_no_role_of_a_chat() -> None:
    prompt = few_shot("问: {question}", "答: {answer}")
    (flat,), (plain,) = (messages(prompt, shape, [ROW], ASKED) for shape in ("flat", "plain"))
    assert plain == {"role": "text", "content": flat["content"]}
    assert (is_plain([plain]), is_plain([flat])) == (True, False)


def test_a_text_in_which_an_option_follows_has_empty_lines_between_examples_as_in_opencompass() -> None:
    (text,) = (prompt := few_shot("问: {question}", "答: {answer}")).until_answer(prompt.shown([ROW, ROW]), ASKED)
    assert text == {
        "role": "text",
        "content": "问: 1+1=?\n答: B\n\n\n问: 1+1=?\n答: B\n\n\n\n\n问: 2+2=?\n答: ",
    }
    (text,) = few_shot("问: {question}答: ").until_answer([], ASKED)
    assert text["content"] == "\n\n问: 2+2=?答: \n"


def test_flat_ends_with_the_question_where_nothing_comes_before_the_answer() -> None:
    (message,) = messages(few_shot("问: {question}答: "), "flat", [ROW], ASKED)
    assert message["content"] == "问: 1+1=?答: \nB\n问: 2+2=?答: "


def test_flat_without_examples_begins_with_an_empty_line_where_the_template_has_a_place_for_them() -> None:
    with_place = Prompt("{question}", "{answer}", examples=0, place_for_examples=True)
    without = Prompt("{question}", "{answer}", examples=0, place_for_examples=False)
    assert messages(with_place, "flat", [], ASKED)[0]["content"] == "\n2+2=?"
    assert messages(without, "flat", [], ASKED)[0]["content"] == "2+2=?"
    assert messages(with_place, "turns", [], ASKED) == messages(without, "turns", [], ASKED)


def test_the_cells_of_a_filled_template_are_found_again_whatever_examples_come_before() -> None:
    template = "关于{subject}的题。\n{question}\nA. {A}\nB. {B}\n答案: "
    example = fill(template, {"subject": "法学", "question": "例题", "A": "x", "B": "y"}) + "A\n"
    asked = fill(template, {"subject": "法学", "question": "问\nA 与 B？", "A": "甲", "B": ""})

    pieces = cut(template, example + asked)

    assert "".join(text for _, text in pieces) == example + asked
    assert [(name, text) for name, text in pieces if name] == [
        ("subject", "法学"),
        ("question", "问\nA 与 B？"),
        ("A", "甲"),
    ]


def test_an_option_that_a_row_does_not_have_has_no_piece() -> None:
    pieces = cut("{question}\nA. {A}\nB. {B}\nC. {C}", "问？\nA. 甲\nB. 乙")
    assert [(name, text) for name, text in pieces if name] == [("question", "问？"), ("A", "甲"), ("B", "乙")]


def test_text_that_was_not_made_from_the_template_is_one_piece() -> None:
    assert cut("问题：{question}\n答案: ", "something else") == [("", "something else")]
