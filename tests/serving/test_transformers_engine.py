"""What a checkpoint looks like to ``transformers serve``."""

import json
from pathlib import Path
from typing import Any

import pytest

from bundle.serving.transformers_engine import _hub_view, _only_ids, _unparsed_replies
from tests.checkpoints.checkpoints import write_json


def checkpoint(directory: Path, model_type: str, **settings: Any) -> Path:
    directory.mkdir()
    write_json(directory / "config.json", {"model_type": model_type, "eos_token_id": 7})
    write_json(directory / "generation_config.json", {"eos_token_id": [7, 8]})
    tokens = {"7": {"content": "<｜end▁of▁sentence｜>"}, "9": {"content": "<think>"}}
    write_json(
        directory / "tokenizer_config.json",
        {"added_tokens_decoder": tokens, "chat_template": "{{ messages }}", **settings},
    )
    return directory


def test_qwens_models_get_their_replies_unparsed(tmp_path: Path) -> None:
    directory = checkpoint(tmp_path / "model", "qwen2")

    view = _hub_view(directory, "local/model", tmp_path / "cache", _unparsed_replies(directory))

    (snapshot,) = view.glob("models--local--model/snapshots/*")
    own = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert json.loads((snapshot / "tokenizer_config.json").read_text(encoding="utf-8")) == {
        **own,
        "response_template": {
            "start_anchor_pattern": r"\Z",
            "fields": {"content": {"content": "text", "close": ["<｜end▁of▁sentence｜>"]}},
        },
    }
    assert "response_template" not in own
    assert (snapshot / "config.json").is_symlink()


@pytest.mark.parametrize(
    ("model_type", "settings"), [("llama", {}), ("qwen2", {"response_template": {"start_anchor": "x"}})]
)
def test_any_other_is_served_as_it_is(tmp_path: Path, model_type: str, settings: dict[str, Any]) -> None:
    directory = checkpoint(tmp_path / "model", model_type, **settings)

    view = _hub_view(directory, "local/model", tmp_path / "cache", _unparsed_replies(directory))

    assert all(path.is_symlink() for path in view.glob("models--local--model/snapshots/*/*"))


def test_an_adapter_that_was_merged_where_it_stood_is_not_loaded_again(tmp_path: Path) -> None:
    directory = checkpoint(tmp_path / "model", "llama")
    write_json(directory / "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "base"})

    view = _hub_view(directory, "local/model", tmp_path / "cache", {})

    assert not list(view.glob("models--local--model/snapshots/*/adapter_config.json"))


def test_what_a_checkpoint_says_about_sampling_changes_no_reply(tmp_path: Path) -> None:
    directory = checkpoint(tmp_path / "model", "qwen2")
    ids = {"eos_token_id": [7, 8], "pad_token_id": 8}
    sampling = {"repetition_penalty": 1.1, "no_repeat_ngram_size": 3, "min_new_tokens": 5, "forced_eos_token_id": 8}
    write_json(directory / "generation_config.json", {**ids, **sampling, "suppress_tokens": [9]})

    view = _hub_view(directory, "local/model", tmp_path / "cache", _only_ids(directory))

    (snapshot,) = view.glob("models--local--model/snapshots/*")
    assert json.loads((snapshot / "generation_config.json").read_bytes()) == ids


def test_sampling_that_a_config_json_tells_in_its_place_changes_no_reply_either(tmp_path: Path) -> None:
    directory = checkpoint(tmp_path / "model", "llama")
    (directory / "generation_config.json").unlink()
    write_json(directory / "config.json", {"eos_token_id": 7, "repetition_penalty": 1.3, "vocab_size": 9})
    assert _only_ids(directory) == {"generation_config.json": {"eos_token_id": 7}}


def test_whatever_a_file_of_the_checkpoint_names_as_an_end_ends_a_reply(tmp_path: Path) -> None:
    directory = checkpoint(tmp_path / "model", "llama", eos_token={"content": "<think>"})
    write_json(directory / "generation_config.json", {"eos_token_id": 8, "top_p": 0.8})
    assert _only_ids(directory) == {"generation_config.json": {"eos_token_id": [8, 7, 9]}}
