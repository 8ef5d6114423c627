"""What an inspection tells of a whole checkpoint, and what it says of one whose small files are wrong."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from bundle.checkpoints import (
    fingerprint,
    has_chat_template,
    inspect_checkpoint,
    require_architecture,
    require_unchanged,
    when_written,
)
from bundle.checkpoints._settings import vocab_size
from bundle.errors import CheckpointError
from tests.checkpoints.checkpoints import (
    CONFIG,
    LFS_POINTER,
    TENSORS,
    describe,
    safetensors_bytes,
    write_checkpoint,
    write_json,
    write_safetensors,
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model")


def test_a_checkpoint_is_described_by_its_files(model: Path) -> None:
    checkpoint = inspect_checkpoint(model)
    assert checkpoint.path == model.resolve()
    assert checkpoint.config == CONFIG
    assert checkpoint.architecture == "InternLM2ForCausalLM"
    assert checkpoint.weights.files == (model / "model.safetensors",)
    assert checkpoint.weights.size == 64 * 4 * 2 + 4 * 4
    assert checkpoint.tokenizer_files == (model / "tokenizer.json",)
    assert checkpoint.remote_code == ()
    assert vocab_size(checkpoint.config) == 64
    assert checkpoint.max_position_embeddings == 2048
    assert checkpoint.quantization is None


def test_a_relative_path_and_a_link_lead_to_the_same_checkpoint(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (model.parent / "link").symlink_to(model)
    monkeypatch.chdir(model.parent)
    assert inspect_checkpoint(Path("link")).path == inspect_checkpoint(Path("model")).path == model.resolve()


def test_a_multimodal_configuration_keeps_its_sizes_one_level_down(model: Path) -> None:
    text = {"vocab_size": 92553, "max_position_embeddings": 32768}
    write_json(model / "config.json", {"architectures": ["InternVLChatModel"], "llm_config": text})
    checkpoint = inspect_checkpoint(model)
    assert (vocab_size(checkpoint.config), checkpoint.max_position_embeddings) == (92553, 32768)


def test_sizes_that_the_configuration_does_not_give_are_not_made_up(model: Path) -> None:
    write_json(model / "config.json", {"architectures": ["ChatModel"], "vocab_size": True, "n_positions": "2048"})
    checkpoint = inspect_checkpoint(model)
    assert (vocab_size(checkpoint.config), checkpoint.max_position_embeddings) == (None, None)


def test_the_quantization_method_is_known(model: Path) -> None:
    write_checkpoint(model, config={**CONFIG, "quantization_config": {"quant_method": "awq", "bits": 4}})
    assert inspect_checkpoint(model).quantization == "awq"


def test_a_quantization_without_a_method_is_an_error(model: Path) -> None:
    write_json(model / "config.json", {**CONFIG, "quantization_config": {"bits": 4}})
    with pytest.raises(CheckpointError, match="quantization_config without a quant_method"):
        inspect_checkpoint(model)


def test_without_architectures_the_class_in_auto_map_counts_as_it_does_for_lmdeploy(model: Path) -> None:
    (model / "modeling.py").write_text("class Mine: ...\n")
    write_json(model / "config.json", {"auto_map": {"AutoModelForCausalLM": "modeling.Mine"}})
    assert inspect_checkpoint(model).architecture == "Mine"


@pytest.mark.parametrize(
    ("architecture", "generates"),
    [
        ("Qwen2ForSequenceClassification", False),
        ("Qwen2ForProcessRewardModel", False),
        ("InternLM2ForRewardModel", False),
        ("LlamaModel", False),
        ("ChatGLMModel", True),  # whose name says less than it is
        ("QWenLMHeadModel", True),
    ],
)
def test_a_model_that_generates_no_text_is_refused(model: Path, architecture: str, *, generates: bool) -> None:
    write_json(model / "config.json", {"architectures": [architecture]})
    with nullcontext() if generates else pytest.raises(CheckpointError, match="generates no text"):
        inspect_checkpoint(model)


@pytest.mark.parametrize("config", [{}, {"architectures": []}, {"architectures": None}, {"architectures": [7]}])
def test_a_configuration_without_an_architecture_is_an_error(model: Path, config: dict[str, object]) -> None:
    write_json(model / "config.json", config)
    with pytest.raises(CheckpointError, match=r"config\.json does not name an architecture"):
        inspect_checkpoint(model)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b'{\n "architectures": [\n', r"config\.json is not valid JSON: line 3, column 1: Expecting value"),
        (b'{"a": 1,\n  b}', "line 2, column 3"),
        (b"[]", r"config\.json holds a JSON list, not an object"),
        (b'{"a": "\xff"}', "is not valid UTF-8: byte 7"),
        (b"", r"config\.json is empty"),
        (b"[" * 100_000, "is not valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not valid JSON"),
        (LFS_POINTER.encode(), r"git-lfs pointers in place of 1 of its files: config\.json"),
    ],
)
def test_a_broken_config_json_is_an_error_that_says_where(model: Path, content: bytes, complaint: str) -> None:
    (model / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=complaint):
        inspect_checkpoint(model)


def test_a_config_json_that_is_no_regular_file_is_an_error_and_never_waits(model: Path) -> None:
    (model / "config.json").unlink()
    (model / "config.json").mkdir()
    with pytest.raises(CheckpointError, match=r"config\.json is a directory"):
        inspect_checkpoint(model)
    (model / "config.json").rmdir()
    os.mkfifo(model / "config.json")
    with pytest.raises(CheckpointError, match=r"config\.json is not a regular file"):
        inspect_checkpoint(model)


@pytest.fixture
def nobody(model: Path) -> Iterator[None]:
    """Root may read everything, so a test that runs as root becomes somebody else."""
    if os.geteuid() != 0:
        yield
        return
    opened = [parent for parent in model.parents if parent.owner() == "root" and not parent.stat().st_mode & 0o005]
    modes = [parent.stat().st_mode for parent in opened]
    for parent in opened:
        parent.chmod(0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for parent, mode in zip(opened, modes, strict=True):
            parent.chmod(mode)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_file_without_the_right_to_read_it_is_an_error(
    model: Path, name: str, request: pytest.FixtureRequest
) -> None:
    (model / name).chmod(0)
    request.getfixturevalue("nobody")
    with pytest.raises(CheckpointError, match=rf"{name} cannot be read: Permission denied.*chmod"):
        inspect_checkpoint(model)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_link_into_a_cache_that_lost_its_file_is_an_error(model: Path, name: str) -> None:
    (model / name).unlink()
    (model / name).symlink_to("../../blobs/0123abcd")
    with pytest.raises(CheckpointError, match=rf"{name} is a link to \.\./\.\./blobs/0123abcd, which does not exist"):
        inspect_checkpoint(model)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_link_to_itself_is_an_error(model: Path, name: str) -> None:
    (model / name).unlink()
    (model / name).symlink_to(name)
    with pytest.raises(CheckpointError, match=rf"{name} cannot be read: Too many levels of symbolic links"):
        inspect_checkpoint(model)


# Tokenizer files


@pytest.mark.parametrize(
    "names", [["tokenizer.json"], ["tokenizer.model"], ["qwen.tiktoken"], ["vocab.json", "merges.txt"], ["vocab.txt"]]
)
def test_every_usual_kind_of_tokenizer_is_found(model: Path, names: list[str]) -> None:
    (model / "tokenizer.json").unlink()
    for name in names:
        (model / name).write_text("{}")
    write_json(model / "tokenizer_config.json", {})
    assert [file.name for file in inspect_checkpoint(model).tokenizer_files] == [*names, "tokenizer_config.json"]


@pytest.mark.parametrize("names", [[], ["vocab.json"], ["merges.txt"], ["tokenizer_config.json"]])
def test_no_tokenizer_or_half_of_one_is_an_error(model: Path, names: list[str]) -> None:
    (model / "tokenizer.json").unlink()
    for name in names:
        (model / name).write_text("{}")
    with pytest.raises(CheckpointError, match=r"has no tokenizer \(tokenizer\.json, tokenizer\.model"):
        inspect_checkpoint(model)


def test_a_tokenizer_that_is_code_alone_is_left_to_its_code(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    (model / "tokens.py").write_text("class Bytes: ...\n")
    write_json(model / "tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["tokens.Bytes", None]}})
    assert inspect_checkpoint(model).remote_code == (model / "tokens.py",)


@pytest.mark.parametrize(
    ("code", "has_one"),
    [
        ("class Bytes:\n    def apply_chat_template(self, turns): ...\n", True),
        ("class Bytes:\n    chat_template = '{{ x }}'\n", True),
        ("class Bytes:\n    def __init__(self):\n        self.chat_template: str = '{{ x }}'\n", True),
        ("class Bytes: ...\n", False),
        ("def chat(tokenizer):\n    return tokenizer.apply_chat_template([], chat_template=None)\n", False),
        ("def is_chat(tokenizer):\n    return tokenizer.chat_template == ''\n", False),
    ],
)
def test_code_that_defines_a_chat_template_counts_and_code_that_uses_one_does_not(
    model: Path, code: str, has_one: bool
) -> None:
    (model / "tokens.py").write_text(code)
    write_json(model / "tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["tokens.Bytes", None]}})
    assert has_chat_template(inspect_checkpoint(model)) is has_one


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("tokenizer.json", LFS_POINTER, r"git-lfs pointers in place of 1 of its files: tokenizer\.json.*git lfs pull"),
        ("tokenizer.model", LFS_POINTER, r"git-lfs pointers in place of 1 of its files: tokenizer\.model"),
        ("tokenizer.json", '{"model": {"vocab": {"a": 0', r"tokenizer\.json is truncated"),
        ("tokenizer.json", "<!DOCTYPE html><html></html>", r"tokenizer\.json is not a JSON object"),
        ("tokenizer.json", "", r"tokenizer\.json is empty"),
        ("tokenizer_config.json", "{'a': 1}", r"tokenizer_config\.json is not valid JSON: line 1, column 2"),
        ("special_tokens_map.json", "{", r"special_tokens_map\.json is not valid JSON"),
        ("generation_config.json", "{", r"generation_config\.json is not valid JSON"),
    ],
)
def test_a_broken_tokenizer_file_is_an_error(model: Path, name: str, content: str, complaint: str) -> None:
    (model / name).write_text(content)
    with pytest.raises(CheckpointError, match=complaint):
        inspect_checkpoint(model)


# What an engine serves


def test_an_architecture_the_engine_serves_passes_and_so_does_any_where_it_cannot_be_known(model: Path) -> None:
    checkpoint = inspect_checkpoint(model)
    require_architecture(checkpoint, {"InternLM2ForCausalLM", "LlamaForCausalLM"}, "lmdeploy")
    require_architecture(checkpoint, None, "lmdeploy")


def test_an_architecture_the_engine_does_not_serve_is_an_error_that_names_similar_ones(model: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        require_architecture(inspect_checkpoint(model), ["LlamaForCausalLM", "InternLM3ForCausalLM"], "lmdeploy")
    assert caught.value.message.startswith("lmdeploy does not serve InternLM2ForCausalLM")
    assert "InternLM3ForCausalLM" in str(caught.value.remedy)


def test_an_architecture_unlike_all_served_is_an_error_that_lists_what_is_served(model: Path) -> None:
    write_json(model / "config.json", {**CONFIG, "architectures": ["T5\x1b[31m"]})
    with pytest.raises(CheckpointError) as caught:
        require_architecture(inspect_checkpoint(model), [f"Model{i}" for i in range(20)], "lmdeploy")
    assert r"T5\x1b[31m" in caught.value.message
    assert "Model0, Model1, Model10" in str(caught.value.remedy)
    assert "and 12 more" in str(caught.value.remedy)


# Cost


def test_an_inspection_imports_nothing_heavy(model: Path) -> None:
    code = (
        "import sys, json, pathlib; from bundle.checkpoints import inspect_checkpoint;"
        "inspect_checkpoint(pathlib.Path(sys.argv[1]));"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    output = subprocess.run([sys.executable, "-c", code, model], check=True, capture_output=True, text=True).stdout
    heavy = {"torch", "transformers", "safetensors", "tokenizers", "sentencepiece", "numpy", "datasets"}
    assert not heavy & set(json.loads(output))


def test_weights_are_never_read_however_many_bytes_they_have(model: Path) -> None:
    description, size = describe({**TENSORS, "huge": ("U8", [2**40])})
    start = safetensors_bytes(description, b"")
    # A sparse file of a tebibyte: reading it would take an hour.
    with (model / "model.safetensors").open("wb") as file:
        file.write(start)
        file.truncate(len(start) + size)
    assert inspect_checkpoint(model).weights.size == size


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_checkpoint_that_goes_away_after_its_inspection_is_said(model: Path, name: str) -> None:
    checkpoint = inspect_checkpoint(model)
    written = when_written(checkpoint)
    require_unchanged(checkpoint, written)
    (model / name).unlink()

    for read in (fingerprint, lambda one: require_unchanged(one, written)):
        with pytest.raises(CheckpointError, match="was removed or changed while it was in use"):
            read(checkpoint)


def test_a_change_of_any_single_tensor_or_of_the_last_tokens_is_another_fingerprint(model: Path) -> None:
    """As a training of some layers makes it, an adapter of some modules, or tokens that were added."""
    write_json(model / "config.json", {**CONFIG, "vocab_size": 2048})
    layers = {f"layers.{number}.weight": ("BF16", [128, 512]) for number in range(20)}
    weights = write_safetensors(model / "model.safetensors", {"embed": ("BF16", [2048, 512]), **layers})
    checkpoint, content = inspect_checkpoint(model), weights.read_bytes()
    found = [fingerprint(checkpoint)]
    embeddings = checkpoint.weights.places["embed"]
    for place in (*checkpoint.weights.places.values(), embeddings._replace(begin=embeddings.end - 100 * 1024)):
        weights.write_bytes(content[: place.begin] + b"\x01" * (place.end - place.begin) + content[place.end :])
        found.append(fingerprint(inspect_checkpoint(model)))
    assert len(set(found)) == len(found) == 23


@pytest.mark.parametrize(
    "name",
    [
        "chat_template.jinja",
        "chat_template.json",
        "additional_chat_templates/default.jinja",
        "generation_config.json",
        "configuration_internlm2.py",
    ],
)
def test_the_fingerprint_covers_every_file_that_replies_depend_on(model: Path, name: str) -> None:
    write_json(model / "config.json", {**CONFIG, "auto_map": {"AutoConfig": "configuration_internlm2.C"}})
    (model / "configuration_internlm2.py").write_text("")
    before = fingerprint(inspect_checkpoint(model))
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_text('{"eos_token_id": 2}')
    assert fingerprint(inspect_checkpoint(model)) != before
