"""A sentencepiece tokenizer, written as the tokenizer.json of the ``tokenizers`` library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bundle.checkpoints.internlm2.merges import Merges, derive_merges
from bundle.checkpoints.internlm2.sentencepiece_model import Piece, PieceType, SentencePieceModel
from bundle.checkpoints.internlm2.tokenizer_config import AddedToken, TokenizerConfig
from bundle.errors import CheckpointError, TokenizerError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPACE = "▁"  # how sentencepiece writes a space inside a piece
_REMEDY = "Evaluate this checkpoint with the lmdeploy engine, which runs its own tokenizer."


def build_tokenizer(model: SentencePieceModel, config: TokenizerConfig) -> tuple[Tokenizer, TokenizerConfig, Merges]:
    """Build the tokenizer, the configuration with every special token's id, and the merges it was built from.

    Raises:
        CheckpointError: The model normalises or cuts text in a way that a tokenizer.json cannot express.
        TokenizerError: The added tokens contradict the vocabulary.
    """
    import tokenizers
    from tokenizers import decoders, models, normalizers

    _check_expressible(model)
    merges = derive_merges(model.pieces)
    config = replace(config, added=_with_special(model.pieces, config))
    vocabulary = _vocabulary(model.pieces, config.added, merges)
    unknown = next((n for n, piece in enumerate(model.pieces) if piece.type is PieceType.UNKNOWN), None)
    texts = {number: text for text, number in vocabulary.items()}
    tokenizer = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=[(merge.left, merge.right) for merge in merges.ranked],
            unk_token=None if unknown is None else texts[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix: list[Any] = [normalizers.Prepend(SPACE)] if model.add_dummy_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
    strip: list[Any] = [decoders.Strip(" ", 1, 0)] if model.add_dummy_prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    tokenizer.add_tokens(
        [
            tokenizers.AddedToken(
                token.content,
                single_word=token.single_word,
                lstrip=token.lstrip,
                rstrip=token.rstrip,
                normalized=token.normalized,
                special=token.special,
            )
            for _, token in sorted(config.added.items())
        ]
        # Sentencepiece looks for these in the normalised text.
        + [tokenizers.AddedToken(piece.text, normalized=True) for piece in _user_defined(model.pieces, config.added)]
    )
    _add_template(tokenizer, config, vocabulary)
    return tokenizer, config, merges


def _check_expressible(model: SentencePieceModel) -> None:
    reasons = {
        "it is not a BPE model": not model.bpe,
        "it has no byte fallback, so it loses characters": not model.byte_fallback,
        "it puts spaces at the end of words": model.whitespace_as_suffix,
        "it shortens runs of spaces": model.remove_extra_whitespaces,
        "it does not escape spaces": not model.escape_whitespaces,
        "it replaces characters (precompiled_charsmap)": model.character_map,
        "it has unused pieces": any(piece.type is PieceType.UNUSED for piece in model.pieces),
        "it has user-defined pieces and a dummy prefix": model.add_dummy_prefix
        and any(piece.type is PieceType.USER_DEFINED for piece in model.pieces),
        "it holds a piece twice": len({piece.text for piece in model.pieces}) < len(model.pieces),
    }
    for reason, applies in reasons.items():
        if applies:
            raise CheckpointError(
                f"tokenizer.model cannot be carried over exactly: {reason}.",
                remedy=_REMEDY,
            )


def _with_special(pieces: Sequence[Piece], config: TokenizerConfig) -> dict[int, AddedToken]:
    """The added tokens, and among them every token with a role, by id."""
    added = dict(config.added)
    contents = {token.content for token in added.values()}
    numbers = {piece.text: n for n, piece in enumerate(pieces)}
    for text in config.special:
        if text in contents:
            continue
        if text not in numbers or numbers[text] in added:
            raise TokenizerError(
                f"tokenizer_config.json names the special token {text!r}, which has no id.",
                remedy="Add it to added_tokens_decoder under the id that the model was trained with.",
            )
        added[numbers[text]] = AddedToken(text, special=True)
    return added


def _vocabulary(pieces: Sequence[Piece], added: Mapping[int, AddedToken], merges: Merges) -> dict[str, int]:
    """Text to id. InternLM2's chat marks take the places of spare pieces, under names of their own."""
    texts = {n: piece.text for n, piece in enumerate(pieces)}
    in_use = {text for merge in merges.ranked for text in (merge.left, merge.right, merge.left + merge.right)}
    for number, token in added.items():
        old = pieces[number] if number < len(pieces) else None
        if old is not None and old.text != token.content:
            reachable = old.type is PieceType.NORMAL and (len(old.text) == 1 or old.text in in_use)
            if reachable or old.type is PieceType.BYTE:
                raise TokenizerError(
                    f"added_tokens_decoder gives {token.content!r} the id {number}, which tokenizer.model uses for "
                    f"the text {old.text!r}.",
                    remedy="Take tokenizer.model and tokenizer_config.json from the same release of the model.",
                )
        texts[number] = token.content
    vocabulary = {text: n for n, text in texts.items()}
    if len(vocabulary) < len(texts):
        twice = sorted(text for n, text in texts.items() if vocabulary[text] != n)
        raise TokenizerError(
            f"added_tokens_decoder gives a second id to {', '.join(map(repr, twice[:5]))}.",
            remedy="Take tokenizer.model and tokenizer_config.json from the same release of the model.",
        )
    return vocabulary


def _user_defined(pieces: Sequence[Piece], added: Mapping[int, AddedToken]) -> list[Piece]:
    return [piece for n, piece in enumerate(pieces) if piece.type is PieceType.USER_DEFINED and n not in added]


def _add_template(tokenizer: Tokenizer, config: TokenizerConfig, vocabulary: Mapping[str, int]) -> None:
    from tokenizers import processors

    before = [config.names["bos_token"]] if config.add_bos and "bos_token" in config.names else []
    after = [config.names["eos_token"]] if config.add_eos and "eos_token" in config.names else []
    if before or after:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[*before, "$A", *after],
            pair=[*before, "$A", *after, *(f"{token}:1" for token in before), "$B:1", *(f"{t}:1" for t in after)],
            special_tokens=[(token, vocabulary[token]) for token in {*before, *after}],
        )
