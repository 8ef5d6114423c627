"""Python code in a checkpoint is found and named, and does not run without leave."""

import hashlib
from pathlib import Path

import pytest

from bundle.checkpoints import inspect_checkpoint, require_trust
from bundle.errors import CheckpointError
from tests.checkpoints.checkpoints import CONFIG, write_checkpoint, write_json


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A checkpoint laid out as InternLM2.5's is."""
    directory = write_checkpoint(tmp_path / "model")
    auto_map = {
        "AutoConfig": "configuration_internlm2.InternLM2Config",
        "AutoModelForCausalLM": "modeling_internlm2.InternLM2ForCausalLM",
    }
    write_json(directory / "config.json", {**CONFIG, "auto_map": auto_map})
    pair = ["tokenization_internlm2.InternLM2Tokenizer", "tokenization_internlm2_fast.InternLM2TokenizerFast"]
    write_json(directory / "tokenizer_config.json", {"auto_map": {"AutoTokenizer": pair}})
    (directory / "configuration_internlm2.py").write_text("import os\n")
    (directory / "modeling_internlm2.py").write_text("from .configuration_internlm2 import InternLM2Config\n")
    (directory / "tokenization_internlm2.py").write_text("from transformers import PreTrainedTokenizer\n")
    (directory / "tokenization_internlm2_fast.py").write_text("from .tokenization_internlm2 import VOCAB\n")
    (directory / "never_run.py").write_text("raise SystemExit\n")
    return directory


def names(directory: Path) -> tuple[str, ...]:
    return inspect_checkpoint(directory).remote_code_names


def test_every_file_that_would_run_is_named_once_and_no_other(model: Path) -> None:
    assert names(model) == (
        "configuration_internlm2.py",
        "modeling_internlm2.py",
        "tokenization_internlm2.py",
        "tokenization_internlm2_fast.py",
    )
    assert all(file.is_absolute() and file.is_file() for file in inspect_checkpoint(model).remote_code)


def test_files_that_those_import_from_beside_them_are_named_as_well(model: Path) -> None:
    (model / "modeling_internlm2.py").write_text(
        "from . import layers\ntry:\n    from .kernels.fast import attention\nexcept ImportError:\n    pass\n"
        "from .gone import nothing\nfrom transformers import PreTrainedModel\n"
    )
    (model / "kernels").mkdir()
    (model / "kernels" / "fast.py").write_text("from .slow import attention\n")
    (model / "kernels" / "slow.py").write_text("from .fast import attention\n")
    (model / "layers.py").write_text("")
    assert {"layers.py", "kernels/fast.py", "kernels/slow.py"} < set(names(model))


def test_without_leave_the_code_is_refused_and_the_remedy_tells_how_to_give_leave(model: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        require_trust(inspect_checkpoint(model), trusted=False)
    assert "would run Python code from that directory (configuration_internlm2.py, modeling_in" in caught.value.message
    assert "--trust-remote-code" in str(caught.value.remedy)
    assert "trust_remote_code = true in the model's file in models/" in str(caught.value.remedy)
    assert str(model / "tokenization_internlm2_fast.py") in caught.value.details


def test_with_leave_the_code_is_accepted(model: Path) -> None:
    require_trust(inspect_checkpoint(model), trusted=True)


def test_a_checkpoint_without_code_needs_no_leave(tmp_path: Path) -> None:
    checkpoint = inspect_checkpoint(write_checkpoint(tmp_path / "plain"))
    assert checkpoint.remote_code == ()
    require_trust(checkpoint, trusted=False)


def test_code_of_another_repository_is_refused_whatever_the_user_trusts(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "model")
    auto_map = {"AutoModelForCausalLM": "internlm/internlm2-7b--modeling_internlm2.InternLM2ForCausalLM"}
    write_json(directory / "config.json", {**CONFIG, "auto_map": auto_map})
    with pytest.raises(CheckpointError, match="needs code from another repository") as caught:
        inspect_checkpoint(directory)
    assert "never downloaded or run" in caught.value.message
    assert "copy modeling_internlm2.py into the checkpoint's directory" in str(caught.value.remedy)


def test_code_is_known_by_its_digest_and_every_file_must_be(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "model")
    (directory / "code.py").write_text("from .other import x")
    (directory / "other.py").write_text("x = 1")
    write_json(directory / "config.json", {**CONFIG, "auto_map": {"AutoConfig": "code.Config"}})
    checkpoint = inspect_checkpoint(directory)
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in checkpoint.remote_code]
    assert checkpoint.is_known_code(digests)
    assert not checkpoint.is_known_code(digests[:1])
    (directory / "other.py").write_text("x = 2")
    assert not checkpoint.is_known_code(digests)


@pytest.mark.parametrize("file", ["tokenizer_config.json", "generation_config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("auto_map", [{"AutoAny": "code.Any"}, {"AutoAny": [None, "code.Any"]}, ["code.Any", None]])
def test_auto_map_is_followed_in_every_configuration_file_and_form(tmp_path: Path, file: str, auto_map: object) -> None:
    directory = write_checkpoint(tmp_path / "model")
    (directory / "code.py").write_text("")
    write_json(directory / file, {"auto_map": auto_map})
    assert names(directory) == ("code.py",)


def test_code_that_is_named_but_not_there_is_an_error(model: Path) -> None:
    (model / "modeling_internlm2.py").unlink()
    with pytest.raises(CheckpointError, match=r"refers to modeling_internlm2\.py .*which does not exist"):
        inspect_checkpoint(model)


@pytest.mark.parametrize("reference", ["Class", "", "../evil.Class", "a b.Class", 7, "/etc/evil.Class", "a..b", {}])
def test_an_auto_map_entry_that_names_no_class_is_an_error(model: Path, reference: object) -> None:
    write_json(model / "config.json", {**CONFIG, "auto_map": {"AutoConfig": reference}})
    with pytest.raises(CheckpointError, match=r"config\.json has an invalid auto_map entry"):
        inspect_checkpoint(model)
