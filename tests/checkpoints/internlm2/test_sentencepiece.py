"""The derived merge list cuts text exactly as sentencepiece does, for any vocabulary and any text."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.checkpoints.internlm2.sentencepiece import Piece, SentencePieceModel, build_tokenizer, read_model
from bundle.checkpoints.internlm2.tokenizer_config import TokenizerConfig
from bundle.errors import CheckpointError
from tests.checkpoints.internlm2.sentencepiece_files import normal, write_model

ALPHABET = "ab▁"
PLAIN = TokenizerConfig(added={}, names={}, additional=(), add_bos=False, add_eos=False, carried={})


# Vocabularies no training would give: scores in any order, pieces that are never formed, many ways to form one.
words = st.lists(st.text(ALPHABET, min_size=2, max_size=6), min_size=1, max_size=14, unique=True)
texts = st.lists(st.text("ab c", max_size=24), min_size=1, max_size=8)


def cut_both_ways(pieces: list[Piece], samples: list[str]) -> tuple[list[list[int]], list[list[int]]]:
    import sentencepiece

    with tempfile.TemporaryDirectory() as directory:
        path = write_model(Path(directory) / "tokenizer.model", pieces)
        processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        tokenizer, _ = build_tokenizer(read_model(path), PLAIN)
        return processor.encode(samples), [tokenizer.encode(text).ids for text in samples]


@given(words=words, samples=texts)
@settings(max_examples=150)
def test_any_scores_give_sentencepieces_own_cuts(words: list[str], samples: list[str]) -> None:
    pieces = normal({text: -float(rank) for rank, text in enumerate([*words, *ALPHABET])})

    expected, actual = cut_both_ways(pieces, samples)

    assert actual == expected


@given(words=words, scores=st.lists(st.integers(0, 3), min_size=14, max_size=14), samples=texts)
@settings(max_examples=150)
def test_equal_scores_give_sentencepieces_own_cuts_or_are_refused(
    words: list[str], scores: list[int], samples: list[str]
) -> None:
    pieces = normal(
        {text: -float(score) for text, score in zip(words, scores, strict=False)} | dict.fromkeys(ALPHABET, 0.0)
    )

    try:
        expected, actual = cut_both_ways(pieces, samples)
    except CheckpointError as error:
        assert "equal score" in error.message  # noqa: PT017 - refusing is one of the two right outcomes
        return

    assert actual == expected


def model_of(scores: dict[str, float], tmp_path: Path) -> SentencePieceModel:
    return read_model(write_model(tmp_path / "tokenizer.model", normal(scores)))


def test_every_way_to_split_a_piece_is_a_pair_and_better_pieces_come_first(tmp_path: Path) -> None:
    model = model_of({"ab": -1, "bc": -2, "abc": -3, "a": -4, "b": -5, "c": -6}, tmp_path)

    assert model.merges == (("a", "b"), ("b", "c"), ("a", "bc"), ("ab", "c"))


def test_a_piece_that_no_text_becomes_has_no_pair(tmp_path: Path) -> None:
    model = model_of({"ab": -1, "abcd": -2, "a": -3, "b": -4, "c": -5, "d": -6}, tmp_path)

    assert model.merges == (("a", "b"),)


def test_a_piece_made_of_characters_that_are_no_pieces_is_named(tmp_path: Path) -> None:
    model = model_of({"습니": -1, "니": -2}, tmp_path)

    assert model.merges == ()
    assert model.inexpressible == ("습니",)


@pytest.mark.parametrize(
    "scores",
    [
        pytest.param({"ab": -1, "ba": -1, "a": -2, "b": -3}, id="each is sometimes the left one"),
        pytest.param({"ab": -1, "cd": -1, "abc": 0, "a": -2, "b": -3, "c": -4, "d": -5}, id="one leads to a better"),
    ],
)
def test_equal_scores_that_no_ranking_expresses_are_refused(scores: dict[str, float], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="pieces of equal score compete"):
        build_tokenizer(model_of(scores, tmp_path), PLAIN)


def test_equal_scores_of_pieces_that_are_never_formed_do_not_matter(tmp_path: Path) -> None:
    assert model_of({"[SPARE_0]": 0, "[SPARE_1]": 0, "ab": -1, "a": -2, "b": -3}, tmp_path).obstacle is None
