"""What a sentencepiece model file says: its pieces, and how it normalises text.

The file is a protocol-buffer message (sentencepiece_model.proto). It is read here directly because the generated
module that sentencepiece ships runs only with the newest protobuf, which other packages of an environment may forbid,
and because sentencepiece's own interface does not tell user-defined pieces apart nor how text is normalised.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from bundle.errors import CheckpointError

_BPE = 2
_REMEDY = "Download tokenizer.model again, or evaluate this checkpoint with the lmdeploy engine."


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
    """The parts of a sentencepiece model that decide how text becomes ids.

    Attributes:
        pieces: The vocabulary, in the order of ids.
        bpe: Whether it is a BPE model.
        byte_fallback: Whether characters without a piece become the pieces of their UTF-8 bytes.
        whitespace_as_suffix: Whether spaces go to the end of a word instead of the start.
        add_dummy_prefix: Whether a space is put before the text.
        remove_extra_whitespaces: Whether runs of spaces are shortened to one.
        escape_whitespaces: Whether spaces are written as U+2581 inside pieces.
        character_map: Whether characters are replaced before encoding (NFKC, for example) or after decoding.
    """

    pieces: tuple[Piece, ...]
    bpe: bool
    byte_fallback: bool
    whitespace_as_suffix: bool
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    escape_whitespaces: bool
    character_map: bool


def read_model(path: Path) -> SentencePieceModel:
    """Read a sentencepiece model file.

    Raises:
        CheckpointError: The file is unreadable, is a git-lfs pointer, or is no sentencepiece model.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}).", remedy="Check the disk and the file's rights."
        ) from error
    if content.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path} is a git-lfs pointer, not the tokenizer.", remedy="Run `git lfs pull` there.")
    try:
        model = _parse(content)
    except (ValueError, IndexError, struct.error) as error:
        raise CheckpointError(f"{path} is no sentencepiece model ({error}).", remedy=_REMEDY) from error
    if not model.pieces:
        raise CheckpointError(f"{path} is no sentencepiece model: it holds no pieces.", remedy=_REMEDY)
    return model


def filler_pieces(pieces: Iterable[Piece]) -> bytes:
    """``pieces`` as bytes that, put after a model file's own, append them to its vocabulary.

    A protocol-buffer message followed by another is their union, repeated fields being joined.
    """
    encoded = []
    for piece in pieces:
        text = piece.text.encode()
        body = b"\x0a" + _varint_bytes(len(text)) + text + b"\x15" + struct.pack("<f", piece.score)
        body += b"\x18" + _varint_bytes(piece.type)
        encoded.append(b"\x0a" + _varint_bytes(len(body)) + body)
    return b"".join(encoded)


def _parse(content: bytes) -> SentencePieceModel:
    pieces: list[Piece] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    denormalizer: dict[int, int | bytes] = {}
    for field, value in _fields(content):
        match field, value:
            case 1, bytes():
                pieces.append(_piece(value))
            case 2, bytes():
                trainer.update(_fields(value))
            case 3, bytes():
                normalizer.update(_fields(value))
            case 5, bytes():
                denormalizer.update(_fields(value))
            case ((1 | 2 | 3 | 5), _):
                raise ValueError(f"field {field} is no message")
    # Field numbers and defaults are those of sentencepiece_model.proto.
    return SentencePieceModel(
        pieces=tuple(pieces),
        bpe=trainer.get(3, 1) == _BPE,
        byte_fallback=bool(trainer.get(35, 0)),
        whitespace_as_suffix=bool(trainer.get(24, 0)),
        add_dummy_prefix=bool(normalizer.get(3, 1)),
        remove_extra_whitespaces=bool(normalizer.get(4, 1)),
        escape_whitespaces=bool(normalizer.get(5, 1)),
        character_map=bool(normalizer.get(2) or denormalizer.get(2)),
    )


def _piece(content: bytes) -> Piece:
    fields = dict(_fields(content))
    match fields.get(1, b""), fields.get(2, bytes(4)), fields.get(3, int(PieceType.NORMAL)):
        case bytes() as text, bytes() as score, int() as kind:
            return Piece(text.decode(), struct.unpack("<f", score)[0], PieceType(kind))
        case _:
            raise ValueError("a piece is malformed")


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: numbers for varints, bytes for everything else."""
    at = 0
    while at < len(content):
        tag, at = _varint(content, at)
        match tag & 7:
            case 0:
                number, at = _varint(content, at)
                yield tag >> 3, number
                continue
            case 2:
                length, at = _varint(content, at)
            case 1:
                length = 8
            case 5:
                length = 4
            case wire_type:
                raise ValueError(f"wire type {wire_type} at byte {at}")
        if at + length > len(content):
            raise ValueError("it ends early")
        yield tag >> 3, content[at : at + length]
        at += length


def _varint(content: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = content[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
        if shift > 63:
            raise ValueError(f"a number at byte {at} is too long")


def _varint_bytes(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
