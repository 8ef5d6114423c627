"""Sentencepiece model files written piece by piece, so that a test decides every score."""

from collections.abc import Sequence
from pathlib import Path

from bundle.checkpoints.internlm2.sentencepiece import Piece, PieceType, model_message

CONTROLS = [
    Piece("<unk>", 0.0, PieceType.UNKNOWN),
    Piece("<s>", 0.0, PieceType.CONTROL),
    Piece("</s>", 0.0, PieceType.CONTROL),
]
BYTES = [Piece(f"<0x{n:02X}>", 0.0, PieceType.BYTE) for n in range(256)]
BPE, UNIGRAM = 2, 1


def normal(scores: dict[str, float]) -> list[Piece]:
    return [Piece(text, score, PieceType.NORMAL) for text, score in scores.items()]


def write_model(path: Path, pieces: Sequence[Piece], **settings: object) -> Path:
    """A model file; ``settings`` are fields of its trainer and normalizer other than InternLM2's."""
    model = model_message()()
    for piece in (*CONTROLS, *BYTES, *pieces):
        model.pieces.add(piece=piece.text, score=piece.score, type=piece.type)
    usual = {
        "model_type": BPE,
        "byte_fallback": True,
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
        "escape_whitespaces": True,
    }
    for name, value in {**usual, **settings}.items():
        part = model.trainer_spec if name in model.trainer_spec.DESCRIPTOR.fields_by_name else model.normalizer_spec
        setattr(part, name, value)
    path.write_bytes(model.SerializeToString())
    return path
