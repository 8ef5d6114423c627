"""An InternLM2 tokenizer as files that need none of the checkpoint's code, each time proved against sentencepiece."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bundle.checkpoints._files import listed, read_whole, shown
from bundle.checkpoints.confined import call_confined
from bundle.checkpoints.internlm2.sentencepiece import (
    SPACE,
    USE_LMDEPLOY,
    PieceType,
    SentencePieceModel,
    build_tokenizer,
    read_model,
)
from bundle.checkpoints.internlm2.tokenizer_config import AddedToken, TokenizerConfig, read_tokenizer_config
from bundle.checkpoints.tokenizer_probe.texts import TEXTS as PROMPTS
from bundle.errors import CheckpointError, TokenizerError
from bundle.system.files import write_json
from bundle.system.text import one_line

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_END_OF_TURN: Final = "<|im_end|>"
_LONGEST_S: Final = 600.0
"""It takes a few seconds, and many times that on a machine that has no processor free."""
_ONE_DOWNLOAD: Final = "Take config.json and the other files from the same download of the model."


def convert_tokenizer(source: Path, target: Path, vocab_size: int, say: Callable[[str], None]) -> int | None:
    """Write tokenizer.json and tokenizer_config.json, proved against sentencepiece where that is what they come from.

    Returns the id of the mark that ends a turn, if the template has it; ``say`` gets what could not be converted.
    Raises CheckpointError if the files are missing, damaged, or cannot be converted exactly.
    """
    end_of_turn: int | None
    end_of_turn, note = call_confined(
        __name__, _convert.__name__, str(source), str(target), vocab_size, limit_s=_LONGEST_S
    )
    if note is not None:
        say(note)
    return end_of_turn


def _convert(source_path: str, target_path: str, vocab_size: int) -> tuple[int | None, str | None]:
    from tokenizers import Tokenizer  # imported late: only a confined process needs it

    source, target = Path(source_path), Path(target_path)
    config = read_tokenizer_config(source)
    model_file = source / "tokenizer.model"
    note = None
    if model_file.is_file():
        model = read_model(model_file)
        tokenizer, config = build_tokenizer(model, config)
        prove_equal(tokenizer, model_file, model, config.added)
        if (source / "tokenizer.json").is_file():
            _require_same_ids(tokenizer, source)
        if model.inexpressible:
            note = (
                f"note: {len(model.inexpressible)} pieces of tokenizer.model hold characters that are not pieces "
                f"themselves ({listed(map(repr, model.inexpressible))}); text with these is tokenized "
                "differently from sentencepiece, with the same meaning"
            )
    elif (source / "tokenizer.json").is_file():
        try:
            tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
        except Exception as error:  # tokenizers raises Exception itself
            raise CheckpointError(
                f"{shown(source / 'tokenizer.json')} cannot be loaded: {one_line(str(error))}.",
                remedy="Download the file again.",
            ) from error
        _check_ids(tokenizer, config)
    else:
        raise CheckpointError(
            f"{shown(source)} has no tokenizer (tokenizer.model or tokenizer.json).",
            remedy="Download the whole checkpoint.",
        )
    numbers: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    if max(numbers.values()) >= vocab_size:
        text = max(numbers, key=lambda text: numbers[text])
        given = f"{shown(source)}: the tokenizer gives {shown(repr(text))} the id {numbers[text]}"
        raise TokenizerError(f"{given}; the model has {vocab_size} ids.", remedy=_ONE_DOWNLOAD)
    tokenizer.save(str(target / "tokenizer.json"))
    write_json(target / "tokenizer_config.json", config.as_json())
    template = str(config.carried.get("chat_template"))
    own = source / "chat_template.jinja"
    if own.is_file():
        content = read_whole(own)
        (target / own.name).write_bytes(content)
        template = content.decode("utf-8", "replace")
    return numbers.get(_END_OF_TURN) if _END_OF_TURN in template else None, note


def _require_same_ids(tokenizer: Any, source: Path) -> None:
    """Raise TokenizerError if the tokenizer.json beside tokenizer.model, which other engines take, has other ids."""
    from tokenizers import Tokenizer  # imported late: as above

    try:
        given = Tokenizer.from_file(str(source / "tokenizer.json")).get_vocab(with_added_tokens=True)
    except Exception:  # tokenizers raises Exception itself; who takes it will say so
        return
    for text, number in tokenizer.get_vocab(with_added_tokens=True).items():
        if (found := given.get(text, number)) != number:
            raise TokenizerError(
                f"{shown(source)} has the tokenizers of two models: {shown(repr(text))} is {found} by tokenizer.json, "
                f"{number} by tokenizer.model.",
                remedy="Delete the file that is not the model's.",
            )


def _check_ids(tokenizer: Any, config: TokenizerConfig) -> None:
    for number, token in config.added.items():
        if (found := tokenizer.token_to_id(token.content)) != number:
            given = f"tokenizer.json gives {shown(repr(token.content))} the id {found}"
            raise TokenizerError(f"{given}; tokenizer_config.json says {number}.", remedy=_ONE_DOWNLOAD)


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
