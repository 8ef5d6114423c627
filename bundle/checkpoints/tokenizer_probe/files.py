"""What a checkpoint's files say of its tokenizer."""

from __future__ import annotations

import json
import os
from typing import Any


def read_json(directory: str | os.PathLike[str], name: str) -> dict[str, Any]:
    """A JSON object, empty if the file does not exist."""
    try:
        with open(os.path.join(directory, name), encoding="utf-8") as file:  # noqa: PTH118, PTH123
            value = json.load(file)
    except FileNotFoundError:
        return {}
    return value if isinstance(value, dict) else {}


def declared_tokens(directory: str | os.PathLike[str]) -> dict[int, dict[str, Any]]:
    """The added tokens that the checkpoint's files declare, by id: ``content`` and flags.

    The first of these that says anything: tokenizer_config.json's ``added_tokens_decoder``, tokenizer.json's
    ``added_tokens`` (all there is when transformers 5 wrote the files), added_tokens.json.
    """
    decoder = read_json(directory, "tokenizer_config.json").get("added_tokens_decoder")
    if decoder:
        return {int(token): dict(entry) for token, entry in decoder.items()}
    added = read_json(directory, "tokenizer.json").get("added_tokens")
    if added:
        return {int(entry["id"]): dict(entry) for entry in added}
    return {int(token): {"content": content} for content, token in read_json(directory, "added_tokens.json").items()}


def brings_code(directory: str) -> bool:
    """Whether the checkpoint comes with code for its tokenizer, which may want any module."""
    try:
        with open(os.path.join(directory, "tokenizer_config.json"), encoding="utf-8") as file:  # noqa: PTH118, PTH123
            return "auto_map" in json.load(file)
    except (OSError, ValueError, TypeError):
        return True  # whatever is wrong there, transformers will say
