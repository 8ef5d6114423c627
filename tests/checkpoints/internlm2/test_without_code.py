"""An InternLM2 checkpoint is served without any of its own code."""

import json
import shutil
from pathlib import Path

import pytest

from bundle.checkpoints import inspect_checkpoint
from bundle.checkpoints.internlm2 import without_code
from bundle.checkpoints.internlm2.rewrite import CONFIGURATION, configuration_code
from bundle.errors import CheckpointError
from tests.checkpoints.checkpoints import write_json

REAL = Path(__file__).parents[4] / "shared" / "internlm2_tokenizer"
CODE = {
    "config.json": {
        "AutoConfig": "configuration_internlm2.InternLM2Config",
        "AutoModelForCausalLM": "modeling_internlm2.InternLM2ForCausalLM",
    },
    "tokenizer_config.json": {
        "AutoTokenizer": [
            "tokenization_internlm2.InternLM2Tokenizer",
            "tokenization_internlm2_fast.InternLM2TokenizerFast",
        ]
    },
}
FILES = ("configuration_internlm2", "modeling_internlm2", "tokenization_internlm2", "tokenization_internlm2_fast")


@pytest.fixture
def published(tmp_path: Path, tiny: Path) -> Path:
    """A checkpoint laid out as the published ones are, whose code must never run."""
    directory = shutil.copytree(tiny, tmp_path / "internlm2_5-1_8b-chat")
    for name, auto_map in CODE.items():
        content = json.loads((directory / name).read_bytes())
        write_json(directory / name, {**content, "auto_map": auto_map})
    for name in FILES:
        (directory / f"{name}.py").write_text("raise SystemExit('this must not run')\n")
    (directory / "tokenizer.json").unlink()
    return directory


def test_the_directory_holds_our_configuration_class_and_no_other_code(published: Path, tmp_path: Path) -> None:
    made = without_code(published, tmp_path / "cache")

    checkpoint = inspect_checkpoint(made)
    assert [path.name for path in made.glob("*.py")] == list(checkpoint.remote_code_names) == [CONFIGURATION]
    assert (made / CONFIGURATION).read_bytes() == configuration_code()
    assert "auto_map" not in json.loads((made / "tokenizer_config.json").read_bytes())
    assert checkpoint.architecture == "InternLM2ForCausalLM"
    assert checkpoint.weights_unchecked is None


def test_it_says_what_the_checkpoint_says(published: Path, tmp_path: Path) -> None:
    made = without_code(published, tmp_path / "cache")
    theirs, ours = (json.loads((path / "config.json").read_bytes()) for path in (published, made))
    assert {**ours, "auto_map": None} == {**theirs, "auto_map": None}
    theirs, ours = (json.loads((path / "tokenizer_config.json").read_bytes()) for path in (published, made))
    assert ours["chat_template"] == theirs["chat_template"]


def test_its_weights_are_links_and_count_for_nothing_in_the_cache(published: Path, tmp_path: Path) -> None:
    made = without_code(published, tmp_path / "cache")
    (weights,) = made.glob("*.safetensors")
    assert weights.readlink() == published / weights.name


def test_where_config_json_is_silent_the_defaults_are_internlm2s_own(published: Path, tmp_path: Path) -> None:
    content = json.loads((published / "config.json").read_bytes())
    for name in ("bias", "rope_theta"):
        content.pop(name, None)
    write_json(published / "config.json", content)
    config = json.loads((without_code(published, tmp_path / "cache") / "config.json").read_bytes())
    assert (config["bias"], config["rope_theta"]) == (True, 10000)


def test_it_is_made_once_and_anew_when_a_file_it_follows_from_changes(published: Path, tmp_path: Path) -> None:
    said: list[str] = []
    first = without_code(published, tmp_path / "cache", say=said.append)
    assert without_code(published, tmp_path / "cache", say=said.append) == first
    assert len(said) == 1
    (published / "chat_template.jinja").write_text("{{ messages }}")
    assert without_code(published, tmp_path / "cache") != first


def test_a_copy_elsewhere_is_linked_to_its_own_weights(published: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(published, tmp_path / "copy")
    assert without_code(copy, tmp_path / "cache") != without_code(published, tmp_path / "cache")


def test_a_tokenizer_that_needs_the_code_is_an_error_with_the_way_out(published: Path, tmp_path: Path) -> None:
    (published / "tokenizer.model").write_bytes(b"\x00")
    with pytest.raises(CheckpointError, match="cannot be served without its Python code") as caught:
        without_code(published, tmp_path / "cache")
    assert "--trust-remote-code" in str(caught.value.remedy)


@pytest.mark.skipif(not REAL.is_dir(), reason="InternLM2's own vocabulary is not here")
def test_internlm2s_own_vocabulary_is_converted(published: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copyfile(REAL / name, published / name)
    (published / "special_tokens_map.json").unlink()
    config = json.loads((published / "config.json").read_bytes())
    write_json(published / "config.json", {**config, "vocab_size": 92544})
    made = without_code(published, tmp_path / "cache")
    assert {path.name for path in made.iterdir()} >= {"tokenizer.json", "tokenizer_config.json", "config.json"}
