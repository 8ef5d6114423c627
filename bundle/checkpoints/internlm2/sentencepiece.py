"""A sentencepiece BPE model, written as the tokenizer.json of the ``tokenizers`` library.

Sentencepiece has no merge list. It joins, over and over, the two neighbours whose joined text is the piece with the
highest score, the leftmost first; ``tokenizers`` joins the pair with the lowest rank. So every way to split a piece in
two becomes a pair, ranked by the piece's score: what is inside a piece was joined as it would be in the piece alone,
hence only one of its pairs ever occurs in a text and their order among themselves does not matter. transformers builds
its merge lists the same way; what it does not do is refuse a vocabulary that such a list cannot express.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bundle.checkpoints._files import listed, read_whole, shown
from bundle.checkpoints.internlm2.tokenizer_config import AddedToken, TokenizerConfig
from bundle.errors import CheckpointError, TokenizerError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


SPACE: Final = "▁"  # how sentencepiece writes a space inside a piece
USE_LMDEPLOY: Final = "Evaluate this checkpoint with the lmdeploy engine, which runs its own tokenizer."
_DOWNLOAD: Final = "Download tokenizer.model again, or evaluate this checkpoint with the lmdeploy engine."
_SAME_RELEASE: Final = "Take tokenizer.model and tokenizer_config.json from the same release of the model."
_BPE: Final = 2

# The fields of sentencepiece_model.proto that are read here: number, type, default.
_FIELDS: Final[dict[str, dict[str, tuple[int, str, str]]]] = {
    "Piece": {"piece": (1, "string", ""), "score": (2, "float", "0"), "type": (3, "int32", "1")},
    "Trainer": {
        "model_type": (3, "int32", "1"),
        "treat_whitespace_as_suffix": (24, "bool", "false"),
        "byte_fallback": (35, "bool", "false"),
    },
    "Normalizer": {
        "precompiled_charsmap": (2, "bytes", ""),
        "add_dummy_prefix": (3, "bool", "true"),
        "remove_extra_whitespaces": (4, "bool", "true"),
        "escape_whitespaces": (5, "bool", "true"),
    },
    "Model": {
        "pieces": (1, "Piece", ""),
        "trainer_spec": (2, "Trainer", ""),
        "normalizer_spec": (3, "Normalizer", ""),
        "denormalizer_spec": (5, "Normalizer", ""),
    },
}


class PieceType(IntEnum):
    """``SentencePiece.Type`` of sentencepiece_model.proto."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Piece:
    """One entry of the vocabulary; its id is its place in the list."""

    text: str
    score: float
    type: PieceType


@dataclass(frozen=True, slots=True)
class SentencePieceModel:
    """What a sentencepiece model file says.

    Attributes:
        merges: The pairs that form a piece, first joined first.
        add_dummy_prefix: Whether a space is put before the text.
        obstacle: Why no tokenizer.json can do exactly the same; None if one can.
    """

    pieces: tuple[Piece, ...]
    merges: tuple[tuple[str, str], ...]
    add_dummy_prefix: bool
    obstacle: str | None

    @property
    def inexpressible(self) -> tuple[str, ...]:
        """Pieces that hold a character which is not itself a piece.

        ``tokenizers`` turns such a character into bytes before it joins anything, so it cannot form them.
        """
        known = {piece.text for piece in self.pieces}
        normal = (piece.text for piece in self.pieces if piece.type is PieceType.NORMAL and len(piece.text) > 1)
        return tuple(text for text in normal if not known.issuperset(text))


@cache
def model_message() -> Any:
    """The protobuf class of a model file.

    Made at run time, because the module that sentencepiece ships runs only with the newest protobuf, which other
    packages of an environment may forbid.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # imported late: an extra's package

    package = "bundle.sentencepiece"
    file = descriptor_pb2.FileDescriptorProto(name="bundle/sentencepiece.proto", package=package, syntax="proto2")
    kinds = descriptor_pb2.FieldDescriptorProto
    for message, fields in _FIELDS.items():
        added = file.message_type.add(name=message)
        for name, (number, kind, default) in fields.items():
            label = kinds.LABEL_REPEATED if name == "pieces" else kinds.LABEL_OPTIONAL
            if kind in _FIELDS:
                added.field.add(name=name, number=number, label=label, type_name=f".{package}.{kind}")
            else:
                field_type = kinds.Type.Value(f"TYPE_{kind.upper()}")
                added.field.add(name=name, number=number, label=label, type=field_type, default_value=default)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.Model"))


def read_model(path: Path) -> SentencePieceModel:
    """Read a sentencepiece model file.

    Raises CheckpointError if the file is unreadable, is a git-lfs pointer, or is not a sentencepiece model.
    """
    from google.protobuf.message import DecodeError  # imported late: an extra's package

    message = model_message()()
    content = read_whole(path)
    try:
        message.ParseFromString(content)
        types = {kind.value: kind for kind in PieceType}
        pieces = tuple(Piece(piece.piece, piece.score, types[piece.type]) for piece in message.pieces)
    except (DecodeError, KeyError, ValueError) as error:
        reason = shown(" ".join(str(error).split()), 120)
        raise CheckpointError(f"{shown(path)} is not a sentencepiece model ({reason}).", remedy=_DOWNLOAD) from error
    if not pieces:
        raise CheckpointError(f"{shown(path)} is not a sentencepiece model: it holds no pieces.", remedy=_DOWNLOAD)
    if message.trainer_spec.byte_fallback:
        # So does sentencepiece itself, and says so on stderr: a NUL becomes its byte.
        pieces = tuple(replace(p, type=PieceType.UNUSED) if p.text == "\0" else p for p in pieces)
    normal = {piece.text: piece.score for piece in pieces if piece.type is PieceType.NORMAL}
    merges = tuple(
        (text[:n], text[n:])
        for text in sorted(normal, key=lambda text: -normal[text])
        for n in range(1, len(text))
        if text[:n] in normal and text[n:] in normal
    )
    formed = {left + right for left, right in merges}
    tied = len({normal[text] for text in formed}) < len(formed)
    return SentencePieceModel(
        pieces, merges, message.normalizer_spec.add_dummy_prefix, _obstacle(message, pieces, tied)
    )


def _obstacle(message: Any, pieces: Sequence[Piece], tied: bool) -> str | None:
    trainer, normalizer = message.trainer_spec, message.normalizer_spec
    types = {piece.type for piece in pieces if piece.text != "\0"}
    reasons = {
        "it is not a BPE model": trainer.model_type != _BPE,
        "it has no byte fallback, so it loses characters": not trainer.byte_fallback,
        "it puts spaces at the end of words": trainer.treat_whitespace_as_suffix,
        "it shortens runs of spaces": normalizer.remove_extra_whitespaces,
        "it does not escape spaces": not normalizer.escape_whitespaces,
        "it replaces characters (precompiled_charsmap)": normalizer.precompiled_charsmap
        or message.denormalizer_spec.precompiled_charsmap,
        "it has unused pieces": PieceType.UNUSED in types,
        "it has user-defined pieces and a dummy prefix": normalizer.add_dummy_prefix
        and PieceType.USER_DEFINED in types,
        "it holds a piece twice": len({piece.text for piece in pieces}) < len(pieces),
        # The leftmost is joined first, which a ranking cannot express.
        "pieces of equal score compete": tied,
    }
    return next((reason for reason, applies in reasons.items() if applies), None)


def build_tokenizer(model: SentencePieceModel, config: TokenizerConfig) -> tuple[Tokenizer, TokenizerConfig]:
    """Build the tokenizer, and the configuration with every special token's id.

    Raises CheckpointError if the model does something that a tokenizer.json cannot express; TokenizerError if the added
    tokens contradict the vocabulary.
    """
    import tokenizers  # imported late: not needed where an earlier rewrite is found
    from tokenizers import decoders, models, normalizers

    if model.obstacle is not None:
        raise CheckpointError(f"tokenizer.model cannot be converted exactly: {model.obstacle}.", remedy=USE_LMDEPLOY)
    config = replace(config, added=_with_special(model.pieces, config))
    vocabulary = _vocabulary(model, config.added)
    texts = {number: text for text, number in vocabulary.items()}
    unknown = next((texts[n] for n, piece in enumerate(model.pieces) if piece.type is PieceType.UNKNOWN), None)
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocab=vocabulary, merges=list(model.merges), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    prefix: list[Any] = [normalizers.Prepend(SPACE)] if model.add_dummy_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
    strip: list[Any] = [decoders.Strip(" ", 1, 0)] if model.add_dummy_prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    tokenizer.add_tokens([tokenizers.AddedToken(**asdict(token)) for _, token in sorted(config.added.items())])
    # Sentencepiece looks for these in the normalised text.
    user_defined = (
        piece.text
        for n, piece in enumerate(model.pieces)
        if piece.type is PieceType.USER_DEFINED and n not in config.added
    )
    tokenizer.add_tokens([tokenizers.AddedToken(text, normalized=True) for text in user_defined])
    _add_template(tokenizer, config, vocabulary)
    return tokenizer, config


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
                f"tokenizer_config.json names the special token {shown(repr(text))}, which has no id.",
                remedy="Add it to added_tokens_decoder under the id that the model was trained with.",
            )
        added[numbers[text]] = AddedToken(text, special=True)
    return added


def _vocabulary(model: SentencePieceModel, added: Mapping[int, AddedToken]) -> dict[str, int]:
    """Text to id. InternLM2's chat marks take the places of spare pieces, under names of their own."""
    # A name of several characters that no pair forms is reached by no text.
    texts = {n: f"<unused {n}>" if p.type is PieceType.UNUSED else p.text for n, p in enumerate(model.pieces)}
    in_use = {text for left, right in model.merges for text in (left, right, left + right)}
    for number, token in added.items():
        old = model.pieces[number] if number < len(model.pieces) else None
        if old is not None and old.text != token.content:
            reachable = old.type is PieceType.NORMAL and (len(old.text) == 1 or old.text in in_use)
            if reachable or old.type is PieceType.BYTE:
                given = f"added_tokens_decoder gives {shown(repr(token.content))} the id {number}"
                used = f"which tokenizer.model uses for the text {shown(repr(old.text))}"
                raise TokenizerError(f"{given}, {used}.", remedy=_SAME_RELEASE)
        texts[number] = token.content
    vocabulary = {text: n for n, text in texts.items()}
    if len(vocabulary) < len(texts):
        twice = sorted(text for n, text in texts.items() if vocabulary[text] != n)
        raise TokenizerError(
            f"added_tokens_decoder gives a second id to {listed(map(repr, twice))}.", remedy=_SAME_RELEASE
        )
    return vocabulary


def _add_template(tokenizer: Tokenizer, config: TokenizerConfig, vocabulary: Mapping[str, int]) -> None:
    from tokenizers import processors  # imported late, like the rest of it

    before = [config.names["bos_token"]] if config.add_bos and "bos_token" in config.names else []
    after = [config.names["eos_token"]] if config.add_eos and "eos_token" in config.names else []
    if before or after:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[*before, "$A", *after],
            pair=[*before, "$A", *after, *(f"{token}:1" for token in before), "$B:1", *(f"{t}:1" for t in after)],
            special_tokens=[(token, vocabulary[token]) for token in {*before, *after}],
        )
