"""What will be asked: command line, task, model file and defaults, in this order; and prompts that are too long."""

from pathlib import Path
from typing import Literal

import pytest

from bundle.checkpoints import estimating_counter, token_counter
from bundle.config.model_files import ModelFile, Sampling
from bundle.errors import UsageError
from bundle.pipeline.context import ContextLimit
from bundle.pipeline.options import EvaluationOptions, parse_data, parse_duration
from bundle.pipeline.plan import Plan, plan_tasks
from bundle.runs.record import ContextRecord, SamplingRecord

PLAIN = ModelFile(description="a model")
FROM_FILE = ModelFile(
    description="a model", prompt_shape="flat", sampling=Sampling(temperature=0.5, max_out_len=1024, max_seq_len=4096)
)


def shapes(plan: Plan) -> dict[str, str]:
    return {one.task.name: one.shape for one in plan.planned}


def test_defaults_apply_where_nothing_is_given() -> None:
    plan = plan_tasks(EvaluationOptions(), PLAIN)
    assert plan.sampling({}) == SamplingRecord(temperature=0.0, max_out_len=2048, max_seq_len=None)
    assert shapes(plan) == {"ceval_gen": "turns"}
    assert plan.sources == ["hub"]


def test_the_model_file_overrides_defaults() -> None:
    plan = plan_tasks(EvaluationOptions(), FROM_FILE)
    assert plan.sampling({}) == SamplingRecord(temperature=0.5, max_out_len=1024, max_seq_len=4096)
    assert shapes(plan) == {"ceval_gen": "flat"}


def test_a_tasks_reply_length_overrides_the_model_file_as_in_opencompass() -> None:
    plan = plan_tasks(EvaluationOptions(tasks=["ceval_gen", "ceval_zero_shot_gen"]), FROM_FILE)
    assert plan.max_out_len == {"ceval_gen": 1024, "ceval_zero_shot_gen": 256}


def test_the_command_line_overrides_everything() -> None:
    request = EvaluationOptions(
        tasks=["ceval_zero_shot_gen"], temperature=1.0, max_out_len=7, max_seq_len=99, prompt_shape="turns"
    )
    plan = plan_tasks(request, FROM_FILE)
    assert plan.sampling({}) == SamplingRecord(temperature=1.0, max_out_len=7, max_seq_len=99)
    assert shapes(plan) == {"ceval_zero_shot_gen": "turns"}


def test_a_base_model_s_replies_are_as_long_as_in_opencompass_s_configs_of_base_models() -> None:
    tasks = ["ceval_gen", "ceval_zero_shot_gen"]
    plan = plan_tasks(EvaluationOptions(tasks=tasks, prompt_shape="plain"), PLAIN)
    assert plan.max_out_len == {"ceval_gen": 1024, "ceval_zero_shot_gen": 256}
    assert plan.requests.plain
    assert not plan_tasks(EvaluationOptions(), PLAIN).requests.plain


def test_a_task_that_asks_for_no_replies_keeps_its_texts() -> None:
    tasks = ["ceval_ppl", "ceval_gen"]
    plan = plan_tasks(EvaluationOptions(tasks=tasks, prompt_shape="flat", max_out_len=9), PLAIN)
    assert shapes(plan) == {"ceval_ppl": "plain", "ceval_gen": "flat"}
    assert plan.max_out_len == {"ceval_ppl": 1, "ceval_gen": 9}


def test_each_benchmark_can_have_its_own_source() -> None:
    data = parse_data(["ceval=./ceval", "modelscope"])
    plan = plan_tasks(EvaluationOptions(tasks=["ceval_gen", "cmmlu_gen"], data=data), PLAIN)
    assert plan.sources == ["./ceval", "modelscope"]


def test_a_task_of_ones_own_reads_its_own_file_unless_it_alone_is_given_another() -> None:
    town = Path(__file__).parents[2] / "examples" / "town"
    task, data = str(town / "town.toml"), parse_data(["./other.csv"])
    own = str(town / "questions.csv")
    assert plan_tasks(EvaluationOptions(tasks=[task]), PLAIN).sources == [own]
    assert plan_tasks(EvaluationOptions(tasks=[task], data=data), PLAIN).sources == ["./other.csv"]
    assert plan_tasks(EvaluationOptions(tasks=[task, "ceval_gen"], data=data), PLAIN).sources == [own, "./other.csv"]


def test_subjects_are_recorded_by_their_names_whatever_they_were_selected_by() -> None:
    plan = plan_tasks(EvaluationOptions(subjects=["逻辑学", "ceval-law"]), PLAIN)
    assert [record.subjects for record in plan.task_records()] == [("logic", "law")]
    assert [record.subjects for record in plan_tasks(EvaluationOptions(), PLAIN).task_records()] == [None]


@pytest.mark.parametrize("values", [["hub", "sample"], ["ceval=a", "ceval=b"]])
def test_two_sources_for_one_benchmark_are_an_error(values: list[str]) -> None:
    with pytest.raises(UsageError, match="twice"):
        parse_data(values)


def test_a_task_named_twice_is_an_error() -> None:
    with pytest.raises(UsageError, match="names cmmlu_gen 2 times"):
        plan_tasks(EvaluationOptions(tasks=["ceval_gen", "cmmlu_gen", "cmmlu_gen"]), PLAIN)


def test_a_tasks_other_name_is_the_same_task() -> None:
    with pytest.raises(UsageError, match="names ceval_gen 2 times"):
        plan_tasks(EvaluationOptions(tasks=["ceval_gen", "ceval_gen_5f30c7"]), PLAIN)


def test_examples_are_dropped_one_by_one_until_prompt_and_reply_fit(tiny: Path) -> None:
    count = token_counter(tiny)
    assert count is not None
    request = EvaluationOptions(data={"": "sample"}, subjects=["law"], max_out_len=100)
    whole = plan_tasks(request, PLAIN).load(lambda _: None, lambda: count).questions
    lengths = [count(question.messages) for question in whole]
    limit = 100 + min(lengths) - 1

    limited = EvaluationOptions(data={"": "sample"}, subjects=["law"], max_out_len=100, max_seq_len=limit)
    plan = plan_tasks(limited, PLAIN)
    questions = plan.load(lambda _: None, lambda: count).questions

    assert plan.shortened(questions) == len(whole) == 2
    for question, full in zip(questions, whole, strict=True):
        assert 0 < question.examples < 5
        assert count(question.messages) + 100 <= limit
        assert list(question.messages) == [*full.messages[: 2 * question.examples], full.messages[-1]]


def test_without_a_tokenizer_lengths_are_estimated_on_the_safe_side(tiny: Path) -> None:
    count = token_counter(tiny)
    assert count is not None
    request = EvaluationOptions(data={"": "sample"}, subjects=["law"], max_out_len=20, max_seq_len=900)
    plan = plan_tasks(request, PLAIN)
    loaded = plan.load(lambda _: None, lambda: None)
    assert plan.shortened(loaded.questions) == 2
    assert loaded.context is not None
    assert loaded.context.record.counted_with is not None
    assert "estimated" in loaded.context.record.counted_with


@pytest.mark.parametrize("smallest", ["--max-seq-len", "model file", "--session-len", "config.json"])
def test_the_smallest_limit_counts_whoever_sets_it(smallest: str) -> None:
    lengths = dict.fromkeys(["--max-seq-len", "model file", "--session-len", "config.json"], 100_000) | {smallest: 900}
    request = EvaluationOptions(
        data={"": "sample"}, subjects=["law"], max_out_len=16, max_seq_len=lengths["--max-seq-len"]
    )
    model = ModelFile(description="a model", sampling=Sampling(max_seq_len=lengths["model file"]))
    of_target = [ContextLimit(lengths[source], source) for source in ("--session-len", "config.json")]
    plan = plan_tasks(request, model)
    loaded = plan.load(lambda _: None, lambda: None, of_target)
    assert plan.shortened(loaded.questions) == 2
    assert loaded.context is not None
    assert loaded.context.record == ContextRecord(
        max_tokens=900, set_by=smallest, counted_with=estimating_counter().source
    )


def test_prompts_that_are_far_from_the_limit_are_not_counted() -> None:
    request = EvaluationOptions(data={"": "sample"}, subjects=["law"], max_seq_len=100_000)
    loaded = plan_tasks(request, PLAIN).load(lambda _: None, pytest.fail)
    assert loaded.context is not None
    assert loaded.context.record.counted_with is None
    assert list(loaded.context.says(0, 2)) == []


def test_a_reply_is_left_what_the_prompt_leaves_and_never_less_than_a_quarter() -> None:
    """2,048 tokens for a reply, the default, would leave no room for an example in a context of as many."""
    request = EvaluationOptions(data={"": "sample"}, subjects=["law"], max_seq_len=2048)
    plan = plan_tasks(request, PLAIN)
    assert plan.max_out_len == {"ceval_gen": 2048}
    count = estimating_counter()
    for question in plan.load(lambda _: None, lambda: None).questions:
        assert question.examples > 0
        assert question.max_reply is not None
        assert question.max_reply >= 512
        assert count(question.messages) + question.max_reply == 2048


def test_a_reply_length_of_the_users_that_leaves_no_room_is_refused() -> None:
    request = EvaluationOptions(data={"": "sample"}, subjects=["law"], max_out_len=500, max_seq_len=500)
    with pytest.raises(UsageError, match=r"--max-out-len 500 leaves no room .* 500 tokens \(--max-seq-len\)"):
        plan_tasks(request, PLAIN).load(lambda _: None, lambda: None)


@pytest.mark.parametrize("shape", ["turns", "flat"])
def test_a_question_can_be_made_again_with_fewer_examples(shape: Literal["turns", "flat"]) -> None:
    request = EvaluationOptions(data={"": "sample"}, subjects=["law"], prompt_shape=shape)
    loaded = plan_tasks(request, PLAIN).load(lambda _: None, lambda: None)
    whole = loaded.questions[0]
    assert loaded.fewer_examples(whole, 5) == whole
    shorter = loaded.fewer_examples(whole, 2)
    assert (shorter.key, shorter.gold, shorter.examples) == (whole.key, whole.gold, 2)
    if shape == "turns":
        assert list(shorter.messages) == [*whole.messages[:4], whole.messages[-1]]
    else:
        text, all_of_it = shorter.messages[0]["content"], whole.messages[0]["content"]
        assert text.count("答案: ") == 3
        assert (all_of_it[:100], all_of_it[-100:]) == (text[:100], text[-100:])


@pytest.mark.parametrize(
    ("written", "seconds"), [("90s", 90), ("30m", 1800), ("1h", 3600), ("1h30m", 5400), (" 1.5H ", 5400), ("90", 90)]
)
def test_times_are_read_as_people_write_them(written: str, seconds: float) -> None:
    assert parse_duration(written) == seconds


@pytest.mark.parametrize("written", ["", "h", "1 hour", "-5m", "1d", "5m x", "nan", "inf", "9" * 400])
def test_what_is_no_time_is_refused(written: str) -> None:
    with pytest.raises(UsageError, match="is not a valid time"):
        parse_duration(written)


def test_what_the_target_adds_gives_way_to_the_model_file() -> None:
    file = ModelFile(description="a model", sampling=Sampling(top_p=0.9, extra_body={"top_k": 20}))
    assert plan_tasks(EvaluationOptions(), file).sampling({"top_k": 1, "stop": ["x"]}).extra_body == {
        "top_k": 20,
        "stop": ["x"],
        "top_p": 0.9,
    }
