"""A damaged safetensors file is found out by its header, before a server loads it."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundle.checkpoints._safetensors import read_safetensors_header
from bundle.checkpoints._weights import inspect_weights
from bundle.errors import CheckpointError
from tests.checkpoints.checkpoints import TENSORS, describe, safetensors_bytes, write_checkpoint, write_safetensors


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model")


def refusal(directory: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        inspect_weights(directory)
    assert caught.value.remedy, "an error without a remedy leaves the user alone"
    return caught.value


def test_an_empty_file_is_an_error(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"")
    assert "is empty (0 bytes)" in refusal(model).message


def test_a_file_without_tensors_is_an_error(model: Path) -> None:
    write_safetensors(model / "model.safetensors", {})
    assert "holds no tensors" in refusal(model).message


def test_a_cut_off_file_is_an_error_that_says_how_much_there_is(model: Path) -> None:
    path = model / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert f"truncated: {len(whole) - 100:,} of {len(whole):,} bytes" in refusal(model).message


def test_a_file_longer_than_its_header_says_is_an_error(model: Path) -> None:
    with (model / "model.safetensors").open("ab") as file:
        file.write(b"junk")
    assert "4 bytes longer than its header says" in refusal(model).message


def entry(dtype: object = "U8", shape: object = (4,), offsets: object = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\x01", "truncated: 1 bytes"),
        (b"\xff" * 16, "not a safetensors file: its header would take 18,446,744,073,709,551,615 bytes"),
        (b"<!DOCTYPE html>" * 10, "not a safetensors file"),
        (safetensors_bytes(b'{"a"', b""), "its header is not JSON"),
        (safetensors_bytes(b'{"\xff"}', b""), "its header is not JSON"),
        (safetensors_bytes(b"[1]", b""), "its header is not a JSON object"),
        (safetensors_bytes({"a": 1}, b""), "does not describe tensor a"),
        (safetensors_bytes({"a": entry(dtype=None)}, bytes(4)), "no valid dtype, shape or data_offsets"),
        (safetensors_bytes({"a": entry(shape=[-4])}, bytes(4)), "no valid dtype, shape or data_offsets"),
        (
            safetensors_bytes({"a": entry(offsets=[0])}, bytes(4)),
            "no valid dtype, shape or data_offsets",
        ),
        (
            safetensors_bytes({"a": entry(offsets=[0, 4.0])}, bytes(4)),
            "no valid dtype, shape or data_offsets",
        ),
        (safetensors_bytes({"a": entry(offsets=[4, 0])}, bytes(4)), "ends at byte 0, before it begins (4)"),
        (safetensors_bytes({"a": entry(dtype="F32")}, bytes(4)), "takes 4 bytes, but F32 with shape [4] takes 16"),
        (safetensors_bytes({"a": entry(), "b": entry()}, bytes(4)), "tensor b overlaps the tensor before it"),
        (
            safetensors_bytes({"a": entry(), "b": entry(offsets=[6, 10])}, bytes(10)),
            "tensor b leaves a gap before it (byte 6, not 4)",
        ),
        (safetensors_bytes({"\x1b[2J": entry(offsets=[4, 8])}, bytes(8)), r"tensor \x1b[2J leaves a gap"),
    ],
)
def test_a_damaged_header_is_an_error_that_says_what_is_wrong(model: Path, content: bytes, complaint: str) -> None:
    (model / "model.safetensors").write_bytes(content)
    assert complaint in refusal(model).message


def test_a_dtype_newer_than_this_program_is_left_to_the_server(model: Path) -> None:
    (model / "model.safetensors").write_bytes(safetensors_bytes({"a": entry(dtype="F2_NEW", offsets=[0, 1])}, b"x"))
    assert inspect_weights(model).size == 1


tensor_sets = st.dictionaries(
    st.text(min_size=1, max_size=8),
    st.tuples(st.sampled_from(["BF16", "F32", "U8"]), st.lists(st.integers(0, 5), max_size=3)),
    min_size=1,
    max_size=5,
).filter(lambda tensors: "__metadata__" not in tensors)
in_one_directory = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@in_one_directory
@given(tensors=tensor_sets, cut=st.floats(0, 1, exclude_max=True))
def test_a_file_is_accepted_whole_and_refused_cut_off_at_any_byte(
    tmp_path: Path, tensors: dict[str, tuple[str, list[int]]], cut: float
) -> None:
    path = write_safetensors(tmp_path / "model.safetensors", tensors)
    header = read_safetensors_header(path)
    assert header.size == describe(tensors)[1]
    assert {name: (t.dtype, list(t.shape)) for name, t in header.tensors.items()} == tensors
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * cut)])
    with pytest.raises(CheckpointError):
        read_safetensors_header(path)


@in_one_directory
@given(content=st.binary(max_size=64) | st.binary(max_size=64).map(lambda raw: safetensors_bytes(raw, raw)))
def test_arbitrary_bytes_never_cause_anything_but_a_checkpoint_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_safetensors_header(path)
    assert str(caught.value).isprintable()


@in_one_directory
@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
def test_what_safetensors_itself_accepts_is_never_refused(tmp_path: Path, position: int, value: int) -> None:
    safetensors = pytest.importorskip("safetensors", reason="the library that is compared with is not installed")
    header, size = describe(TENSORS)
    content = bytearray(safetensors_bytes(header, bytes(size)))
    content[position % (len(content) - size)] = value
    try:
        safetensors.deserialize(bytes(content))
    except safetensors.SafetensorError:
        return
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert read_safetensors_header(path).size == size
