"""A checkpoint's chat template: where it stands.

It is a program, so it is rendered only by the probe of the tokenizer, within bounds.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bundle.checkpoints._files import TEMPLATES, list_names, read_json_object, read_whole, shown
from bundle.errors import TokenizerError

if TYPE_CHECKING:
    from bundle.checkpoints.inspection import Checkpoint

_ELSEWHERE: Final = (TEMPLATES, "tekken.json")
# Some bring it in Python: an attribute of the tokenizer's class, or a method of it. Code that uses one is everywhere.
_IN_CODE: Final = re.compile(
    rb"\bdef\s+(?:default_|apply_)?chat_template\b|^[ \t]*(?:\w+\.)?chat_template[ \t]*(?::[^=\n]*)?=(?!=)",
    re.MULTILINE,
)


def find_chat_template(directory: Path) -> tuple[Path, str] | None:
    """The file that a directory's chat template stands in, and its text; None if none is written there.

    Raises CheckpointError if the file cannot be read.
    """
    names = list_names(directory)
    if "chat_template.jinja" in names:
        path = directory / "chat_template.jinja"
        return path, read_whole(path).decode("utf-8", "replace")
    for name in ("tokenizer_config.json", "chat_template.json"):
        template = read_json_object(directory / name).get("chat_template") if name in names else None
        if isinstance(template, list):  # several, by name
            named = {one.get("name"): one.get("template") for one in template if isinstance(one, dict)}
            template = named.get("default", next(iter(named.values()), None))
        if template and isinstance(template, str):
            return directory / name, template
    return None


def has_chat_template(checkpoint: "Checkpoint") -> bool:
    """Whether a checkpoint says how a chat becomes a prompt; a base model's does not.

    Raises CheckpointError if a file cannot be read.
    """
    if find_chat_template(checkpoint.path) or not set(_ELSEWHERE).isdisjoint(list_names(checkpoint.path)):
        return True
    return any(_IN_CODE.search(file.read_bytes()) for file in checkpoint.remote_code)


def require_chat_template(checkpoint: "Checkpoint") -> None:
    """Check that a checkpoint can be asked as a chat model. Raises TokenizerError if it has no chat template."""
    if not has_chat_template(checkpoint):
        raise TokenizerError(
            f"{shown(checkpoint.path)} has no chat template, so it cannot be asked as a chat model.",
            remedy="Ask it as the base model it looks like (--prompt-shape plain), name the chat or instruct model's "
            "directory, or copy chat_template from its tokenizer_config.json.",
        )


def unusable_template(directory: Path, fault: str) -> TokenizerError:
    """The error for a chat template with a fault."""
    found = find_chat_template(directory)
    where, copied = (directory, "the tokenizer's files") if found is None else (found[0], found[0].name)
    places, further = [where], ""
    if TEMPLATES in list_names(directory):
        places = [directory / TEMPLATES, *([] if found is None else places)]
        further = (
            f"move {TEMPLATES} away (transformers prefers it to tokenizer_config.json, and default.jinja there to "
        )
        further += "every other file), "
    return TokenizerError(
        f"The chat template in {' or '.join(map(shown, places))} cannot be used: {shown(fault, 900)}.",
        remedy=f"Correct it, {further}copy {copied} from the model that this one was made from, or give another with "
        "`-- --chat-template FILE`; --prompt-shape plain asks without a template.",
    )
