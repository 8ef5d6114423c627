"""The proof that a converted tokenizer does what sentencepiece does, made each time one is converted."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bundle.checkpoints._files import shown
from bundle.checkpoints.internlm2.sentencepiece import SPACE, USE_LMDEPLOY, PieceType, SentencePieceModel
from bundle.checkpoints.internlm2.tokenizer_config import AddedToken
from bundle.checkpoints.tokenizer_probe.texts import TEXTS as PROMPTS
from bundle.errors import TokenizerError
from bundle.system.text import one_line

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TEXTS = (
    "",
    " ",
    "   ",
    "\n",
    "\n\n \n",
    "\t\ttab\tand space \t",
    "a  b   c    d" + " " * 40 + "e",
    *PROMPTS,
    "\n".join(PROMPTS[:2]) + "B\n\n" + PROMPTS[1],
    "设函数 f(x) = x² + 3x − 4，则 f'(1) = ____ 。",
    "user\n你好，世界！“引号”、《书名》——破折号……（括号）［］｛｝％＃",
    "The quick brown fox jumps over the lazy dog. It's 7:30 a.m., isn't it?",
    "0.10 1,234,567 3.14159265358979 1e-10 007 ２０２４年１２月３１日",
    "def f(x):\n    return {'k': [x ** 2 for x in range(10)]}\n\r\n",
    "$\\frac{a}{b} \\leq \\sum_{i=1}^{n} x_i$ ∀ε>0 ∃δ>0 α β γ ≠ ≈ ∞ ℃ ½ ① ㎡",
    "<s>",
    "<pad><0x0A>[UNUSED_TOKEN_0]<|endoftext|>",
    "😀👨‍👩‍👧‍👦🇨🇳👍🏽 e\u0301 ﬁ Å ｶﾞ 한국어 日本語 ไทย العربية हिन्दी",
    "龘靐齉爨鱻麤𠀀𪚥𠮷㐀 皕囧",
    "\u00a0\u3000\u200b\u200d\ufeff\u0000\u0007\x7f\u2028",
    f"{SPACE}{SPACE}a{SPACE} b",
    "aaaaaaaaaaaaa ababababab 哈哈哈哈哈哈 ======== -------- ........",
)


def prove_equal(
    tokenizer: Tokenizer, sentencepiece_file: Path, model: SentencePieceModel, marks: Mapping[int, AddedToken]
) -> None:
    """Check a tokenizer against sentencepiece itself: ids and decoding on varied text, then those of added tokens.

    Raises TokenizerError if sentencepiece cannot read the file, they differ anywhere, or text does not round-trip.
    """
    import sentencepiece  # imported late: not needed where an earlier rewrite is found

    sentencepiece.set_min_log_level(2)  # it warns of single pieces on stderr
    try:
        processor = sentencepiece.SentencePieceProcessor(model_file=str(sentencepiece_file))
    except (OSError, RuntimeError) as error:
        raise TokenizerError(
            f"sentencepiece cannot read {shown(sentencepiece_file)}: {one_line(str(error))}",
            remedy="Download tokenizer.model again.",
        ) from error
    # Sentencepiece knows nothing of the added tokens.
    incomparable = [*(mark.content for mark in marks.values()), *(t.replace(SPACE, " ") for t in model.inexpressible)]
    # InternLM2's vocabulary holds a NUL, which is a piece to sentencepiece before 0.2.3 and a byte since.
    nul = {number for number, piece in enumerate(model.pieces) if piece.text == "\0"}
    without_nul = not nul.isdisjoint(processor.encode("\0"))
    for text in (*TEXTS, *_texts_of_pieces(model)):
        if without_nul:
            text = text.replace("\0", "")
        if any(content in text for content in incomparable):
            continue
        expected = processor.encode(text)
        actual = tokenizer.encode(text, add_special_tokens=False).ids
        if actual != expected:
            raise TokenizerError(
                f"The converted tokenizer cuts {_short(text)} differently from sentencepiece.",
                remedy=USE_LMDEPLOY,
                details=[f"sentencepiece: {expected[:40]}", f"converted:     {actual[:40]}"],
            )
        decoded = tokenizer.decode(actual, skip_special_tokens=False)
        if decoded != processor.decode(expected) or (SPACE not in text and decoded != text):
            raise TokenizerError(
                f"The converted tokenizer gives {_short(text)} back as {_short(decoded)}.", remedy=USE_LMDEPLOY
            )
    for number, mark in marks.items():
        ids = tokenizer.encode(mark.content, add_special_tokens=False).ids
        if ids != [number] or tokenizer.decode(ids, skip_special_tokens=False) != mark.content:
            raise TokenizerError(
                f"The token {_short(mark.content)} has id {number} but is encoded as {ids}.", remedy=USE_LMDEPLOY
            )


def _texts_of_pieces(model: SentencePieceModel) -> list[str]:
    """Texts made of the vocabulary's own pieces, eight at a time, so that every kind of piece is met."""
    normal = [piece.text for piece in model.pieces if piece.type is PieceType.NORMAL]
    drawn = random.Random(0).choices(normal, k=4000) if normal else []  # noqa: S311 - repeatable, not secret
    return ["".join(drawn[n : n + 8]).replace(SPACE, " ") for n in range(0, len(drawn), 8)]


def _short(text: str) -> str:
    return shown(repr(text), 62)
