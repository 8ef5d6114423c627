"""A checkpoint's chat template is found wherever it stands, and a fault of it is told with that file."""

from pathlib import Path

import pytest

from bundle.checkpoints import inspect_checkpoint, require_chat_template
from bundle.checkpoints.chat_template import find_chat_template, unusable_template
from bundle.errors import TokenizerError
from tests.checkpoints.checkpoints import write_checkpoint, write_json
from tests.checkpoints.tokenizers import CHAT_TEMPLATE


def written(directory: Path, name: str, template: object) -> Path:
    write_checkpoint(directory)
    if name.endswith(".jinja"):
        (directory / name).write_text(str(template))
    else:
        write_json(directory / name, {"chat_template": template})
    return directory


@pytest.mark.parametrize("name", ["tokenizer_config.json", "chat_template.jinja", "chat_template.json"])
@pytest.mark.parametrize("template", [CHAT_TEMPLATE, "{% for"], ids=["usual", "broken"])
def test_it_is_found_wherever_it_stands_and_not_run(tmp_path: Path, name: str, template: str) -> None:
    directory = written(tmp_path, name, template)

    require_chat_template(inspect_checkpoint(directory))

    assert find_chat_template(directory) == (directory / name, template)
    error = unusable_template(directory, "line 1: unexpected end of template")
    assert f"The chat template in {directory / name} cannot be used: line 1: unexpected" in error.message
    assert f"copy {name} from the model that this one was made from" in str(error.remedy)


def test_templates_in_a_directory_of_their_own_are_named_first_since_transformers_prefers_them(tmp_path: Path) -> None:
    written(tmp_path, "tokenizer_config.json", CHAT_TEMPLATE)
    additional = tmp_path / "additional_chat_templates"
    additional.mkdir()
    error = unusable_template(tmp_path, "line 1: unexpected end of template")
    assert f"The chat template in {additional} or {tmp_path / 'tokenizer_config.json'} cannot be used" in error.message
    assert "move additional_chat_templates away" in str(error.remedy)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert f"The chat template in {additional} cannot be used" in unusable_template(tmp_path, "x").message


def test_of_several_the_default_is_used(tmp_path: Path) -> None:
    several = [{"name": "rag", "template": "{{ x"}, {"name": "default", "template": CHAT_TEMPLATE}]
    written(tmp_path, "tokenizer_config.json", several)

    assert find_chat_template(tmp_path) == (tmp_path / "tokenizer_config.json", CHAT_TEMPLATE)


def test_a_file_of_its_own_is_the_template_whatever_the_settings_have(tmp_path: Path) -> None:
    written(tmp_path, "tokenizer_config.json", "{{ broken")
    (tmp_path / "chat_template.jinja").write_text(CHAT_TEMPLATE)

    assert find_chat_template(tmp_path) == (tmp_path / "chat_template.jinja", CHAT_TEMPLATE)


def test_without_one_a_model_cannot_be_asked_to_chat(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="has no chat template") as caught:
        require_chat_template(inspect_checkpoint(write_checkpoint(tmp_path)))
    assert "--prompt-shape plain" in str(caught.value.remedy)
