"""Safetensors files are read and written as the safetensors package does, and damaged ones are refused."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.checkpoints.internlm2.safetensors_file import Tensor, read_tensors, write_index, write_tensors
from bundle.errors import CheckpointError

A, B = Tensor("a", "BF16", (2, 3)), Tensor("b", "F32", (2,))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    write_tensors(path, [A, B], lambda tensor: [bytes(range(tensor.nbytes // 2)), bytes(tensor.nbytes // 2)])
    return path


def test_the_safetensors_package_reads_what_was_written(file: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        assert opened.metadata() == {"format": "pt"}
        assert {name: tuple(opened.get_tensor(name).shape) for name in opened.keys()} == {"a": (2, 3), "b": (2,)}  # noqa: SIM118
        assert opened.get_tensor("a").dtype == torch.bfloat16
        assert bytes(opened.get_tensor("a").view(torch.uint8).flatten().tolist()) == bytes([*range(6), *[0] * 6])


def test_what_the_safetensors_package_wrote_is_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    tensors = {"x": torch.arange(12, dtype=torch.float32).reshape(4, 3), "y": torch.ones(5, dtype=torch.float16)}
    save_file(tensors, tmp_path / "x.safetensors")

    stored = {s.tensor.name: s for s in read_tensors(tmp_path / "x.safetensors")}

    assert {name: (s.tensor.dtype, s.tensor.shape) for name, s in stored.items()} == {
        "x": ("F32", (4, 3)),
        "y": ("F16", (5,)),
    }
    rows_1_and_2 = b"".join(stored["x"].blocks(1, 3))
    assert rows_1_and_2 == tensors["x"][1:3].numpy().tobytes()


def test_content_of_the_wrong_size_is_not_passed_off_as_a_tensor(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tensor a: 3 bytes for 12"):
        write_tensors(tmp_path / "x.safetensors", [A], lambda tensor: [b"abc"])


def test_the_index_says_where_each_tensor_is(tmp_path: Path) -> None:
    write_index(tmp_path / "index.json", {"one": [A], "two": [B]})

    assert json.loads((tmp_path / "index.json").read_bytes()) == {
        "metadata": {"total_size": 20},
        "weight_map": {"a": "one", "b": "two"},
    }


def test_a_file_cut_off_anywhere_is_refused(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    for length in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="truncated"):
            read_tensors(tmp_path / "cut")


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 10]},
        {"dtype": "BF16", "shape": [2, 3], "data_offsets": [-12, 0]},
        {"dtype": "BF16", "shape": [-2, -3], "data_offsets": [0, 12]},
        {"dtype": "BF16", "shape": [0, 3], "data_offsets": [0, 0]},
        {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0]},
        {"dtype": "BF16", "shape": None, "data_offsets": [0, 12]},
        {"dtype": "BF16", "shape": [2, 3]},
        {"dtype": ["BF16"], "shape": [2, 3], "data_offsets": [0, 12]},
        [],
        None,
    ],
)
def test_a_header_that_contradicts_itself_is_refused(tmp_path: Path, entry: object) -> None:
    header = json.dumps({"a": entry}).encode()
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + bytes(12))

    with pytest.raises(CheckpointError, match="header is broken"):
        read_tensors(tmp_path / "x")


@given(header=st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_no_header_makes_reading_fail_otherwise(tmp_path_factory: pytest.TempPathFactory, header: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "arbitrary.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)

    try:
        assert read_tensors(path) == []
    except CheckpointError as error:
        assert str(path) in error.message  # noqa: PT017 - a refusal that names the file is the other right outcome
