"""Model files and task files."""

import hashlib
from pathlib import Path

import pytest

from bundle.checkpoints.internlm2.rewrite import configuration_code
from bundle.config.files import file_names
from bundle.config.model_files import ModelFile, model_file, model_file_for
from bundle.errors import ConfigError
from bundle.tasks.catalog import find_task


def test_every_file_that_ships_can_be_used() -> None:
    assert [find_task(name).name for name in file_names("configs")] == file_names("configs")
    assert all(model_file(name).description for name in file_names("models"))


def test_internlm2_checkpoints_are_served_with_a_file_that_trusts_no_code_but_our_own() -> None:
    name, file = model_file_for("InternLM2ForCausalLM")
    assert name == "internlm2_5-1_8b"
    assert not file.trust_remote_code
    assert file.trusted_code == (hashlib.sha256(configuration_code()).hexdigest(),)


def test_an_unknown_architecture_has_an_empty_file() -> None:
    assert model_file_for("Qwen3ForCausalLM") == ("none", ModelFile(description="Qwen3ForCausalLM"))


def test_a_mistyped_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean ceval_gen"):
        find_task("ceval_gne")


def test_another_benchmark_s_name_is_answered_with_the_tasks_there_are() -> None:
    with pytest.raises(ConfigError) as caught:
        find_task("mmlu")
    assert caught.value.message.startswith("There is no task mmlu; there are ceval_gen, ")
    assert "Did you mean" not in str(caught.value)


def test_a_mistyped_key_is_answered_with_file_key_and_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('description = "x"\n[sampling]\ntemprature = 1\n')
    with pytest.raises(ConfigError, match=r"mine\.toml.*'sampling.temprature'. Did you mean temperature"):
        model_file(str(path))


def test_a_value_of_the_wrong_kind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('description = "x"\n[sampling]\ntemperature = "hot"\n')
    with pytest.raises(ConfigError, match=r"mine\.toml.*sampling\.temperature"):
        model_file(str(path))


def test_broken_toml_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("description = \n")
    with pytest.raises(ConfigError, match="line 1"):
        model_file(str(path))


def test_a_path_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigError, match=r"no file nowhere/x\.toml"):
        find_task("nowhere/x.toml")
