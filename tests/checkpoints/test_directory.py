"""What is said to somebody who gave something else than a checkpoint's directory."""

import os
from pathlib import Path

import pytest

from bundle.checkpoints import inspect_checkpoint
from bundle.errors import CheckpointError
from tests.checkpoints.checkpoints import write_checkpoint, write_json


def refusal(path: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        inspect_checkpoint(path)
    assert caught.value.remedy, "an error without a remedy leaves the user alone"
    return caught.value


def test_a_path_that_is_not_there_is_an_error_that_offers_similar_names(tmp_path: Path) -> None:
    (tmp_path / "internlm2_5-1_8b-chat").mkdir()
    error = refusal(tmp_path / "internlm2.5-1_8b-chat")
    assert "does not exist" in error.message
    assert str(tmp_path / "internlm2_5-1_8b-chat") in str(error.remedy)


def test_a_path_whose_parent_is_not_there_either_is_told_where_it_stops(tmp_path: Path) -> None:
    error = refusal(tmp_path / "nowhere" / "model")
    assert f'{tmp_path} exists, but does not contain "nowhere"' in str(error.remedy)


def test_the_name_of_a_model_on_a_hub_is_met_with_how_to_download_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    error = refusal(Path("internlm/internlm2_5-1_8b-chat"))
    assert "name of a model on the Hub" in error.message
    assert "hf download internlm/internlm2_5-1_8b-chat --local-dir internlm2_5-1_8b-chat" in str(error.remedy)
    assert "modelscope download --model internlm/internlm2_5-1_8b-chat" in str(error.remedy)


def test_a_relative_path_is_not_taken_for_a_hub_name_where_its_first_part_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    assert "Hub" not in refusal(Path("models/mine")).message


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "config.json"])
def test_a_file_of_a_checkpoint_is_met_with_its_directory(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    error = refusal(tmp_path / name)
    assert "is a file, not a directory" in error.message
    assert str(tmp_path) in str(error.remedy)


def test_a_gguf_file_or_directory_is_called_that(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert "is a GGUF file" in refusal(tmp_path / "model.gguf").message
    assert "holds GGUF files" in refusal(tmp_path).message


def test_an_empty_directory_is_an_error(tmp_path: Path) -> None:
    assert "is empty" in refusal(tmp_path).message


def test_a_dangling_link_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("gone")
    assert "is a link to gone, which does not exist" in refusal(tmp_path / "link").message


def test_a_link_to_itself_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("link")
    assert "Too many levels of symbolic links" in refusal(tmp_path / "link").message


def test_a_name_longer_than_the_system_allows_is_an_error_of_bounded_length(tmp_path: Path) -> None:
    error = refusal(tmp_path / ("a" * 5000))
    assert "File name too long" in error.message
    assert len(str(error)) < 1000


def test_control_characters_in_a_path_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "evil\x1b[2J\nmodel\u202e"
    path.mkdir()
    message = str(refusal(path))
    assert r"evil\x1b[2J\nmodel\u202e" in message
    assert message.isprintable()


def test_the_only_subdirectory_with_a_config_json_is_suggested(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "inner")
    (tmp_path / "other").mkdir()
    error = refusal(tmp_path)
    assert "has no config.json, but a directory in it has" in error.message
    assert str(error.remedy) == f"Give {tmp_path / 'inner'}."


def test_several_subdirectories_are_listed_three_at_most(tmp_path: Path) -> None:
    for number in range(5):
        write_checkpoint(tmp_path / f"checkpoint-{number}00")
    remedy = str(refusal(tmp_path).remedy)
    assert "checkpoint-400" in remedy
    assert "checkpoint-200 and 2 more" in remedy
    assert "checkpoint-100" not in remedy


def test_in_a_hub_cache_the_newest_snapshot_is_suggested(tmp_path: Path) -> None:
    model = tmp_path / "models--internlm--internlm2_5-1_8b-chat"
    for number, name in enumerate(["aaaa", "cccc", "bbbb"]):
        snapshot = write_checkpoint(model / "snapshots" / name)
        os.utime(snapshot, (1_000_000 + number, 1_000_000 + number))
    (model / "blobs").mkdir()
    for given in (model, tmp_path):
        assert str(refusal(given).remedy) == f"Give {model / 'snapshots' / 'bbbb'}."


@pytest.mark.parametrize(
    ("names", "complaint", "remedy"),
    [
        (["adapter_config.json", "adapter_model.safetensors"], "holds a LoRA adapter", "--adapter "),
        (["triton_models/weights/config.yaml"], "is a TurboMind workspace", "cannot inspect it"),
        (["params.json", "consolidated.00.pth"], "publisher's own format", "Convert them"),
        (["README.md", "model.safetensors"], "has no config.json. It holds README.md, model.safetensors", "download"),
        (["model.safetensors.incomplete", "config.json"], "has not finished: model.safetensors.incomplete", "Wait"),
    ],
)
def test_a_directory_that_holds_something_else_is_called_what_it_is(
    tmp_path: Path, names: list[str], complaint: str, remedy: str
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_json(tmp_path / name, {})
    error = refusal(tmp_path)
    assert complaint in error.message
    assert remedy in str(error.remedy)


@pytest.mark.parametrize("weights", ["adapter_model.safetensors", "adapter_model.bin"])
def test_a_whole_model_with_an_adapter_beside_it_is_refused(tmp_path: Path, weights: str) -> None:
    model = write_checkpoint(tmp_path / "my model")
    write_json(model / "adapter_config.json", {"peft_type": "LORA"})
    inspect_checkpoint(model)  # merged
    (model / weights).touch()
    error = refusal(model)
    assert f"a LoRA adapter beside it ({weights})" in error.message
    assert f"`bundle eval-local '{model}' --adapter ADAPTER_DIR`" in str(error.remedy)
    (model / "adapter_config.json").unlink()
    assert refusal(model).message == error.message


def test_a_mistyped_directory_is_answered_with_the_nearest_as_it_would_be_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sft-2000").mkdir()
    monkeypatch.chdir(tmp_path)
    assert refusal(Path("sft-200")).remedy == "Did you mean sft-2000?"
    assert refusal(tmp_path / "sft-200").remedy == f"Did you mean {tmp_path / 'sft-2000'}?"
