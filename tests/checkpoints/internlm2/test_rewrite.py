"""``rewrite_as_llama`` writes a checkpoint once, finds it again, and refuses what it cannot rewrite."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle.checkpoints._weights import inspect_weights
from bundle.checkpoints.internlm2 import rewrite_as_llama
from bundle.errors import CheckpointError, TokenizerError
from tests.checkpoints import checkpoints
from tests.checkpoints.internlm2.checkpoints import change_json, change_tensors, write_checkpoint
from tests.late import late
from tests.patience import PATIENCE_S

torch = late("torch")

LFS_POINTER = checkpoints.LFS_POINTER.encode()


@pytest.fixture
def source(tmp_path: Path, tiny: Path) -> Path:
    return write_checkpoint(tmp_path / "source", tiny)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_the_result_is_a_plain_llama_checkpoint(source: Path, cache: Path) -> None:
    rewritten = rewrite_as_llama(source, cache)

    config = json.loads((rewritten / "config.json").read_bytes())
    assert (config["architectures"], config["model_type"]) == (["LlamaForCausalLM"], "llama")
    assert {path.suffix for path in rewritten.iterdir()} == {".json", ".safetensors"}
    assert "auto_map" not in (rewritten / "config.json").read_text() + (rewritten / "tokenizer_config.json").read_text()
    settings = json.loads((rewritten / "tokenizer_config.json").read_bytes())
    assert settings["chat_template"] == json.loads((source / "tokenizer_config.json").read_bytes())["chat_template"]
    assert (rewritten / "generation_config.json").read_text() == (source / "generation_config.json").read_text()


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        (None, {"rope_type": "default", "rope_theta": 1000000}),
        ({"type": "dynamic", "factor": 2.0}, {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1000000}),
        ({"factor": 4, "type": "linear"}, {"rope_type": "linear", "factor": 4.0, "rope_theta": 1000000}),
    ],
)
def test_transformers_reads_the_rope_settings_that_internlm2_had(
    source: Path, cache: Path, scaling: dict[str, Any] | None, expected: dict[str, Any]
) -> None:
    transformers = pytest.importorskip("transformers", minversion="5.0")
    change_json(source / "config.json", rope_scaling=scaling)

    config = transformers.AutoConfig.from_pretrained(rewrite_as_llama(source, cache))

    assert config.rope_parameters == expected
    assert config.max_position_embeddings == 2048


@pytest.mark.parametrize("older", [{}, {"rope_theta": 1000000}])
def test_rope_settings_are_also_read_where_transformers_5_has_saved_them(
    source: Path, cache: Path, older: dict[str, Any]
) -> None:
    settings = json.loads((source / "config.json").read_bytes())
    del settings["rope_theta"], settings["rope_scaling"]
    rope = {"rope_theta": 1000000, "rope_type": "linear", "type": "linear", "factor": 4.0}
    (source / "config.json").write_text(json.dumps({**settings, **older, "rope_parameters": rope}))

    written = json.loads((rewrite_as_llama(source, cache) / "config.json").read_bytes())

    assert (written["rope_theta"], written["rope_scaling"]) == (1000000, {"rope_type": "linear", "factor": 4.0})


def test_the_second_time_it_is_found(source: Path, cache: Path) -> None:
    first = rewrite_as_llama(source, cache)
    written = (first / "model.safetensors").stat()
    said: list[str] = []

    second = rewrite_as_llama(source, cache, say=said.append)

    assert second == first
    assert (first / "model.safetensors").stat() == written
    assert said[-1] == f"using the converted checkpoint in {first}"
    assert not [line for line in said if "converting" in line]


def test_the_same_content_elsewhere_is_found_as_well(source: Path, cache: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "copy")

    assert rewrite_as_llama(tmp_path / "copy", cache) == rewrite_as_llama(source, cache)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("config.json", b"1e-05", b"1e-06"),
        pytest.param("generation_config.json", b"4862", b"4863", marks=pytest.mark.slow),
        pytest.param("tokenizer_config.json", b"assistant", b"assessors", marks=pytest.mark.slow),
        ("tokenizer.model", b"[UNUSED_TOKEN_255]", b"[UNUSED_TOKEN_XXX]"),
        ("model.safetensors", None, None),
    ],
)
def test_a_change_in_any_file_is_noticed_even_under_the_same_size_and_time(
    source: Path, cache: Path, name: str, old: bytes | None, new: bytes | None
) -> None:
    first, before = rewrite_as_llama(source, cache), (source / name).stat()
    if old is None or new is None:
        change_tensors(source, lambda tensors: tensors["model.norm.weight"].mul_(2))
    else:
        (source / name).write_bytes((source / name).read_bytes().replace(old, new))
    os.utime(source / name, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert (source / name).stat().st_size == before.st_size
    assert rewrite_as_llama(source, cache) != first


def test_a_rewrite_that_has_lost_a_part_is_made_again(source: Path, cache: Path) -> None:
    rewritten = rewrite_as_llama(source, cache)
    whole = (rewritten / "model.safetensors").read_bytes()
    os.truncate(rewritten / "model.safetensors", 1000)
    (rewritten / "tokenizer.json").unlink()

    assert rewrite_as_llama(source, cache) == rewritten
    assert (rewritten / "model.safetensors").read_bytes() == whole
    assert (rewritten / "tokenizer.json").is_file()


@pytest.mark.slow
def test_two_at_once_make_one_rewrite(source: Path, cache: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from bundle.checkpoints.internlm2 import rewrite_as_llama;"
        "print(rewrite_as_llama(Path(sys.argv[1]), Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", code, str(source), str(cache)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]

    printed = {process.communicate(timeout=2 * PATIENCE_S)[0].strip() for process in processes}

    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(printed) == 1
    assert [path for path in cache.iterdir() if path.is_dir()] == [Path(printed.pop())]


def test_shards_stay_shards(source: Path, cache: Path) -> None:
    split_into_shards(source)

    rewritten = rewrite_as_llama(source, cache)

    assert [path.name for path in inspect_weights(rewritten).files] == [
        path.name for path in inspect_weights(source).files
    ]
    transformers = pytest.importorskip("transformers")
    _, info = transformers.AutoModelForCausalLM.from_pretrained(rewritten, output_loading_info=True)
    assert not info["missing_keys"]


def test_a_checkpoint_with_only_a_tokenizer_json_keeps_it(source: Path, cache: Path, tiny: Path) -> None:
    (source / "tokenizer.model").unlink()
    shutil.copyfile(tiny / "tokenizer.json", source / "tokenizer.json")

    rewritten = rewrite_as_llama(source, cache)

    assert json.loads((rewritten / "tokenizer.json").read_bytes()) == json.loads((tiny / "tokenizer.json").read_bytes())


def test_without_a_generation_config_a_turn_ends_at_its_mark(source: Path, cache: Path) -> None:
    (source / "generation_config.json").unlink()

    generation = json.loads((rewrite_as_llama(source, cache) / "generation_config.json").read_bytes())

    assert generation == {"bos_token_id": 1, "eos_token_id": [2, 4862], "pad_token_id": 2}


def test_a_generation_config_that_lacks_the_mark_gains_it_and_keeps_the_rest(source: Path, cache: Path) -> None:
    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, "top_p": 0.8}))

    generation = json.loads((rewrite_as_llama(source, cache) / "generation_config.json").read_bytes())

    assert generation == {"eos_token_id": [2, 4862], "top_p": 0.8}


def test_without_a_template_that_writes_the_mark_a_reply_ends_as_the_files_say(source: Path, cache: Path) -> None:
    change_json(source / "tokenizer_config.json", chat_template=None)
    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))

    generation = json.loads((rewrite_as_llama(source, cache) / "generation_config.json").read_bytes())

    assert generation == {"eos_token_id": [2]}


def test_frequencies_stored_by_old_checkpoints_are_left_out(source: Path, cache: Path) -> None:
    change_tensors(source, lambda t: t.update({"model.layers.0.attention.rotary_emb.inv_freq": torch.ones(8)}))

    assert (rewrite_as_llama(source, cache) / "config.json").is_file()


def split_into_shards(source: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, members in shards.items():
        save_file({name: tensors[name] for name in members}, source / shard)
    weight_map = {name: shard for shard, members in shards.items() for name in members}
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def remove(*names: str) -> Callable[[Path], None]:
    def damage(source: Path) -> None:
        for name in names:
            (source / name).unlink()

    return damage


def write(name: str, content: bytes) -> Callable[[Path], None]:
    def damage(source: Path) -> None:
        (source / name).write_bytes(content)

    return damage


def config(**changes: Any) -> Callable[[Path], None]:
    return lambda source: change_json(source / "config.json", **changes)


def tensors(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda source: change_tensors(source, change)


def without_a_shard(source: Path) -> None:
    split_into_shards(source)
    (source / "model-00002-of-00002.safetensors").unlink()


def with_bin_weights(source: Path) -> None:
    (source / "model.safetensors").unlink()
    checkpoints.write_pytorch(source / "pytorch_model.bin")


def truncated(size: int) -> Callable[[Path], None]:
    return lambda source: os.truncate(source / "model.safetensors", size)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(remove("config.json"), r"config\.json cannot be read", id="no config"),
        pytest.param(write("config.json", b"{"), r"config\.json is not valid JSON", id="broken config"),
        pytest.param(write("config.json", b"[]"), r"config\.json holds a JSON list, not an object", id="a list"),
        pytest.param(config(architectures=["LlamaForCausalLM"]), "is not an InternLM2 checkpoint", id="another model"),
        pytest.param(config(quantization_config={"quant_method": "awq"}), "quantized", id="quantized"),
        pytest.param(config(rope_scaling={"type": "yarn", "factor": 2.0}), "rope_scaling", id="unknown rope"),
        pytest.param(config(rope_scaling={"type": "dynamic"}), "rope_scaling", id="rope without factor"),
        pytest.param(remove("model.safetensors"), "no weights", id="no weights"),
        pytest.param(with_bin_weights, r"PyTorch \.bin files", id="weights in the old format"),
        pytest.param(without_a_shard, "lacks 1 of the 2 weight files .*: model-00002-of-00002", id="missing shard"),
        pytest.param(truncated(0), "is empty", id="empty weights"),
        pytest.param(truncated(100), "is truncated within its header", id="cut off in the header"),
        pytest.param(truncated(500_000), r"is truncated: 500,000 of [\d,]+ bytes", id="cut off in the data"),
        pytest.param(write("model.safetensors", LFS_POINTER), "git-lfs", id="lfs weights"),
        pytest.param(
            write("tokenizer.model", b"version https://git-lfs.github.com/spec/v1\noid"), "git-lfs", id="lfs tokenizer"
        ),
        pytest.param(
            tensors(lambda t: t.pop("model.layers.1.attention.wqkv.weight")),
            r"missing tensors \(1 of 17\): model\.layers\.1\.attention\.wqkv\.weight",
            id="missing tensor",
        ),
        pytest.param(
            tensors(lambda t: t.update({"extra.weight": torch.ones(1, 64)})),
            r"unexpected tensors \(1\): extra\.weight",
            id="unknown tensor",
        ),
        pytest.param(
            config(num_key_value_heads=4),
            r"tensors with another shape \(2\): model\.layers\.0\.attention\.wqkv\.weight has the shape \[128, 64\]",
            id="config of another size",
        ),
        pytest.param(
            tensors(lambda t: t.update({"model.norm.weight": torch.ones(64, dtype=torch.int8)})),
            r"non-floating-point tensors .* model\.norm\.weight is I8",
            id="integer weights",
        ),
        pytest.param(remove("tokenizer.model"), "has no tokenizer", id="no tokenizer"),
        pytest.param(
            lambda source: change_json(source / "tokenizer_config.json", added_tokens_decoder={"x": 1}),
            "special or added tokens are malformed",
            id="malformed added tokens",
        ),
    ],
)
def test_what_cannot_be_rewritten_is_named_and_leaves_nothing_behind(
    source: Path, cache: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(source)

    with pytest.raises(CheckpointError, match=message):
        rewrite_as_llama(source, cache)

    assert not cache.exists() or not [path for path in cache.iterdir() if path.is_dir()]


def test_token_ids_beyond_the_model_are_refused(source: Path, cache: Path) -> None:
    change_json(source / "config.json", vocab_size=4000)
    change_tensors(
        source,
        lambda t: t.update({name: t[name][:4000].clone() for name in ("model.tok_embeddings.weight", "output.weight")}),
    )

    with pytest.raises(TokenizerError, match="the id 4863; the model has 4000 ids"):
        rewrite_as_llama(source, cache)


def test_a_tokenizer_json_with_marks_at_other_ids_is_refused(source: Path, cache: Path, tiny: Path) -> None:
    (source / "tokenizer.model").unlink()
    text = (tiny / "tokenizer.json").read_text(encoding="utf-8")
    (source / "tokenizer.json").write_text(text.replace("<|im_end|>", "<|end|>"), encoding="utf-8")

    with pytest.raises(TokenizerError, match=r"gives '<\|im_end\|>' the id None"):
        rewrite_as_llama(source, cache)


def test_a_cache_that_cannot_be_written_is_an_error_with_a_remedy(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(CheckpointError, match=r"cannot be written: File exists\. Choose a directory"):
        rewrite_as_llama(source, tmp_path / "file")
