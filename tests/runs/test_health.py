"""Whether a score says something about the model, from rows alone."""

import random
from dataclasses import replace
from typing import Any

import pytest

from bundle.reports.health import headline
from bundle.runs.health import Finding, Health, examine, is_parsed
from bundle.runs.predictions import Prediction
from bundle.runs.reply_faults import Fault
from bundle.runs.statistics import at_most
from bundle.tasks.options import options_of
from tests.late import late

stats = late("scipy.stats")

OPTIONS = {"ceval_gen": "ABCD"}


def row(number: int = 0, answer: str | None = "A", **fields: Any) -> Prediction:
    gold = fields.pop("gold", "ABCD"[number % 4])
    one = Prediction(
        task="ceval_gen",
        split="val",
        subject="law",
        id=number,
        reply=answer,
        answer=answer,
        gold=gold,
        correct=answer == gold if gold else None,
        finish_reason="stop",
        decided_early=False,
        prompt_tokens=None,
        completion_tokens=None,
        latency_s=0.0,
        attempts=1,
    )
    return replace(one, **fields)


def good(count: int = 100, *, right: float = 0.6, seed: int = 0) -> list[Prediction]:
    """What a model replies that reads the questions."""
    chance = random.Random(seed)
    return [row(n, "ABCD"[n % 4] if chance.random() < right else chance.choice("ABCD")) for n in range(count)]


def only(health: Health) -> Finding:
    (found,) = health.findings
    return found


def test_of_a_good_run_one_short_line_is_said() -> None:
    health = examine(OPTIONS, good())
    assert headline(health) == "measurement: ok"
    assert not health.findings
    assert health.unparsed == 0


def test_a_few_replies_read_to_their_limit_are_no_doubt_where_others_were_stopped_at_the_same_answer() -> None:
    stopped = [replace(one, finish_reason=None, decided_early=True) for one in good()]
    read = [row(100 + n, "A", finish_reason="length") for n in range(8)]
    assert not examine(OPTIONS, [*stopped, *read]).findings
    assert only(examine(OPTIONS, [*good(), *read])).fault is Fault.CUT
    lost = [row(200 + n, "", reply="先看题，", finish_reason="length") for n in range(8)]
    assert only(examine(OPTIONS, [*stopped, *read, *lost])).count == 8


def test_without_replies_nothing_is_said() -> None:
    health = examine(OPTIONS, [row(reply=None, answer=None, correct=None, error="HTTP 500")])
    assert headline(health) == ""
    assert health.unparsed_percent == 0
    assert not health.findings


@pytest.mark.parametrize(
    ("fault", "fields"),
    [
        (Fault.NO_OPTION, {"reply": "不知道。", "answer": ""}),
        (Fault.NOT_AN_OPTION, {"reply": "The answer is B.", "answer": "T"}),
        (Fault.NOT_AN_OPTION, {"reply": "答案是Ｂ。", "answer": "Ｂ"}),
        (Fault.IN_A_WORD, {"reply": "As an AI model, I cannot answer.", "answer": "A"}),
        (Fault.IN_A_WORD, {"reply": "Based on the text, it is C.", "answer": "B"}),
        (Fault.CUT, {"reply": "先看题，", "answer": "", "finish_reason": "length"}),
        (Fault.CUT, {"reply": "Let us see", "answer": "L", "finish_reason": "length"}),
        (Fault.CUT, {"reply": "A is tempting,", "answer": "A", "finish_reason": "length"}),
        (Fault.REPEATED, {"reply": "!" * 32, "answer": "", "finish_reason": "length"}),
        (Fault.REPEATED, {"reply": "the the the the", "answer": ""}),
        (Fault.CUT, {"reply": "嗯，嗯，嗯，嗯，让我想想", "answer": "", "finish_reason": "length"}),
        (Fault.EMPTY, {"reply": "", "answer": ""}),
        (Fault.EMPTY, {"reply": " \n", "answer": "", "finish_reason": "length"}),
        (Fault.UNENDED_THINKING, {"reply": "", "answer": "", "thinking": "先看题", "finish_reason": "length"}),
        (Fault.UNENDED_THINKING, {"reply": "", "answer": "", "thinking": "先看题"}),
    ],
)
def test_every_fault_of_a_reply_is_counted_once_with_an_example(fault: Fault, fields: dict[str, Any]) -> None:
    replies = good()
    for number in range(40, 50):
        replies[number] = row(number, **fields)
    found = only(examine(OPTIONS, replies))
    assert (found.fault, found.count, found.of) == (fault, 10, 100)
    assert found.example is not None
    assert (found.example.subject, found.example.id) == ("law", 40)
    assert found.example.text == (fields["reply"].strip() or fields.get("thinking", ""))
    assert not found.is_minor
    assert found.fault.remedy


def test_replies_without_an_option_are_counted_whatever_the_reason() -> None:
    faulty = [
        row(0, reply="?", answer=""),
        row(1, reply="The", answer="T"),
        row(2, reply="A, for", answer="A", finish_reason="length"),
        row(3, reply="", answer="", thinking="…"),
    ]
    health = examine(OPTIONS, faulty)
    assert (health.replies, health.unparsed, health.unparsed_percent) == (4, 3, 75.0)
    assert {one.fault: one.count for one in health.findings} == {
        Fault.UNENDED_THINKING: 1,
        Fault.CUT: 1,
        Fault.NOT_AN_OPTION: 1,
        Fault.NO_OPTION: 1,
    }
    assert headline(health) == "measurement: DOUBTFUL, no option found in 3 of 4 replies (75.0 %)"
    assert [is_parsed(one, "ABCD") for one in faulty] == [False, False, True, False]


def test_a_few_odd_replies_among_many_are_mentioned_in_the_one_line() -> None:
    replies = good(1000)
    replies[7] = row(7, reply="不知道", answer="")
    health = examine(OPTIONS, replies)
    assert health.is_ok
    assert headline(health) == "measurement: ok; 1 of 1,000 replies contain no option"


def test_a_reply_stopped_early_is_not_cut() -> None:
    early = [replace(one, finish_reason=None, decided_early=True) for one in good()]
    assert headline(examine(OPTIONS, early)) == "measurement: ok"


def test_one_letter_for_nearly_everything_is_found() -> None:
    replies = [row(n, "B" if n % 20 else "C") for n in range(100)]
    found = only(examine(OPTIONS, replies))
    assert (found.fault, found.count, found.of) == (Fault.ONE_LETTER, 95, 100)
    assert '"B"' in found.says


def test_one_letter_that_is_right_is_no_fault() -> None:
    assert (
        headline(examine(OPTIONS, [row(n, "B", gold="B" if n % 20 else "C") for n in range(100)])) == "measurement: ok"
    )


def test_right_answers_that_are_all_one_letter_say_nothing_about_reading() -> None:
    found = only(examine(OPTIONS, [row(n, "ABBB"[n % 4], gold="B") for n in range(20)]))
    assert (found.fault, found.says, found.is_minor) == (Fault.ONE_GOLD, 'all 20 right answers are "B"', False)
    assert not examine(OPTIONS, [row(n, "B", gold="B") for n in range(19)]).findings


def test_one_letter_is_found_where_the_gold_answers_are_secret() -> None:
    found = only(examine(OPTIONS, [row(n, "B", gold="") for n in range(100)]))
    assert found.fault is Fault.ONE_LETTER


def test_a_score_below_guessing_is_found_only_where_chance_would_rarely_do_it() -> None:
    def answers(right: int, n: int) -> list[Prediction]:
        return [row(k, "ABCD"[(k + (k >= right)) % 4]) for k in range(n)]

    found = only(examine(OPTIONS, answers(10, 100)))
    assert (found.fault, found.count, found.of) == (Fault.BELOW_GUESSING, 10, 100)
    assert "10.0 %; guessing gives 25 %" in found.says
    assert not examine(OPTIONS, answers(2, 16)).findings
    assert not examine(OPTIONS, answers(20, 100)).findings


@pytest.mark.parametrize(("right", "n"), [(0, 20), (2, 30), (20, 104), (300, 1346), (3300, 13948), (5, 20)])
def test_the_chance_of_so_few_is_that_of_the_binomial_distribution(right: int, n: int) -> None:
    expected = stats.binomtest(right, n, 0.25, alternative="less").pvalue
    assert at_most(right, n, 0.25) == pytest.approx(expected if right < n / 4 else 1.0, rel=1e-6)


@pytest.mark.parametrize("mark", ["<scratchpad>", "[REASON]", "◁thought▷", "<|thinking|>", "【思考】"])
def test_a_mark_that_all_or_some_replies_begin_with_is_named(mark: str) -> None:
    for share in (1, 4):
        replies = [replace(one, reply=f"{mark}{one.reply}") if one.id % share == 0 else one for one in good()]
        found = only(examine(OPTIONS, replies))
        assert (found.fault, found.count) == (Fault.UNKNOWN_MARK, 100 / share)
        assert mark in found.says


@pytest.mark.parametrize("begin", ["<answer>", "[ANSWER]", "【答案】", "<B>", ""])
def test_what_frames_an_answer_is_no_mark(begin: str) -> None:
    assert not examine(OPTIONS, [replace(one, reply=f"{begin}{one.reply}") for one in good()]).findings


@pytest.mark.parametrize("mark", ["</reflection>", "<|end_of_thought|>", "<answer>"])
def test_answers_from_before_a_mark_that_may_end_thinking_are_counted(mark: str) -> None:
    """Those whose answer is the first option after the mark as well are not."""
    replies = [
        replace(one, reply=f"{one.answer} is tempting.\n{mark}\n\n{'ABCD'[n % 4]}") for n, one in enumerate(good())
    ]
    found = only(examine(OPTIONS, replies))
    others = sum(one.answer != "ABCD"[n % 4] for n, one in enumerate(replies))
    assert (found.fault, found.count, found.of, found.is_minor) == (Fault.UNKNOWN_END, others, 100, False)
    assert mark in found.says
    assert "[thinking]" in found.fault.remedy


def test_an_answer_rule_that_reads_past_the_mark_is_no_doubt() -> None:
    replies = [replace(one, reply=f"B 还是 C？\n<answer>{one.answer}</answer>") for one in good()]
    assert not examine(OPTIONS, replies).findings


def test_a_pair_of_unknown_marks_is_one_finding() -> None:
    replies = [replace(one, reply=f"<|channel>thought\n{one.answer}?\n<channel|>C") for one in good()]
    found = only(examine(OPTIONS, replies))
    assert (found.fault, found.count) == (Fault.UNKNOWN_MARK, 100)


def test_a_mark_in_few_replies_is_none() -> None:
    replies = good()
    for number in range(4):
        replies[number] = replace(replies[number], reply=f"{replies[number].answer}：\n</catalog>\n就是这样。")
    assert not examine(OPTIONS, replies).findings


@pytest.mark.parametrize(
    "reply", ["B", "B.", "选B", "(B)", "AB", "Bad: B", "B, because", "\\boxed{B}", "B是Bohr提出的"]
)
def test_a_letter_that_stands_alone_somewhere_is_an_answer(reply: str) -> None:
    replies = good()
    replies[1] = row(1, "B", reply=reply)
    assert not examine(OPTIONS, replies).findings


def test_replies_from_another_model_are_named_and_those_from_several_are_a_doubt() -> None:
    health = examine(OPTIONS, [replace(one, model="gpt-4o-2024-08-06") for one in good()])
    assert headline(health) == 'measurement: ok; 100 of 100 replies name the model "gpt-4o-2024-08-06"'

    found = only(examine(OPTIONS, [replace(one, model="small") if one.id > 69 else one for one in good()]))
    assert (found.fault, found.count, found.of, found.is_minor) == (Fault.SEVERAL_MODELS, 30, 100, False)
    assert found.says == '100 replies name 2 different models: the one asked for (70), "small" (30)'


def test_several_right_answers_are_options_and_guessing_has_no_rate() -> None:
    replies = [row(n, "AC", gold="BD" if n % 2 else "CD") for n in range(100)]
    assert [one.fault for one in examine(OPTIONS, replies).findings] == [Fault.ONE_LETTER]


def test_the_options_are_the_rules_the_benchmarks_or_those_of_the_gold_answers() -> None:
    assert options_of("town", {"rule": "first_option", "options": "AB"}, ["A"]) == "AB"
    assert options_of("ceval", {"rule": "first_capital"}, ["A"]) == "ABCD"
    rule = {"rule": "first_capital"}
    found = {golds: options_of("town", rule, golds) for golds in (("A", "B"), ("A", "F"), ("42", "B"), ("",), ())}
    assert found == {("A", "B"): "ABCD", ("A", "F"): "ABCDEF", ("42", "B"): "", ("",): "", (): ""}


def test_answers_of_any_text_are_only_counted_where_there_is_none() -> None:
    replies = [row(n, "42", gold="42") for n in range(50)] + [row(50, "", gold="42", reply="?")]
    health = examine({"ceval_gen": ""}, replies)
    assert health.unparsed == 1
    assert only(health).fault is Fault.NO_OPTION


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        *[("72.", "72"), ("1,000", "1000"), ("3.0", "3"), ("3**", "3"), ("３", "3"), ("$1/2$", "1/2"), ("+.50", "0.5")],
        *[("paris", "Paris"), ('"New York"', "New York"), ("x = 3", "x=3"), ("−5。", "-5"), ("北京。", "北京")],
    ],
)
def test_a_right_answer_that_is_written_otherwise_is_a_doubt(answer: str, gold: str) -> None:
    rows = [row(n, answer, gold=gold) for n in range(2)] + [row(2, "x", gold="y"), row(3, gold, gold=gold)]
    found = only(examine({"ceval_gen": ""}, rows))
    assert (found.fault, found.count, found.is_minor) == (Fault.WRITTEN_OTHERWISE, 2, False)
    assert found.says.endswith(f'such as "{answer}" ≠ "{gold}"')


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        *[("-5", "5"), ("15", "1.5"), ("5", ".5"), ("1/2", "12"), ("1 2", "12"), ("1,2", "12"), ("12:30", "1230")],
        *[("x<3", "x>3"), ("≤5", "≥5"), ("[0,1)", "(0,1]"), ("102", "10²"), ("√2", "2"), ("3!", "3"), ("50%", "50")],
        *[("C++", "C"), ("¬p", "p"), ("12345678901234567891", "12345678901234567890"), ("**", "*"), ("", "x")],
    ],
)
def test_another_answer_is_none_written_otherwise(answer: str, gold: str) -> None:
    health = examine({"ceval_gen": ""}, [row(n, answer or None, gold=gold) for n in range(4)])
    assert not [one for one in health.findings if one.fault is Fault.WRITTEN_OTHERWISE]


def test_a_fault_names_the_same_text_in_whatever_order_replies_were_answered() -> None:
    rows = [row(n, answer, reply=answer) for n, answer in enumerate("TUTUV")]
    assert only(examine(OPTIONS, rows)).says.endswith('mostly "T"')
    assert examine(OPTIONS, rows) == examine(OPTIONS, rows[::-1])


def test_an_example_is_one_printable_short_line() -> None:
    found = only(examine(OPTIONS, [row(reply="\x1b[31m\u202e" + "哦\n" * 500, answer="")]))
    assert found.example is not None
    assert len(found.example.text) <= 60
    assert "\x1b" not in found.example.text
    assert "\n" not in found.example.text


def test_each_task_has_its_own_findings() -> None:
    bad = [replace(row(n, "", reply="?"), task="other") for n in range(10)]
    health = examine(OPTIONS | {"other": "ABCD"}, good() + bad)
    assert [(one.task, one.count, one.of) for one in health.findings] == [("other", 10, 10)]
