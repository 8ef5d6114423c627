"""A chat template that cannot be one is found before anything is started, and the file it stands in is named."""

from pathlib import Path

import pytest

from bundle.checkpoints import has_chat_template, inspect_checkpoint, require_chat_template
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
@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{% for m in messages %}{{ m.content ", "line 1: unexpected end of template"),
        ("x\n{% endfor %}", "line 2: Encountered unknown tag 'endfor'"),
        ("hello", "it does not use the messages, so every prompt would be the same"),
        ("{{ raise_exception('no system') }}", "it does not use the messages"),
        ("{{ " + "(" * 5000 + "messages" + ")" * 5000 + " }}", "it is nested too deeply"),
    ],
)
def test_what_cannot_be_a_template_of_messages_is_an_error(tmp_path: Path, name: str, template: str, told: str) -> None:
    checkpoint = inspect_checkpoint(written(tmp_path, name, template))
    assert has_chat_template(checkpoint)
    with pytest.raises(TokenizerError) as caught:
        require_chat_template(checkpoint)
    assert f"The chat template in {tmp_path / name} cannot be used: {told}" in caught.value.message
    assert f"copy {name} from the model that this one was made from" in str(caught.value.remedy)


@pytest.mark.parametrize(
    "template",
    [
        CHAT_TEMPLATE,
        "{%- for m in messages %}{% generation %}{{ m.content | tojson }}{% endgeneration %}{% break %}{% endfor %}",
        [{"name": "rag", "template": "{{ x"}, {"name": "default", "template": CHAT_TEMPLATE}],
        "{{ '" + "x" * 1_000_001 + "' }}",
    ],
    ids=["usual", "tags of transformers' own", "several", "too long to be parsed"],
)
def test_any_other_is_left_to_the_tokenizers_probe(tmp_path: Path, template: object) -> None:
    require_chat_template(inspect_checkpoint(written(tmp_path, "tokenizer_config.json", template)))


def test_a_file_of_its_own_is_the_template_whatever_the_settings_have(tmp_path: Path) -> None:
    written(tmp_path, "tokenizer_config.json", "{{ broken")
    (tmp_path / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    require_chat_template(inspect_checkpoint(tmp_path))
