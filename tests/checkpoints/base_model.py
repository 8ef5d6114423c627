"""A made checkpoint without its chat template, as a base model comes."""

import json
import shutil
from pathlib import Path


def base_model(chat: Path, directory: Path) -> Path:
    """A copy of ``chat`` in ``directory`` that has no chat template."""
    shutil.copytree(chat, directory)
    path = directory / "tokenizer_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["chat_template"]
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return directory
