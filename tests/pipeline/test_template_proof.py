"""Whether a server uses the checkpoint's own chat template, judged by the numbers of tokens it gives."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from bundle.checkpoints import RenderedPrompt
from bundle.client import Reply
from bundle.errors import ExitCode
from bundle.pipeline.template_proof import TemplateProof, Verdict, choose_prompts
from bundle.tasks.catalog import Question
from bundle.tasks.prompts import Message
from tests.checkpoints.tokenizers import write_bpe


def question(number: int, length: int, turns: int = 1) -> Question:
    messages: list[Message] = [{"role": "user", "content": "x" * (length // turns)} for _ in range(turns)]
    return Question("t", "val", "law", number, messages, "A", examples=0)


QUESTIONS = [question(0, 50), question(1, 10), question(2, 90), question(3, 60, turns=3), question(4, 70)]


class Counting:
    """An evaluation whose server counts as it is told, replies to nothing if told no counts, and dies of None."""

    def __init__(self, *counts: Sequence[int | None] | None) -> None:
        self._counts = list(counts)
        self.unanswered = list(QUESTIONS)
        self.asked: list[list[int]] = []

    async def first_tokens(self, client: object, questions: Sequence[Question]) -> Sequence[Reply | None]:
        self.asked.append([one.id for one in questions])
        counts = self._counts.pop(0)
        if counts is None:
            raise ConnectionError
        if not counts:
            return [None for _ in questions]
        return [first_token("B", count) for count in counts][: len(questions)]

    async def first_token(self, client: object) -> Reply:
        (count,) = self._counts.pop(0) or [None]
        return first_token("B", count)


class Saying(Counting):
    """One that counts right, and replies the same to everything."""

    def __init__(self, text: str, completion_tokens: int | None = 1) -> None:
        super().__init__()
        self._reply = replace(first_token(text, 40), completion_tokens=completion_tokens)

    async def first_tokens(self, client: object, questions: Sequence[Question]) -> Sequence[Reply | None]:
        return [self._reply for _ in questions]


def first_token(text: str, prompt_tokens: int | None) -> Reply:
    return Reply(text, "length", prompt_tokens, 1, None, latency_s=0.1, attempts=1)


def proof_of(
    rendered: RenderedPrompt, *, option: str | None = None, lives: int = 1, vocabulary: Path = Path("none")
) -> TemplateProof:
    choices = choose_prompts(QUESTIONS, lives)
    return TemplateProof("lmdeploy", option, choices, {one.key: rendered for one in QUESTIONS}, rendered, vocabulary)


async def verdict_of(proof: TemplateProof, *counts: Sequence[int | None]) -> Verdict:
    verdict = await proof.prove(cast(Any, Counting(*counts)), cast(Any, None))
    assert verdict is not None
    return verdict


def test_the_shortest_the_median_the_longest_and_the_one_with_most_turns_are_chosen() -> None:
    questions = [question(0, 50), question(1, 10), question(2, 90), question(3, 60, turns=3), question(4, 55)]
    (choice,) = choose_prompts(questions, 1)
    assert [one.id for one in choice] == [1, 4, 2, 3]


def test_no_prompt_is_chosen_twice() -> None:
    choices = choose_prompts(QUESTIONS, 3)
    assert len(choices) == 2
    ids = [one.id for choice in choices for one in choice]
    assert sorted(ids) == [0, 1, 2, 3, 4]


def test_without_questions_there_is_nothing_to_choose() -> None:
    assert choose_prompts([], 2) == []


async def test_equal_counts_are_on_record() -> None:
    verdict = await verdict_of(proof_of(RenderedPrompt(40, 40)), [40, 40, 40, 40])
    assert (verdict.record.checked, verdict.record.equal, verdict.record.note) == (3, True, None)
    assert verdict.error is None
    assert verdict.warning is None


async def test_special_tokens_that_the_tokenizer_adds_are_no_other_template() -> None:
    verdict = await verdict_of(proof_of(RenderedPrompt(40, 41)), [41, 41, 41, 41])
    assert verdict.record.equal is True
    assert "special tokens" in str(verdict.record.note)
    assert verdict.error is None


@pytest.mark.parametrize(
    ("rendered", "count"),
    [
        (RenderedPrompt(40, 41, appended="</s>"), 41),
        (RenderedPrompt(42, 42, bare=40, appended="</s>"), 42),
    ],
    ids=["chat", "plain"],
)
async def test_a_prompt_must_not_end_with_the_end_that_a_tokenizer_puts_after_texts(
    rendered: RenderedPrompt, count: int
) -> None:
    error = (await verdict_of(proof_of(rendered), [count] * 4)).error
    assert error is not None
    assert "The checkpoint's tokenizer puts '</s>' after every text, and the lmdeploy server" in error.message
    assert "add_eos_token" in str(error.remedy)


async def test_a_server_that_leaves_out_that_end_is_right() -> None:
    verdict = await verdict_of(proof_of(RenderedPrompt(40, 41, appended="</s>")), [40, 40, 40, 40])
    assert (verdict.record.equal, verdict.error) == (True, None)


async def test_another_count_is_an_error_with_both_counts_the_template_and_what_to_do() -> None:
    rendered = RenderedPrompt(40, 40, "<s><|im_start|>user\nx")
    verdict = await verdict_of(proof_of(rendered), [40, 786, 40, 40])
    assert verdict.record.equal is False
    error = verdict.error
    assert error is not None
    assert error.exit_code == ExitCode.SERVER
    assert "786 tokens on the server, 40 by the checkpoint's template" in error.message
    assert "--chat-template" in str(error.remedy)
    assert any("<s><|im_start|>user" in line for line in error.details)


async def test_another_count_with_a_template_of_the_users_choice_is_a_warning() -> None:
    verdict = await verdict_of(proof_of(RenderedPrompt(40, 40), option="--chat-template"), [786, 786, 786, 786])
    assert verdict.error is None
    assert "--chat-template gives other prompts" in str(verdict.warning)
    assert verdict.record.equal is False


async def test_a_text_must_begin_with_the_special_tokens_of_the_tokenizer() -> None:
    plain = RenderedPrompt(41, 41, "以下是", bare=40)
    assert (await verdict_of(proof_of(plain), [41, 41, 41, 41])).record.equal is True
    error = (await verdict_of(proof_of(plain), [40, 40, 40, 40])).error
    assert error is not None
    assert "40 tokens on the server, 41 by the checkpoint's tokenizer, which begins a text with a special" in str(error)
    error = (await verdict_of(proof_of(plain), [99, 99, 99, 99])).error
    assert error is not None
    assert "special" not in str(error)


@pytest.mark.parametrize(
    ("rendered", "counts", "why"),
    [
        (RenderedPrompt(40, 40), [None, None, None], "does not report prompt token counts"),
        (RenderedPrompt(None, error="TemplateError: no system role"), [40, 40, 40], "no system role"),
    ],
)
async def test_what_cannot_be_compared_is_said(
    rendered: RenderedPrompt, counts: Sequence[int | None], why: str
) -> None:
    verdict = await verdict_of(proof_of(rendered), counts)
    assert (verdict.record.checked, verdict.record.equal) == (0, None)
    assert why in str(verdict.record.note)
    assert "could not verify" in str(verdict.warning)


@pytest.mark.parametrize(("count", "equal"), [(40, True), (786, False), (None, None)])
async def test_if_no_question_gets_a_reply_a_trivial_prompt_is_compared(count: int | None, equal: bool | None) -> None:
    verdict = await verdict_of(proof_of(RenderedPrompt(40, 40), lives=2), [], [], [count])
    assert verdict.record.equal is equal
    if equal is False:
        assert verdict.error is not None
        assert 'the prompt "1" has 786 tokens on the server, 40 by' in verdict.error.message


async def test_counts_of_some_prompts_are_enough() -> None:
    verdict = await verdict_of(proof_of(RenderedPrompt(40, 40)), [None, 40, None, None])
    assert (verdict.record.checked, verdict.record.equal) == (1, True)


async def test_prompts_that_a_server_died_of_are_not_tried_on_the_next_and_an_equal_count_is_enough() -> None:
    proof, evaluation = proof_of(RenderedPrompt(40, 40), lives=3), Counting(None, [40, 40, 40, 40])
    with pytest.raises(ConnectionError):
        await proof.prove(cast(Any, evaluation), cast(Any, None))
    verdict = await proof.prove(cast(Any, evaluation), cast(Any, None))
    assert verdict is not None
    assert verdict.record.equal is True
    assert await proof.prove(cast(Any, evaluation), cast(Any, None)) is None
    assert not set(evaluation.asked[0]) & set(evaluation.asked[1])


async def test_servers_that_die_of_all_prompts_are_asked_one_at_a_time_and_never_go_unproved() -> None:
    proof, evaluation = proof_of(RenderedPrompt(40, 40), lives=1), Counting(None, None, None, [40])
    for _ in range(3):
        with pytest.raises(ConnectionError):
            await proof.prove(cast(Any, evaluation), cast(Any, None))
    del evaluation.unanswered[4]  # it is known to crash servers
    verdict = await proof.prove(cast(Any, evaluation), cast(Any, None))
    assert verdict is not None
    assert verdict.record.equal is True
    assert evaluation.asked == [[1, 3, 2], [1], [3], [2]]


async def test_if_prompts_get_no_reply_others_are_tried() -> None:
    proof, evaluation = proof_of(RenderedPrompt(40, 40), lives=2), Counting([], [786, 786])
    verdict = await proof.prove(cast(Any, evaluation), cast(Any, None))
    assert verdict is not None
    assert verdict.error is not None


# What a server returns besides what the model has said

NOT_TO_THINK = RenderedPrompt(40, 40, ending="<|im_start|>assistant\n<think>\n\n</think>\n\n")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("</think>\n\nA", id="what the template writes last"),
        pytest.param("assistant\n<think>\n\n</think>\n\nA", id="the beginning of the turn"),
        pytest.param("<|im_start|>user\n" + "x" * 90 + "<|im_end|>\nA", id="the whole prompt"),
    ],
)
async def test_text_of_the_prompt_in_a_reply_of_one_token_is_an_error(tmp_path: Path, text: str) -> None:
    proof = proof_of(NOT_TO_THINK, vocabulary=write_bpe(tmp_path / "bpe"))
    verdict = await proof.prove(cast(Any, Saying(text)), cast(Any, None))
    assert verdict is not None
    assert verdict.error is not None
    assert "text of the prompt as part of the reply: law #" in verdict.error.message
    assert repr(text)[:20] in verdict.error.message
    assert verdict.error.exit_code == ExitCode.SERVER


@pytest.mark.parametrize(
    ("text", "completion_tokens"),
    [
        pytest.param("A", 1, id="a letter"),
        pytest.param("", 1, id="nothing"),
        pytest.param("\n", 1, id="a token that the prompt ends with"),
        pytest.param("\n\n\n", 1, id="more of what the prompt ends with"),
        pytest.param("\n\nA", 1, id="white space, which changes no answer"),
        pytest.param("\n\ufffd", 1, id="a part of a character"),
        pytest.param("\n\nA: because of the law", 9, id="more tokens than it was asked for"),
        pytest.param("x" * 90, 90, id="a question said again, by a server that does not stop"),
        pytest.param("B" * 9, 1, id="several tokens of no prompt"),
    ],
)
async def test_what_the_model_says_is_none(tmp_path: Path, text: str, completion_tokens: int | None) -> None:
    proof = proof_of(NOT_TO_THINK, vocabulary=write_bpe(tmp_path / "bpe"))
    verdict = await proof.prove(cast(Any, Saying(text, completion_tokens)), cast(Any, None))
    assert verdict is not None
    assert verdict.error is None
