"""The tokenizer.json of a rewritten checkpoint does what sentencepiece does, and keeps the chat marks apart."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer

from bundle.checkpoints.internlm2 import rewrite_as_llama
from bundle.checkpoints.internlm2.sentencepiece import Piece, PieceType, build_tokenizer, read_model
from bundle.checkpoints.internlm2.tokenizer import TEXTS, prove_equal
from bundle.checkpoints.internlm2.tokenizer_config import AddedToken, TokenizerConfig
from bundle.errors import CheckpointError, TokenizerError
from tests.checkpoints.internlm2.sentencepiece_files import UNIGRAM, normal, write_model

LETTERS = normal({"ab": -1, "▁ab": -2, "▁▁": -3, "a": -4, "b": -5, "▁": -6})
PLAIN = TokenizerConfig(added={}, names={}, additional=(), add_bos=False, add_eos=False, carried={})
MARK = AddedToken("<|im_end|>", special=True)
# Sentencepiece knows nothing of these; hypothesis finds them in the code and tries them.
MADE_MARKS = ["<unk>", "<s>", "</s>", *(f"<|{name}|>" for name in ("plugin", "interpreter", "im_end", "im_start"))]
MADE_MARKS += ["<|action_start|>", "<|action_end|>"]


@pytest.fixture(scope="module")
def rewritten(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rewrite_as_llama(tiny, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def converted(rewritten: Path) -> Tokenizer:
    return Tokenizer.from_file(str(rewritten / "tokenizer.json"))


@pytest.fixture(scope="module")
def original(tiny: Path) -> SentencePieceProcessor:
    return SentencePieceProcessor(model_file=str(tiny / "tokenizer.model"))


def with_added(tokens: dict[int, AddedToken], **changes: Any) -> TokenizerConfig:
    return TokenizerConfig(**{field: getattr(PLAIN, field) for field in PLAIN.__slots__} | {"added": tokens} | changes)


@given(
    text=st.lists(
        st.text(st.characters(exclude_categories=["Cs"]))
        | st.text("中国的考试题答案选项 \n\tABCD.:，。____0123456789")
        | st.sampled_from(
            ["以下是中国关于", "单项选择题", "The answer is", "    return", "<0x0A>", "[UNUSED_TOKEN_7]", "▁"]
        ),
        max_size=12,
    )
    .map("".join)
    .filter(lambda text: not any(mark in text for mark in MADE_MARKS))
)
@settings(max_examples=300)
def test_any_text_has_sentencepieces_ids_and_comes_back(
    converted: Tokenizer, original: SentencePieceProcessor, text: str
) -> None:
    ids = converted.encode(text, add_special_tokens=False).ids

    assert ids == original.encode(text)
    assert converted.decode(ids) == original.decode(ids) == text.replace("▁", " ")


def test_a_chat_has_its_marks_as_single_tokens_at_their_own_ids(
    rewritten: Path, original: SentencePieceProcessor
) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(rewritten)
    turns = [("system", "你是一个助手"), ("user", "1 + 1 = ?\nA.  2\n答案: "), ("assistant", "A"), ("user", " x ")]

    text = tokenizer.apply_chat_template(
        [{"role": role, "content": content} for role, content in turns], add_generation_prompt=True, tokenize=False
    )
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]

    expected = [1]
    for role, content in turns:
        expected += [4863, *original.encode(f"{role}\n{content}"), 4862, *original.encode("\n")]
    assert ids == [*expected, 4863, *original.encode("assistant\n")]
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert "<|im_" not in tokenizer.decode(ids, skip_special_tokens=True)


def test_every_added_token_keeps_its_id_and_its_flags(rewritten: Path, tiny: Path) -> None:
    transformers = pytest.importorskip("transformers")
    expected = json.loads((tiny / "tokenizer_config.json").read_bytes())["added_tokens_decoder"]

    tokenizer = transformers.AutoTokenizer.from_pretrained(rewritten)

    assert {str(number): token.content for number, token in tokenizer.added_tokens_decoder.items()} == {
        number: token["content"] for number, token in expected.items()
    }
    assert all(token.special for token in tokenizer.added_tokens_decoder.values())
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert len(tokenizer) == 4864


def test_the_bos_token_is_put_before_plain_text_as_internlm2_does(converted: Tokenizer) -> None:
    assert converted.encode("A").ids == [1, *converted.encode("A", add_special_tokens=False).ids]


def test_a_dummy_prefix_is_carried_over(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m", LETTERS, add_dummy_prefix=True)
    processor = SentencePieceProcessor(model_file=str(path))

    tokenizer, _ = build_tokenizer(read_model(path), PLAIN)

    for text in ["ab", " ab", "  ab ab", "", " ", "b\n a"]:
        assert tokenizer.encode(text).ids == processor.encode(text), text
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.encode("ab").tokens == ["▁ab"]


def test_user_defined_pieces_are_cut_out_first(tmp_path: Path) -> None:
    pieces = [*LETTERS, *(Piece(text, 0, PieceType.USER_DEFINED) for text in ("bab", "\n\n", "▁b"))]
    path = write_model(tmp_path / "m", pieces)
    processor = SentencePieceProcessor(model_file=str(path))

    tokenizer, _ = build_tokenizer(read_model(path), PLAIN)

    for text in ["ababab", "a\n\n\nb", "a b  bab ab", "bbabab"]:
        assert tokenizer.encode(text).ids == processor.encode(text), text
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"model_type": UNIGRAM}, "not a BPE model"),
        ({"byte_fallback": False}, "no byte fallback"),
        ({"treat_whitespace_as_suffix": True}, "spaces at the end of words"),
        ({"remove_extra_whitespaces": True}, "shortens runs of spaces"),
        ({"escape_whitespaces": False}, "does not escape spaces"),
        ({"precompiled_charsmap": bytes(4)}, "replaces characters"),
        ({"pieces": [Piece("zz", 0, PieceType.UNUSED)]}, "unused pieces"),
        ({"pieces": normal({"a": 0})}, "holds a piece twice"),
        (
            {"pieces": [Piece("zz", 0, PieceType.USER_DEFINED)], "add_dummy_prefix": True},
            "user-defined pieces and a dummy prefix",
        ),
    ],
)
def test_what_cannot_be_carried_over_exactly_is_refused(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    path = write_model(tmp_path / "m", [*LETTERS, *options.pop("pieces", [])], **options)

    with pytest.raises(CheckpointError, match=reason):
        build_tokenizer(read_model(path), PLAIN)


def test_the_proof_finds_a_tokenizer_that_cuts_differently(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m", LETTERS)
    reordered = write_model(tmp_path / "other", normal({"a": -4, "b": -5, "▁": -6, "ab": -1, "▁ab": -2, "▁▁": -3}))
    tokenizer, _ = build_tokenizer(read_model(reordered), PLAIN)

    with pytest.raises(TokenizerError, match=r"cuts .* differently from sentencepiece"):
        prove_equal(tokenizer, path, read_model(path), {})


def test_the_proof_finds_text_that_does_not_come_back(tmp_path: Path) -> None:
    from tokenizers import decoders

    path = write_model(tmp_path / "m", LETTERS)
    tokenizer, _ = build_tokenizer(read_model(path), PLAIN)
    tokenizer.decoder = decoders.ByteFallback()

    with pytest.raises(TokenizerError, match=r"gives .* back as"):
        prove_equal(tokenizer, path, read_model(path), {})


def test_the_proof_finds_a_mark_at_another_id(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m", LETTERS)
    tokenizer, _ = build_tokenizer(read_model(path), with_added({265: MARK}))

    prove_equal(tokenizer, path, read_model(path), {265: MARK})
    with pytest.raises(TokenizerError, match=r"'<\|im_end\|>' has id 266 but is encoded as \[265\]"):
        prove_equal(tokenizer, path, read_model(path), {266: MARK})


def test_the_proof_covers_the_shape_of_an_exam_question() -> None:
    assert any("以下是中国关于" in text and "考试的单项选择题，请选出其中的正确答案。\n" in text for text in TEXTS)
    assert any(text.endswith("\n答案: ") for text in TEXTS)


def test_pieces_that_cannot_be_formed_become_other_tokens_of_the_same_text(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m", [*LETTERS, *normal({"습니": -7, "니": -8})])
    model = read_model(path)

    tokenizer, _ = build_tokenizer(model, PLAIN)
    prove_equal(tokenizer, path, model, {})

    assert model.inexpressible == ("습니",)
    assert tokenizer.encode("습니").tokens == ["<0xEC>", "<0x8A>", "<0xB5>", "니"]
    assert tokenizer.decode(tokenizer.encode("ab 습니").ids) == "ab 습니"


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ({259: MARK}, "'<|im_end|>' the id 259, which tokenizer.model uses for the text 'ab'"),
        ({3: MARK}, "'<|im_end|>' the id 3, which tokenizer.model uses for the text '<0x00>'"),
        ({300: AddedToken("ab", special=False)}, "gives a second id to 'ab'"),
    ],
)
def test_added_tokens_that_contradict_the_vocabulary_are_refused(
    tmp_path: Path, added: dict[int, AddedToken], message: str
) -> None:
    model = read_model(write_model(tmp_path / "m", LETTERS))

    with pytest.raises(TokenizerError) as raised:
        build_tokenizer(model, with_added(added))

    assert message in raised.value.message


def test_a_tokenizer_json_of_another_model_beside_it_is_refused(tiny: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny, model)
    file = model / "tokenizer.json"
    content = json.loads(file.read_bytes())
    vocabulary = content["model"]["vocab"]
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]
    file.write_text(json.dumps(content))

    with pytest.raises(TokenizerError, match=r"two models: '[AB]' is \d+ by tokenizer\.json, \d+ by tokenizer\.model"):
        rewrite_as_llama(model, tmp_path / "cache")


def test_a_special_token_without_an_id_is_refused(tmp_path: Path) -> None:
    model = read_model(write_model(tmp_path / "m", LETTERS))

    with pytest.raises(TokenizerError, match=r"'<\|im_end\|>', which has no id"):
        build_tokenizer(model, with_added({}, additional=("<|im_end|>",)))


def test_a_special_token_that_is_a_piece_needs_no_entry_of_its_own(tmp_path: Path) -> None:
    model = read_model(write_model(tmp_path / "m", LETTERS))

    tokenizer, config = build_tokenizer(model, with_added({}, names={"eos_token": "</s>"}))

    assert tokenizer.encode("a</s>b").tokens == ["a", "</s>", "b"]
    assert config.added == {2: AddedToken("</s>", special=True)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs pointers"),
        (b"", "is empty"),
        (b"<html>404</html>", "is not a sentencepiece model"),
        (b"\x0a\x05abc", "is not a sentencepiece model"),
    ],
)
def test_a_file_that_is_no_sentencepiece_model_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "m").write_bytes(content)

    with pytest.raises(CheckpointError, match=message):
        read_model(tmp_path / "m")


@given(content=st.binary(max_size=64))
def test_no_bytes_make_reading_a_model_fail_otherwise(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "arbitrary.model"
    path.write_bytes(content)

    try:
        assert read_model(path).pieces
    except CheckpointError as error:
        assert path.name in error.message  # noqa: PT017 - a refusal that names the file is the other right outcome
