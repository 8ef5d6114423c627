"""Files that would hang, fill the memory or break a reader: each is an error, and soon."""

import json
import os
import shutil
from pathlib import Path

import pytest

from bundle.checkpoints import inspect_checkpoint, token_counter
from bundle.checkpoints.internlm2 import rewrite_as_llama
from bundle.config.files import read_file
from bundle.config.model_files import ModelFile, model_file
from bundle.errors import BundleError, CheckpointError, ConfigError, DataError, TokenizerError
from bundle.tasks.catalog import find_task
from bundle.tasks.sources.modelscope import load_from_modelscope
from tests.checkpoints.checkpoints import write_checkpoint
from tests.tasks.source_files import CEVAL

TASK = 'description = "x"\n[rows]\nfile = "rows.csv"\n[prompt]\nuser = "{question}"\n[answer]\nrule = "first_option"\n'


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny, tmp_path / "model")
    return tmp_path / "model"


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def rewriting(model: Path) -> BundleError:
    with pytest.raises(BundleError) as caught:
        rewrite_as_llama(model, model.parent / "cache")
    assert caught.value.remedy
    return caught.value


def test_a_fifo_as_a_model_file_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.toml")
    with pytest.raises(ConfigError, match="is a pipe, a device or a socket"):
        model_file(str(tmp_path / "model.toml"))


def test_a_fifo_as_a_tasks_rows_does_not_block(tmp_path: Path) -> None:
    (tmp_path / "task.toml").write_text(TASK)
    os.mkfifo(tmp_path / "rows.csv")
    with pytest.raises(DataError, match="is a pipe, a device or a socket"):
        find_task(str(tmp_path / "task.toml"))


def test_a_toml_file_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "model.toml").open("wb") as file:
        file.truncate(10**12)  # a hole, it takes no space
    with pytest.raises(ConfigError, match="is larger than"):
        model_file(str(tmp_path / "model.toml"))


def test_a_toml_file_that_begins_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_bytes(b'\xef\xbb\xbfdescription = "from Windows"\r\n')
    assert read_file(tmp_path / "model.toml", ModelFile).description == "from Windows"


def test_a_toml_file_in_another_encoding_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_bytes('\ndescription = "模型"'.encode("gbk"))
    with pytest.raises(ConfigError, match=r"model\.toml, line 2: not UTF-8") as caught:
        model_file(str(tmp_path / "model.toml"))
    assert caught.value.remedy == "Save the file as UTF-8."


def test_a_table_with_very_many_columns_is_refused_as_soon_as_one_with_few(tmp_path: Path) -> None:
    (tmp_path / "task.toml").write_text(TASK)
    columns = ",".join(f"c{number}" for number in range(100_000))
    (tmp_path / "rows.csv").write_text(f"{columns}\n{columns}\n")
    with pytest.raises(DataError, match=r"it has 'c0', .* and 99980 more") as caught:
        find_task(str(tmp_path / "task.toml"))
    assert len(str(caught.value)) < 1000


def test_the_last_of_two_equal_keys_of_a_configuration_counts_as_it_does_for_the_engines(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "model")
    (directory / "config.json").write_text('{"architectures": ["A"], "vocab_size": 1, "architectures": ["B"]}')
    assert inspect_checkpoint(directory).architecture == "B"


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model", "tokenizer_config.json"])
def test_a_tokenizer_of_absurd_size_is_not_read(name: str, tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "model")
    with (directory / name).open("r+b" if (directory / name).exists() else "wb") as file:
        file.truncate(10**12)
    with pytest.raises(CheckpointError, match="too large for a file of that name"):
        inspect_checkpoint(directory)


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors", "config.json"])
def test_a_fifo_as_a_checkpoints_file_does_not_block(name: str, tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "model")
    (directory / name).unlink()
    os.mkfifo(directory / name)
    with pytest.raises(CheckpointError, match="is not a regular file"):
        inspect_checkpoint(directory)


def test_a_model_of_a_billion_layers_is_refused_before_they_are_counted(model: Path) -> None:
    change(model / "config.json", num_hidden_layers=10**9)
    assert "num_hidden_layers must be a positive integer of at most 10,000" in rewriting(model).message


def test_half_a_character_in_a_configuration_is_refused_before_it_is_copied(model: Path) -> None:
    change(model / "generation_config.json", name="\ud800")
    assert "generation_config.json is not valid JSON" in rewriting(model).message


def test_a_vocabulary_that_sentencepiece_refuses_is_an_error_of_the_tokenizer(model: Path) -> None:
    vocabulary = model / "tokenizer.model"
    vocabulary.write_bytes(vocabulary.read_bytes().replace(b"<0x24>", b"<ix24>"))
    assert "sentencepiece cannot read" in rewriting(model).message


def test_a_vocabulary_that_cannot_be_counted_with_is_an_error_of_the_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").write_text("{}")
    count = token_counter(inspect_checkpoint(model).path)
    assert count is not None
    with pytest.raises(TokenizerError, match="prompts cannot be measured"):
        count([{"role": "user", "content": "a text"}])


def test_a_password_in_the_address_of_modelscope_is_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path))
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "https://me:secret@mirror.example")
    said: list[str] = []
    with pytest.raises(DataError) as caught:
        load_from_modelscope(CEVAL, [("law", "val")], said.append)
    assert "secret" not in str(caught.value) + "".join(said)
