"""Weight files that are missing, or are not what their names say, are found out before a server loads them."""

import json
import pickle
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bundle.checkpoints import inspect_checkpoint
from bundle.checkpoints._safetensors import StoredTensor
from bundle.checkpoints._weights import inspect_weights
from bundle.errors import CheckpointError
from tests.checkpoints.checkpoints import (
    CONFIG,
    INDEX,
    LFS_POINTER,
    write_checkpoint,
    write_json,
    write_pytorch,
    write_safetensors,
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model")


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "sharded", shards=6)


def refusal(directory: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        inspect_weights(directory)
    assert caught.value.remedy, "an error without a remedy leaves the user alone"
    return caught.value


# Which files


def test_no_weights_at_all_is_an_error(model: Path) -> None:
    (model / "model.safetensors").unlink()
    error = refusal(model)
    assert "has a config.json but no weights" in error.message
    assert "Download or copy" in str(error.remedy)


@pytest.mark.parametrize("name", ["model.gguf", "model.onnx"])
def test_weights_in_a_format_no_engine_loads_are_an_error_that_names_them(model: Path, name: str) -> None:
    (model / "model.safetensors").rename(model / name)
    error = refusal(model)
    assert f"it holds {name}, which the engines do not load" in error.message
    assert "the checkpoint that these were made from" in str(error.remedy)


def test_an_adapter_beside_a_config_json_is_not_taken_for_the_model(model: Path) -> None:
    (model / "model.safetensors").rename(model / "adapter_model.safetensors")
    assert "holds a LoRA adapter, not a whole model" in refusal(model).message


def test_all_shards_of_an_index_are_the_weights(sharded: Path) -> None:
    weights = inspect_weights(sharded)
    assert [file.name for file in weights.files] == [f"model-{n:05}-of-00006.safetensors" for n in range(1, 7)]
    assert weights.size == 6 * 8 * 8 * 2


def test_missing_shards_are_counted_and_the_first_three_named(sharded: Path) -> None:
    for number in (2, 3, 4, 5):
        (sharded / f"model-{number:05}-of-00006.safetensors").unlink()
    error = refusal(sharded)
    assert f"lacks 4 of the 6 weight files that {INDEX} lists" in error.message
    assert "model-00004-of-00006.safetensors and 1 more" in error.message
    assert "model-00005" not in error.message


def test_missing_shards_are_put_down_to_an_unfinished_download_where_there_is_one(sharded: Path) -> None:
    (sharded / "model-00002-of-00006.safetensors").unlink()
    bookkeeping = sharded / ".cache" / "huggingface" / "download"
    bookkeeping.mkdir(parents=True)
    (bookkeeping / "abc.incomplete").touch()
    assert "A download into this directory has not finished" in str(refusal(sharded).remedy)


def test_an_index_of_other_shards_than_those_beside_it_is_named_as_such(sharded: Path) -> None:
    for number in range(1, 7):
        (sharded / f"model-{number:05}-of-00006.safetensors").rename(
            sharded / f"model-{number:05}-of-00007.safetensors"
        )
    error = refusal(sharded)
    assert "lacks 6 of the 6 weight files" in error.message
    assert str(error.remedy).endswith("and 3 more are the model, copy their own index.")


def test_shards_without_an_index_are_refused_and_missing_ones_show_in_the_numbers_of_the_others(sharded: Path) -> None:
    (sharded / INDEX).unlink()
    assert f"neither model.safetensors nor {INDEX}" in refusal(sharded).message
    (sharded / "model-00003-of-00006.safetensors").unlink()
    assert "lacks 1 of 6 weight files: model-00003-of-00006.safetensors" in refusal(sharded).message


@pytest.mark.parametrize(
    "name",
    ["pytorch_model_fsdp.bin", "pytorch_model-00001-of-00001.bin", "model-00001-of-00001.safetensors", "a.safetensors"],
)
def test_weights_of_a_name_that_not_all_engines_look_for_are_to_be_renamed(model: Path, name: str) -> None:
    (model / "model.safetensors").rename(model / name)
    whole = "model.safetensors" if name.endswith("s") else "pytorch_model.bin"
    assert f"`mv {model / name} {model / whole}`" in str(refusal(model).remedy)


def test_an_index_left_over_beside_a_whole_model_is_to_be_deleted(model: Path) -> None:
    write_json(model / INDEX, {"weight_map": {"embed": "model-00001-of-00002.safetensors"}})
    assert f"delete {INDEX}" in str(refusal(model).remedy)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_weights_of_which_engines_load_different_ones_are_refused(sharded: Path, name: str) -> None:
    if name == "model.safetensors":
        write_safetensors(sharded / name, {"embed": ("BF16", [8, 8])})
        complaint = f"model.safetensors, and {INDEX} with files of its own: it is unclear"
    else:
        (sharded / INDEX).unlink()  # then lmdeploy's PyTorch engine does not find the shards
        (sharded / name).touch()
        complaint = f"neither model.safetensors nor {INDEX}"
    assert complaint in refusal(sharded).message


@pytest.mark.parametrize("name", ["model_ema.safetensors", "model-00001-of-00002.safetensors"])
def test_weights_beside_a_whole_model_that_turbomind_would_load_too_are_refused(model: Path, name: str) -> None:
    write_safetensors(model / name, {"embed": ("BF16", [8, 8])})
    assert f"model.safetensors, and {name}: it is unclear" in refusal(model).message


@pytest.mark.parametrize("count", [2, 1], ids=["all", "a part"])
@pytest.mark.parametrize("whole", ["model.safetensors", "pytorch_model.bin"])
def test_shards_of_another_model_beside_those_of_the_index_are_refused(tmp_path: Path, whole: str, count: int) -> None:
    """As ``rsync`` leaves them over an older model: the index may be either's."""
    stem, suffix = whole.split(".")
    tensors: dict[str, tuple[str, list[int]]] = {"embed": ("BF16", [8, 8])}
    write_safetensors(tmp_path / f"{stem}-00001-of-00001.{suffix}", tensors)
    write_json(tmp_path / f"{whole}.index.json", {"weight_map": {"embed": f"{stem}-00001-of-00001.{suffix}"}})
    for number in range(1, count + 1):
        write_safetensors(tmp_path / f"{stem}-{number:05}-of-00002.{suffix}", tensors)
    error = refusal(tmp_path)
    assert f"{stem}-00001-of-00002.{suffix}" in error.message
    assert f", and {whole}.index.json with files of its own: it is unclear" in error.message


@pytest.mark.parametrize(
    "name",
    [
        "consolidated.safetensors",
        "consolidated-00001-of-00002.safetensors",
        "adapter_model.safetensors",
        "model.fp16-00001-of-00002.safetensors",
        "model_ema.safetensors",
        "mtp.safetensors",
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model.bin",
        "tf_model.h5",
    ],
)
def test_what_publishers_put_beside_an_index_and_its_shards_is_not_taken_for_another_model(
    sharded: Path, name: str
) -> None:
    (sharded / name).touch()
    assert len(inspect_weights(sharded).files) == 6


@pytest.mark.parametrize(
    "name",
    [
        "model-00001-of-000002.safetensors",
        "model-1-of-2.safetensors",
        "model_00001-of-00002.safetensors",
        "a.safetensors",
    ],
)
def test_an_index_may_list_files_of_any_name(tmp_path: Path, name: str) -> None:
    write_safetensors(tmp_path / name, {"embed": ("BF16", [8, 8])})
    write_json(tmp_path / INDEX, {"weight_map": {"embed": name}})
    assert inspect_weights(tmp_path).files == (tmp_path / name,)


def test_tensors_that_the_index_puts_into_the_wrong_shard_are_named(sharded: Path) -> None:
    index = json.loads((sharded / INDEX).read_text())
    index["weight_map"]["lm_head.weight"] = "model-00001-of-00006.safetensors"
    write_json(sharded / INDEX, index)
    error = refusal(sharded)
    assert "model-00001-of-00006.safetensors lacks 1 of the 2 tensors" in error.message
    assert "lm_head.weight" in error.message


@pytest.mark.parametrize(
    ("index", "complaint"),
    [
        ("{", "is not valid JSON: line 1"),
        ("{}", "has no weight_map"),
        ('{"weight_map": {}}', "has no weight_map"),
        ('{"weight_map": []}', "has no weight_map"),
        ('{"weight_map": {"a": "../secrets.safetensors"}}', "not the name of a file like model.safetensors beside it"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "not the name of a file like model.safetensors beside it"),
        ('{"weight_map": {"a": ".."}}', "not the name of a file like model.safetensors beside it"),
        ('{"weight_map": {"a": "pytorch_model.bin"}}', "not the name of a file like model.safetensors beside it"),
        ('{"weight_map": {"a": 7}}', "not the name of a file like model.safetensors beside it"),
        (LFS_POINTER, "git-lfs pointers"),
    ],
)
def test_a_broken_index_is_an_error(sharded: Path, index: str, complaint: str) -> None:
    (sharded / INDEX).write_text(index)
    assert complaint in refusal(sharded).message


def test_git_lfs_pointers_in_place_of_weights_are_met_with_git_lfs_pull(sharded: Path) -> None:
    for file in sharded.glob("*.safetensors"):
        file.write_text(LFS_POINTER)
    error = refusal(sharded)
    assert "git-lfs pointers in place of 6 of its files" in error.message
    assert "model-00003-of-00006.safetensors and 3 more" in error.message
    assert "git lfs pull" in str(error.remedy)


# PyTorch files


@pytest.fixture
def pytorch(model: Path) -> Path:
    (model / "model.safetensors").unlink()
    write_pytorch(model / "pytorch_model.bin")
    return model


def tensors(torch: Any, **shapes: tuple[int, ...]) -> dict[str, Any]:
    return {name: torch.zeros(shape, dtype=torch.bfloat16) for name, shape in shapes.items()}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before torch 1.6"])
def test_pytorch_files_are_weights_whose_tensors_are_known_without_running_them(pytorch: Path, *, legacy: bool) -> None:
    torch = pytest.importorskip("torch")
    path = pytorch / "pytorch_model.bin"
    transposed = torch.zeros(3, 5).T
    made = tensors(torch, plain=(2, 3), scalar=()) | {"transposed": transposed, "view": transposed[1:]}
    write_pytorch(path, made | {"parameter": torch.nn.Parameter(torch.zeros(4)), "epoch": 3}, legacy=legacy)
    found = inspect_weights(pytorch)
    assert (found.files, found.size) == ((path,), path.stat().st_size)
    assert found.tensors == {
        "plain": StoredTensor("BF16", (2, 3)),
        "scalar": StoredTensor("BF16", ()),
        "transposed": StoredTensor("F32", (5, 3)),
        "view": StoredTensor("F32", (4, 3)),
        "parameter": StoredTensor("F32", (4,)),
    }


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "uint16", "int32", "float16"])
def test_dtypes_have_safetensors_names(pytorch: Path, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    names = {"float8_e4m3fn": "F8_E4M3", "uint16": "U16", "int32": "I32", "float16": "F16"}
    write_pytorch(pytorch / "pytorch_model.bin", {"a": torch.zeros(4, dtype=getattr(torch, dtype))})
    assert inspect_weights(pytorch).tensors == {"a": StoredTensor(names[dtype], (4,))}


class Harmful:
    """Leaves a file where it is run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_nothing_that_a_pickle_names_is_run(pytorch: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    mark = tmp_path / "run"
    write_pytorch(pytorch / "pytorch_model.bin", tensors(torch, a=(2,)) | {"b": Harmful(mark)})
    assert "the engines load nothing but tensors" in refusal(pytorch).message
    assert not mark.exists()


def test_safetensors_files_are_preferred(pytorch: Path) -> None:
    write_safetensors(pytorch / "model.safetensors")
    assert inspect_weights(pytorch).files == (pytorch / "model.safetensors",)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"<html>404</html>", "is damaged, or not a file of torch.save"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "not a file of torch.save: MemoryError"),  # a memo of 2^31 items
        (pickle.dumps({"a": 1}, protocol=2), "is damaged, or not a file of torch.save"),
        (LFS_POINTER.encode(), "git-lfs pointers"),
    ],
)
def test_a_pytorch_file_that_is_none_is_an_error(pytorch: Path, content: bytes, complaint: str) -> None:
    (pytorch / "pytorch_model.bin").write_bytes(content)
    assert complaint in refusal(pytorch).message


@pytest.mark.parametrize(
    ("legacy", "cut", "told"), [(False, 60, "it is truncated"), (True, 60, "its data lacks"), (True, 900, "")]
)
def test_a_cut_off_pytorch_file_is_an_error(pytorch: Path, *, legacy: bool, cut: int, told: str) -> None:
    path = write_pytorch(pytorch / "pytorch_model.bin", legacy=legacy)
    path.write_bytes(path.read_bytes()[:-cut])
    error = refusal(pytorch)
    assert "pytorch_model.bin is " in error.message
    assert told in error.message


def test_tensors_of_a_class_of_their_own_are_tensors_too(pytorch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    packed = type("Int8Tensor", (), {"__module__": "torchao"})  # as torchao's, which is not installed here
    monkeypatch.setitem(sys.modules, "torchao", SimpleNamespace(Int8Tensor=packed))
    config = {**CONFIG, "quantization_config": {"quant_method": "torchao", "quant_type": "int8_weight_only"}}
    write_json(pytorch / "config.json", config)
    write_pytorch(pytorch / "pytorch_model.bin", {**tensors(torch, norm=(2,)), "up.weight": packed()})

    assert inspect_checkpoint(pytorch).weights.tensors.keys() == {"norm", "up.weight"}


class Model:
    """A model whose code is not installed where it is served."""

    def state_dict(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize("installed", [False, True], ids=["of its own code", "of torch alone"])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before torch 1.6"])
def test_a_whole_model_is_told_how_to_become_its_tensors(pytorch: Path, *, installed: bool, legacy: bool) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(2, 2)) if installed else Model()
    path = write_pytorch(pytorch / "pytorch_model.bin", model, legacy=legacy)
    error = refusal(pytorch)
    assert f"{path} holds a whole model as Python objects" in error.message
    assert ("container.Sequential" if installed else "test_weights.Model") in error.message
    command = re.search(r"`python -c \"(.*)\"`", str(error.remedy))
    assert command is not None
    if installed:
        exec(command[1])
        assert inspect_weights(pytorch).tensors.keys() == {"0.weight", "0.bias"}


def test_pieces_of_tensors_that_were_spread_are_told_from_tensors(
    pytorch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    piece = type("DTensor", (), {"__module__": "torch.distributed.tensor"})
    monkeypatch.setitem(sys.modules, "torch.distributed.tensor", SimpleNamespace(DTensor=piece))
    write_pytorch(pytorch / "pytorch_model.bin", {"up.weight": piece()})
    error = refusal(pytorch)
    assert "holds pieces of tensors that were spread over several processes" in error.message
    assert "full_state_dict=True" in str(error.remedy)


def test_tensors_one_level_down_are_none(pytorch: Path) -> None:
    torch = pytest.importorskip("torch")
    write_pytorch(pytorch / "pytorch_model.bin", {"state_dict": tensors(torch, a=(2,)), "epoch": 3})
    error = refusal(pytorch)
    assert "is not a table of tensors by name; it has state_dict, epoch" in error.message
    assert "torch.save(model.state_dict(), FILE)" in str(error.remedy)


def test_pytorch_shards_are_checked_against_their_index(pytorch: Path) -> None:
    torch = pytest.importorskip("torch")
    first, second = (f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2))
    (pytorch / "pytorch_model.bin").unlink()
    write_pytorch(pytorch / first, tensors(torch, a=(2,)))
    write_json(pytorch / "pytorch_model.bin.index.json", {"weight_map": {"a": first, "b": second, "c": second}})
    assert "lacks 1 of the 2 weight files" in refusal(pytorch).message
    write_pytorch(pytorch / second, tensors(torch, b=(2,)))
    assert "lacks 1 of the 2 tensors that pytorch_model.bin.index.json lists for it: c" in refusal(pytorch).message
    write_pytorch(pytorch / second, tensors(torch, b=(2,), c=(2,)))
    assert len(inspect_weights(pytorch).files) == 2
