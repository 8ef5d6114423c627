"""Sentencepiece model files written piece by piece, so that a test decides every score."""

from collections.abc import Sequence
from pathlib import Path

from bundle.checkpoints.internlm2.sentencepiece_model import Piece, PieceType, filler_pieces

BYTES = [Piece(f"<0x{n:02X}>", 0.0, PieceType.BYTE) for n in range(256)]
CONTROLS = [
    Piece("<unk>", 0.0, PieceType.UNKNOWN),
    Piece("<s>", 0.0, PieceType.CONTROL),
    Piece("</s>", 0.0, PieceType.CONTROL),
]

# Fields of sentencepiece_model.proto, as bytes on the wire.
BPE, UNIGRAM = b"\x18\x02", b"\x18\x01"
BYTE_FALLBACK = b"\x98\x02\x01"
WHITESPACE_AS_SUFFIX = b"\xc0\x01\x01"
TRAINER = BPE + BYTE_FALLBACK
CHARACTER_MAP = b"\x12\x04\x00\x00\x00\x00"
DUMMY_PREFIX, NO_DUMMY_PREFIX = b"\x18\x01", b"\x18\x00"
SHORTEN_SPACES, KEEP_SPACES = b"\x20\x01", b"\x20\x00"
PLAIN_SPACES = b"\x28\x00"
NORMALIZER = NO_DUMMY_PREFIX + KEEP_SPACES


def normal(scores: dict[str, float]) -> list[Piece]:
    return [Piece(text, score, PieceType.NORMAL) for text, score in scores.items()]


def write_model(
    path: Path, pieces: Sequence[Piece], *, trainer: bytes = TRAINER, normalizer: bytes = NORMALIZER
) -> Path:
    content = filler_pieces([*CONTROLS, *BYTES, *pieces])
    content += b"\x12" + bytes([len(trainer)]) + trainer + b"\x1a" + bytes([len(normalizer)]) + normalizer
    path.write_bytes(content)
    return path
