"""The derived merge list cuts text exactly as sentencepiece does, for any vocabulary and any text."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.checkpoints.internlm2.merges import Merge, derive_merges
from bundle.checkpoints.internlm2.sentencepiece_model import Piece, PieceType, read_model
from bundle.checkpoints.internlm2.tokenizer_config import TokenizerConfig
from bundle.checkpoints.internlm2.tokenizer_json import build_tokenizer
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
        tokenizer, _, _ = build_tokenizer(read_model(path), PLAIN)
        return processor.encode(samples), [tokenizer.encode(text).ids for text in samples]


@given(words=words, samples=texts)
@settings(max_examples=150, deadline=None)
def test_any_scores_give_sentencepieces_own_cuts(words: list[str], samples: list[str]) -> None:
    pieces = normal({text: -float(rank) for rank, text in enumerate([*words, *ALPHABET])})

    expected, actual = cut_both_ways(pieces, samples)

    assert actual == expected


@given(words=words, scores=st.lists(st.integers(0, 3), min_size=14, max_size=14), samples=texts)
@settings(max_examples=150, deadline=None)
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


def test_a_piece_has_the_one_pair_that_can_form_it() -> None:
    pieces = normal({"ab": -1, "bc": -2, "abc": -3, "a": -4, "b": -5, "c": -6})

    # (a, bc) would form abc as well, but a and b are always joined first.
    assert [(merge.left, merge.right) for merge in derive_merges(pieces).ranked] == [
        ("a", "b"),
        ("b", "c"),
        ("ab", "c"),
    ]


def test_a_piece_that_no_text_becomes_has_no_pair() -> None:
    pieces = normal({"ab": -1, "abcd": -2, "a": -3, "b": -4, "c": -5, "d": -6})

    assert derive_merges(pieces).ranked == (Merge("a", "b", -1),)


def test_a_piece_made_of_characters_that_are_no_pieces_is_named() -> None:
    pieces = normal({"습니": -1, "니": -2})

    merges = derive_merges(pieces)

    assert merges.ranked == ()
    assert merges.inexpressible == ("습니",)


def test_of_two_equal_pairs_after_the_same_symbol_the_left_one_comes_first() -> None:
    pieces = normal({"bc": -1, "ab": -1, "a": -2, "b": -3, "c": -4})

    assert [(merge.left, merge.right) for merge in derive_merges(pieces).ranked] == [("a", "b"), ("b", "c")]


@pytest.mark.parametrize(
    "scores",
    [
        pytest.param({"ab": -1, "ba": -1, "a": -2, "b": -3}, id="each is sometimes the left one"),
        pytest.param({"ab": -1, "cd": -1, "abc": 0, "a": -2, "b": -3, "c": -4, "d": -5}, id="one leads to a better"),
    ],
)
def test_equal_scores_that_no_ranking_expresses_are_refused(scores: dict[str, float]) -> None:
    with pytest.raises(CheckpointError, match="pieces of equal score compete"):
        derive_merges(normal(scores))


def test_nothing_is_formed_across_a_user_defined_piece() -> None:
    pieces = [*normal({"ab": -1, "abc": -2, "a": -3, "b": -4, "c": -5}), Piece("bc", 0, PieceType.USER_DEFINED)]

    assert derive_merges(pieces).ranked == (Merge("a", "b", -1),)
