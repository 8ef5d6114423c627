"""The sentencepiece model of a made checkpoint: a small trained vocabulary, filled up to the size asked for."""

import io
from importlib import resources
from typing import Final

from bundle.checkpoints.internlm2.sentencepiece import PieceType, model_message

TRAINED_PIECES: Final = 4608
SPARE_PIECES: Final = 147  # InternLM2's own vocabulary ends with as many
_PUNCTUATION: Final = (
    "，。、；：？！“”‘’（）《》〈〉【】〔〕［］｛｝—…·～￥％＋－×÷＝≠≤≥±°℃αβγδεθλμπρσφωΔΣΩ∞√∫∑∈∪∩→①②③④"
)
_ASCII: Final = "".join(map(chr, range(0x21, 0x7F)))


def make_vocabulary(size: int) -> bytes:
    """A sentencepiece BPE model file with ``size`` pieces, at least ``TRAINED_PIECES + SPARE_PIECES``.

    It has what InternLM2's has: byte fallback, no dummy prefix, text taken as it is, ``<unk>``, ``<s>`` and ``</s>``
    at 0, 1 and 2, and pieces called ``[UNUSED_TOKEN_n]`` at the end, which no text becomes. All printable ASCII and
    the 3,755 most common Chinese characters are pieces. It is trained on original sentences in the shapes of
    evaluation prompts, so that a prompt has about as many tokens as characters, and often fewer.
    """
    import sentencepiece  # imported late: a tenth of a second

    sentences = resources.files("bundle.checkpoints.internlm2").joinpath("files", "sentences.txt")
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences.read_text(encoding="utf-8").splitlines()),
        model_writer=trained,
        model_type="bpe",
        vocab_size=TRAINED_PIECES,
        required_chars=_PUNCTUATION + _ASCII + _common_characters(),
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        character_coverage=1.0,
        num_threads=1,
        minloglevel=2,
    )
    spare = model_message()()
    for n in range(size - TRAINED_PIECES):
        spare.pieces.add(piece=f"[UNUSED_TOKEN_{n}]", score=-TRAINED_PIECES - n, type=PieceType.NORMAL)
    # A message followed by another is their union, repeated fields being joined.
    return trained.getvalue() + bytes(spare.SerializeToString())


def _common_characters() -> str:
    """GB 2312's first level: the characters for everyday use, rows 16 to 55 of its table."""
    return bytes(
        byte for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF if row < 0xD7 else 0xFA) for byte in (row, cell)
    ).decode("gb2312")
