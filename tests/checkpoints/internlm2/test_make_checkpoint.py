"""``make_checkpoint`` writes what InternLM2.5's own checkpoint directory holds, with random weights."""

import importlib.util
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from bundle.checkpoints._implied_tensors import Sizes, internlm2_tensors, is_internlm2, parameter_count
from bundle.checkpoints._safetensors import read_safetensors_header
from bundle.checkpoints._weights import inspect_weights
from bundle.checkpoints.internlm2 import make, make_checkpoint, rewrite_as_llama
from bundle.checkpoints.internlm2.make import made_config
from bundle.errors import CheckpointError

# InternLM2.5-1.8B as published: its tensors outside the layers, and those of one layer.
REAL_OUTER = {
    "model.tok_embeddings.weight": (92544, 2048),
    "model.norm.weight": (2048,),
    "output.weight": (92544, 2048),
}
REAL_LAYER = {
    "attention.wqkv.weight": (4096, 2048),
    "attention.wo.weight": (2048, 2048),
    "feed_forward.w1.weight": (8192, 2048),
    "feed_forward.w2.weight": (2048, 8192),
    "feed_forward.w3.weight": (8192, 2048),
    "attention_norm.weight": (2048,),
    "ffn_norm.weight": (2048,),
}


def test_the_1_8b_shape_has_the_real_tensors() -> None:
    expected = REAL_OUTER | {f"model.layers.{n}.{name}": shape for n in range(24) for name, shape in REAL_LAYER.items()}

    config = made_config("internlm2_5-1_8b")

    assert internlm2_tensors(config) == expected
    assert parameter_count(internlm2_tensors(config)) == 1_889_110_016


def test_a_model_with_bias_has_it_on_the_attention_only() -> None:
    with_bias = internlm2_tensors(made_config("tiny") | {"bias": True})

    assert {name: shape for name, shape in with_bias.items() if name.endswith("bias")} == {
        "model.layers.0.attention.wqkv.bias": (1024,),
        "model.layers.0.attention.wo.bias": (512,),
        "model.layers.1.attention.wqkv.bias": (1024,),
        "model.layers.1.attention.wo.bias": (512,),
    }


def test_the_tiny_one_is_small_and_holds_the_files_of_a_real_one(tiny: Path) -> None:
    assert {path.name for path in tiny.iterdir()} == {
        "config.json",
        "configuration_internlm2.py",
        "generation_config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
    }
    assert sum(path.stat().st_size for path in tiny.iterdir()) < 20e6
    assert is_internlm2(json.loads((tiny / "config.json").read_bytes()))


def test_tensors_on_disk_are_those_of_the_table(tiny: Path) -> None:
    stored = read_safetensors_header(tiny / "model.safetensors").tensors

    assert {name: tensor.shape for name, tensor in stored.items()} == internlm2_tensors(made_config("tiny"))
    assert {tensor.dtype for tensor in stored.values()} == {"BF16"}


def test_tiny_has_grouped_heads_as_wide_as_turbomind_takes_for_granted() -> None:
    shape = Sizes.from_config(made_config("tiny"))

    assert shape.head_dim == 128
    assert shape.heads > shape.kv_heads > 1


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_weights(tmp_path: Path, tiny: Path) -> None:
    make_checkpoint(tmp_path / "again")
    make_checkpoint(tmp_path / "other", seed=1)

    for path in tiny.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name
        same = (tmp_path / "other" / path.name).read_bytes() == path.read_bytes()
        assert same == (path.name != "model.safetensors"), path.name


def test_weights_are_normal_with_the_configured_spread_and_norms_are_one(tiny: Path) -> None:
    pytest.importorskip("torch")
    from safetensors.torch import load_file

    tensors = load_file(tiny / "model.safetensors")

    gate = tensors["model.layers.0.feed_forward.w1.weight"].double()
    spread, count = 0.02, gate.numel()
    assert abs(gate.mean()) < 5 * spread / math.sqrt(count)
    assert abs(gate.std() / spread - 1) < 0.01
    assert 4 * spread < gate.abs().max() < 7 * spread
    assert (tensors["model.layers.0.ffn_norm.weight"] == 1).all()
    assert not (tensors["output.weight"] == tensors["model.tok_embeddings.weight"]).all()


@pytest.mark.slow
def test_it_answers_with_a_letter_that_depends_on_the_prompt_and_ends_its_turn(tmp_path: Path, tiny: Path) -> None:
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    directory = rewrite_as_llama(tiny, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    replies = []
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
        chat = [{"role": "user", "content": f"{question}\nA. 一\nB. 二\nC. 三\nD. 四\n答案: "}]
        inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        prompt = inputs["input_ids"]  # transformers 4 adds token types, which a Llama does not take
        output = model.generate(prompt, attention_mask=inputs["attention_mask"], max_new_tokens=20, do_sample=False)
        replies.append(tokenizer.decode(output[0, prompt.shape[1] :]))

    assert set(replies) <= {f"{letter}<|im_end|>" for letter in "ABCD"}
    assert len(set(replies)) > 1


def test_large_checkpoints_are_sharded_and_indexed(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from safetensors.torch import load_file

    monkeypatch.setattr(make, "_SHARD_BYTES", 6_000_000)

    make_checkpoint(tmp_path / "sharded")

    shards = inspect_weights(tmp_path / "sharded").files
    assert [path.name for path in shards] == [f"model-0000{n}-of-00004.safetensors" for n in (1, 2, 3, 4)]
    assert not (tmp_path / "sharded" / "model.safetensors").exists()
    index = json.loads((tmp_path / "sharded" / "model.safetensors.index.json").read_bytes())
    stored = {name: (path.name, tensor) for path in shards for name, tensor in load_file(path).items()}
    assert index["weight_map"] == {name: shard for name, (shard, _) in stored.items()}
    assert index["metadata"]["total_size"] == 2 * parameter_count(internlm2_tensors(made_config("tiny")))
    # A tensor's values depend on the seed and its name, not on the shard that it is in.
    whole = load_file(tiny / "model.safetensors")
    assert stored.keys() == whole.keys()
    assert all(tensor.equal(whole[name]) for name, (_, tensor) in stored.items())


def test_chat_marks_are_the_last_six_ids_and_end_a_turn(tiny: Path) -> None:
    added = json.loads((tiny / "tokenizer_config.json").read_bytes())["added_tokens_decoder"]
    generation = json.loads((tiny / "generation_config.json").read_bytes())

    assert {int(number): token["content"] for number, token in added.items()} == {
        0: "<unk>",
        1: "<s>",
        2: "</s>",
        4858: "<|plugin|>",
        4859: "<|interpreter|>",
        4860: "<|action_end|>",
        4861: "<|action_start|>",
        4862: "<|im_end|>",
        4863: "<|im_start|>",
    }
    assert generation == {"bos_token_id": 1, "eos_token_id": [2, 4862], "pad_token_id": 2}


def test_transformers_loads_its_tokenizer_without_code_from_the_checkpoint(tiny: Path) -> None:
    transformers = pytest.importorskip("transformers")
    import sentencepiece

    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny, trust_remote_code=False)

    question = " 下列说法中正确的是____。\n\nA.  x \t y\n答案: "
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
    )
    assert text == f"<s><|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    encode = sentencepiece.SentencePieceProcessor(model_file=str(tiny / "tokenizer.model")).encode
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == [
        *(1, 4863, *encode(f"user\n{question}"), 4862),
        *(*encode("\n"), 4863, *encode("assistant\n")),
    ]
    assert tokenizer(question)["input_ids"] == [1, *encode(question)]


def test_its_configuration_file_reads_its_config(tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    config = json.loads((tiny / "config.json").read_bytes())
    file, class_name = config["auto_map"]["AutoConfig"].split(".")
    copy = shutil.copy(tiny / f"{file}.py", tmp_path)  # Python leaves its bytecode beside it
    spec = importlib.util.spec_from_file_location(file, copy)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    loaded: Any = getattr(module, class_name)(**config)

    for key in ("hidden_size", "num_key_value_heads", "vocab_size", "bias", "rms_norm_eps", "eos_token_id"):
        assert getattr(loaded, key) == config[key], key
    assert loaded.rope_scaling["type"] == "dynamic"
    assert loaded.rope_scaling["factor"] == 2.0


@pytest.mark.parametrize("taken", ["file", "directory with a file"])
def test_nothing_that_is_there_is_overwritten(tmp_path: Path, taken: str) -> None:
    target = tmp_path / "model"
    if taken == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "mine").touch()

    with pytest.raises(CheckpointError, match=r"not an empty directory\..*Name a new one"):
        make_checkpoint(target)

    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_empty_directory_and_missing_parents_are_fine(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    make_checkpoint(tmp_path / "empty")
    make_checkpoint(tmp_path / "a" / "b" / "c")

    assert (tmp_path / "empty" / "config.json").is_file()
    assert (tmp_path / "a" / "b" / "c" / "config.json").is_file()


def test_an_interrupted_make_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(line: str) -> None:
        if "writing" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_checkpoint(tmp_path / "model", say=interrupt)

    assert not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_written_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(CheckpointError, match=r"file/model cannot be written"):
        make_checkpoint(tmp_path / "file" / "model")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"architectures": ["InternLM2ForCausalLM"], "model_type": "internlm2"}, True),
        ({"model_type": "internlm2"}, True),
        ({"architectures": ["InternLM2ForRewardModel"], "model_type": "internlm2"}, False),
        ({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}, False),
        ({}, False),
    ],
)
def test_internlm2_is_told_by_its_architecture(config: dict[str, object], expected: bool) -> None:
    assert is_internlm2(config) is expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "hidden_size must be a positive integer, not None"),
        ({"vocab_size": "many"}, "vocab_size must be a positive integer, not 'many'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be a positive integer, not 0"),
        ({"num_key_value_heads": 3}, "do not divide evenly"),
    ],
)
def test_impossible_sizes_are_errors(changes: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        internlm2_tensors(made_config("tiny") | changes)
