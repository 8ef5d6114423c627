"""What is kept of the questions and outcomes of a run: little, and the right rows."""

import sys
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bundle.evaluation import AskingOptions, Evaluation
from bundle.evaluation._outcomes import Outcomes
from bundle.runs.predictions import Prediction
from bundle.runs.run import Run
from bundle.tasks.catalog import Question, find_task
from bundle.tasks.scores import Key

LONG = "因为 x 。" * 2000


def question(number: int, subject: str = "law") -> Question:
    return Question("ceval_gen", "val", subject, number, [{"role": "user", "content": f"题 {number}"}], "A", 0)


def outcome(key: Key, reply: str | None, **changed: object) -> Prediction:
    known = Prediction(
        *key,
        reply="",
        answer=None if reply is None else "A",
        gold="A",
        correct=None if reply is None else True,
        finish_reason="stop",
        decided_early=False,
        prompt_tokens=300,
        completion_tokens=2,
        latency_s=0.05,
        attempts=1,
        error="HTTP 500" if reply is None else None,
    )
    return replace(known, reply=reply, **changed)  # type: ignore[arg-type]


def evaluation_of(run: Run, questions: Sequence[Question]) -> Evaluation:
    options = AskingOptions(4, adaptive=False, full_replies=True, prefix_order=True)
    return Evaluation([find_task("ceval_gen")], questions, run, lambda _: None, max_out_len={}, asking=options)


def test_replies_are_on_the_disk_and_not_in_memory(tmp_path: Path) -> None:
    questions = [question(number) for number in range(500)]
    with Run.create(tmp_path, "r") as run:
        evaluation = evaluation_of(run, questions)
        evaluation.record(outcome(questions[0].key, LONG))  # what the first one brings with it stays, such as modules
        run.flush()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for some in (questions[1:-1], questions[-1:]):
                for one in some:
                    evaluation.record(outcome(one.key, f"{one.id} {LONG}"))
                run.flush()  # what has not been written is kept, and what was written last
            kept = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        results = evaluation.results({})

    assert kept < 50 * len(questions) + 2 * sys.getsizeof(LONG)
    assert (results.coverage.answered, results.scores["ceval-law"].accuracy) == (500, 100)


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["reply", "stopped", "no reply", "forget"]))))
def test_the_last_row_of_every_question_counts_unless_it_was_forgotten(steps: list[tuple[int, str]]) -> None:
    questions = [question(number, subject) for subject in ("law", "logic") for number in (0, 2, 3)]
    outcomes = Outcomes(questions)
    rows: list[Prediction] = []
    expected: dict[Key, int] = {}
    for place, step in steps:
        key = questions[place].key
        if step == "forget":
            outcomes.forget([key])
            expected.pop(key, None)
            continue
        one = outcome(key, None if step == "no reply" else "A", decided_early=step == "stopped")
        outcomes.add(key, one, len(rows))
        expected[key] = len(rows)
        rows.append(one)

    current = {number for number in range(len(rows)) if outcomes.rows()(number)}
    assert current == set(expected.values())
    assert [one.key for one in outcomes.without] == [one.key for one in questions if one.key not in expected]
    replies = {key for key, number in expected.items() if rows[number].error is None}
    assert {one.key for one in outcomes.with_reply()} == replies
    assert (outcomes.known, outcomes.answered, outcomes.new_answers) == (len(expected), len(replies), len(replies))
    assert set(outcomes.failed(expected)) == expected.keys() - replies
    assert {one.key for one, _ in outcomes.stopped("ceval_gen")} == {
        key for key, number in expected.items() if rows[number].decided_early
    }
    assert outcomes.place(question(1).key) is outcomes.place(question(9).key) is None


def test_what_is_answered_again_in_a_later_session_is_not_new(tmp_path: Path) -> None:
    questions = [question(number) for number in range(4)]
    with Run.create(tmp_path, "r") as run:
        run.write("run.json", {})
        for one in questions[:2]:
            run.append(outcome(one.key, "A"))
    with Run.resume(run.directory) as again:
        evaluation = evaluation_of(again, questions)
        assert [one.id for one in evaluation.unanswered] == [2, 3]
        evaluation.record(outcome(questions[0].key, "B", answer="B", correct=False))
        evaluation.record(outcome(questions[2].key, "A"))
        results = evaluation.results({})

    assert (results.timed_answers, results.coverage.answered) == (1, 3)
    assert [one.reply for one in evaluation.predictions] == ["A", "B", "A"]
