"""Prompts that a server cuts without a word, found by its own counts of tokens; and that nothing else looks so."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bundle.runs.cut_prompts import CountedPrompts
from bundle.runs.health import examine
from bundle.runs.predictions import Prediction
from bundle.runs.reply_faults import Fault
from bundle.tasks.prompts import Message
from bundle.tasks.scores import Key
from tests.runs.test_health import OPTIONS, row

Count = Callable[[Sequence[int]], int]
"""What a server counts of a prompt whose messages have so many tokens."""

PER_CHARACTER: Final = {
    "文": (0.55, 0.7, 1.0, 2.0),  # Chinese, from today's tokenizers to those that have no word for it
    "w": (0.2, 0.25, 0.35),  # English prose
    "+": (0.35, 0.5, 0.8),  # formulas
}


class Asked:
    """Made prompts of subjects that differ in language and length, and the tokens of each of their messages."""

    def __init__(
        self,
        seed: int,
        *,
        languages: Sequence[str] = "文",
        subjects: int = 20,
        questions: int = 20,
        examples: int = 5,
        shortest: float = 40,
        of_subjects: float = 20,
        within: float = 1.8,
    ) -> None:
        """Make them.

        Args:
            seed: For what is left to chance.
            languages: Keys of `PER_CHARACTER`, one a subject; some texts are in another.
            subjects: How many.
            questions: How many each.
            examples: How many each, the same for all questions of a subject.
            shortest: Characters of the shortest text.
            of_subjects: How many times as long the texts of one subject may be as those of another.
            within: And those within a subject.
        """
        chance = random.Random(seed)
        rates = {one: chance.choice(PER_CHARACTER[one]) for one in languages}
        self.sent: dict[Key, list[Message]] = {}
        self.tokens: dict[Key, list[int]] = {}
        for subject in range(subjects):
            language = chance.choice(languages)
            length = shortest * of_subjects ** (subject / max(1, subjects - 1))
            style = chance.uniform(0.85, 1.15)

            def text(language: str = language, length: float = length, style: float = style) -> tuple[str, int]:
                if chance.random() < 0.1:
                    language = chance.choice(languages)
                written = language * round(length * within ** chance.random())
                return written, 4 + round(len(written) * rates[language] * style * chance.uniform(0.9, 1.1))

            shots = [text() for _ in range(examples)]
            for number in range(questions):
                key = replace(row(number), subject=f"s{subject}").key
                said = [*(one for shot in shots for one in (shot, ("A", 5))), text()]
                self.sent[key] = [
                    {"role": "assistant" if n % 2 else "user", "content": t} for n, (t, _) in enumerate(said)
                ]
                self.tokens[key] = [tokens for _, tokens in said]

    def counted(self, count: Count, **changed: Any) -> list[Prediction]:
        """The replies of a server that counts so."""
        return [
            replace(row(key.id, "ABCD"[key.id % 4]), subject=key.subject, prompt_tokens=count(tokens), **changed)
            for key, tokens in self.tokens.items()
        ]

    def found(self, count: Count, **changed: Any) -> int:
        """How many of them are taken for cut."""
        return CountedPrompts(self.counted(count, **changed)).cut(self.sent.get)[0]


def cut_to_the_token(limit: int) -> Count:
    return lambda tokens: min(sum(tokens), limit)


def without_first_messages(limit: int) -> Count:
    """As Ollama does it: the oldest messages go until the rest fits."""

    def count(tokens: Sequence[int]) -> int:
        first = next((n for n in range(len(tokens)) if sum(tokens[n:]) <= limit), len(tokens) - 1)
        return min(sum(tokens[first:]), limit)

    return count


@pytest.mark.parametrize("cut", [cut_to_the_token, without_first_messages])
@pytest.mark.parametrize("limit", [2048, 4096])
@pytest.mark.parametrize("seed", range(3))
def test_prompts_of_some_subjects_that_are_cut_make_a_measurement_doubtful(
    limit: int, cut: Callable[[int], Count], seed: int
) -> None:
    asked = Asked(seed, shortest=limit / 16)
    truly = sum(sum(tokens) > limit for tokens in asked.tokens.values())
    assert 20 < truly < 400
    health = examine(OPTIONS, asked.counted(cut(limit)), asked.sent.get)
    (found,) = health.findings
    assert found.fault is Fault.CUT_PROMPTS
    assert 10 <= found.count <= truly
    assert 0.8 * limit < int(found.values["most"]) <= limit
    assert not health.is_ok
    assert found.says == (
        f"at least {found.count} of 400 prompts were cut by the server, which counts no more than "
        f"{found.values['most']} tokens in any"
    )
    assert "num_ctx" in found.fault.remedy


def test_texts_of_one_subject_are_compared_with_each_other() -> None:
    asked = Asked(0, subjects=1, questions=120, examples=0, shortest=400, within=20)
    assert asked.found(cut_to_the_token(1024)) > 20


# Statistics are never quite sure: always the same runs, so that this test does not fail once in a long while. Of other
# 16,000, none is taken for cut.
ALWAYS_THE_SAME = settings(derandomize=True, max_examples=2 * settings().max_examples)


@ALWAYS_THE_SAME
@given(
    seed=st.integers(0, 2**32),
    languages=st.sampled_from(["文", "w", "文w", "文+", "w+", "文w+"]),
    shape=st.fixed_dictionaries(
        {
            "examples": st.sampled_from([0, 1, 5]),
            "shortest": st.sampled_from([10, 30, 100, 400, 2000]),
            "of_subjects": st.sampled_from([1, 3, 30]),
            "within": st.sampled_from([1.02, 1.3, 3, 10]),
        }
    ),
    sizes=st.sampled_from([(1, 120), (2, 60), (20, 10)]),
    more=st.sampled_from([0, 20, 900, 5000]),
    step=st.sampled_from([1, 1, 16, 256]),
)
@example(1177865, "w+", {"examples": 5, "shortest": 100, "of_subjects": 3, "within": 1.02}, (2, 60), 0, 1)
def test_a_server_that_counts_whole_prompts_never_looks_so(
    seed: int, languages: str, shape: dict[str, Any], sizes: tuple[int, int], more: int, step: int
) -> None:
    """Whatever the languages, the lengths and the tokenizer, what it adds to each, and in what steps it counts."""
    asked = Asked(seed, languages=languages, subjects=sizes[0], questions=sizes[1], **shape)
    assert asked.found(lambda tokens: -(-(sum(tokens) + more) // step) * step) == 0


@ALWAYS_THE_SAME
@given(
    lengths=st.lists(st.integers(80, 6000), min_size=40, max_size=120),
    rate=st.floats(0.15, 2),
    more=st.integers(0, 3000),
    hidden=st.sampled_from(["a dense subject", "dense short texts", "chance"]),
    seed=st.integers(0, 2**32),
)
def test_no_ratio_within_20_percent_does(lengths: list[int], rate: float, more: int, hidden: str, seed: int) -> None:
    chance, middle = random.Random(seed), sorted(lengths)[len(lengths) // 2]
    sent: dict[Key, list[Message]] = {}
    replies = []
    for number, length in enumerate(lengths):
        one = replace(row(number), subject=f"s{number % 3}")
        factor = {
            "a dense subject": (0.8, 1.0, 1.2)[number % 3],
            "dense short texts": 0.8 if length > middle else 1.2,
            "chance": chance.choice([0.8, 1.2]),
        }[hidden]
        sent[one.key] = [{"role": "user", "content": "文" * length}]
        replies.append(replace(one, prompt_tokens=more + round(rate * length * factor)))
    assert CountedPrompts(replies).cut(sent.get)[0] == 0


@pytest.mark.parametrize("examples", [0, 1, 5])
@pytest.mark.parametrize(
    "count",
    [
        lambda _: 4096,
        lambda _: 1,
        lambda _: 0,
        lambda tokens: tokens[-1],  # all but the question is in its cache
        lambda tokens: tokens[-1] if tokens[-1] % 5 else sum(tokens),  # often
        lambda tokens: sum(tokens) % 64,  # what is left over a cache's blocks
    ],
)
def test_other_ways_of_counting_are_no_cut(count: Count, examples: int) -> None:
    assert Asked(0, examples=examples, shortest=100).found(count) == 0


@pytest.mark.parametrize("changed", [{"prompt_tokens": None}, {"cached_tokens": 64}, {"losses": {"A": 1.0}}])
def test_counts_that_are_missing_or_of_something_else_are_not_taken(changed: dict[str, Any]) -> None:
    asked = Asked(0, shortest=100)
    replies = asked.counted(cut_to_the_token(2048))
    assert CountedPrompts(replies).cut(asked.sent.get)[0] > 0
    assert CountedPrompts(replace(one, **changed) for one in replies).cut(asked.sent.get)[0] == 0


def test_of_prompts_that_are_not_known_nothing_is_said() -> None:
    asked = Asked(0, shortest=100)
    assert examine(OPTIONS, asked.counted(cut_to_the_token(2048))).is_ok
