"""The Python code that loading a checkpoint would run, found without running it.

``auto_map`` in a configuration file maps an auto class to ``module.Class``, to ``owner/repo--module.Class`` for code in
another repository, or, for tokenizers, to a pair of a slow and a fast class, either of which may be null
(transformers' ``dynamic_module_utils``).
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from bundle.checkpoints._files import reading, shown
from bundle.errors import CheckpointError
from bundle.system.files import read_regular

CODE_CONFIGS: Final = (
    "config.json",
    "tokenizer_config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)
"""The files whose ``auto_map`` transformers follows."""

_REFERENCE: Final = re.compile(r"(?:(?P<repo>[\w.-]+(?:/[\w.-]+)?)--)?(?P<module>\w+(?:\.\w+)*)\.(?P<cls>\w+)")
# As transformers finds the files that a module needs: anywhere in the text, conditional imports included.
# Nothing is tried twice, or a file of blank lines would take hours.
_RELATIVE_IMPORT: Final = re.compile(
    r"^[ \t]*+(?:from[ \t]++\.([\w.]*+)[ \t]++import[ \t]++(.++)|import[ \t]++\.([\w.]++))", re.MULTILINE
)
_CODE_LIMIT: Final = 16 * 2**20


def find_remote_code(directory: Path, configs: Mapping[str, Mapping[str, Any]]) -> tuple[Path, ...]:
    """The Python files that transformers would run, each with the files beside it that it imports, as absolute paths.

    ``configs`` has the contents of those of ``CODE_CONFIGS`` that exist, by file name. Raises CheckpointError if an
    ``auto_map`` is malformed, or refers to a module that does not exist or is another repository's.
    """
    found: dict[Path, None] = {}
    for name, config in configs.items():
        for reference in _references(config.get("auto_map")):
            match = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
            if match is None:
                raise CheckpointError(
                    f"{shown(directory / name)} has an invalid auto_map entry: {shown(reference)}.",
                    remedy="It should be module.Class. Fix it, or download the file again.",
                )
            relative = match["module"].replace(".", "/") + ".py"
            if match["repo"] is not None:
                raise CheckpointError(
                    f"{shown(directory / name)} needs code from another repository (auto_map: {shown(reference)}), "
                    "which is never downloaded or run.",
                    remedy=f"Read that code. If you trust it, copy {shown(relative)} into the checkpoint's directory, "
                    f"and take {shown(match['repo'])}-- out of the auto_map.",
                )
            module = directory / relative
            if not module.is_file():
                raise CheckpointError(
                    f"{shown(directory / name)} refers to {shown(relative)} (auto_map), which does not exist.",
                    remedy="Download the checkpoint's .py files as well.",
                )
            _follow(module, directory, found)
    return tuple(found)


def _references(auto_map: object) -> Iterator[object]:
    """Every class reference in an ``auto_map``; tokenizer configurations once held the pair itself, without a name."""
    values = list(auto_map.values()) if isinstance(auto_map, dict) else [auto_map]
    for value in values:
        yield from (item for item in (value if isinstance(value, list) else [value]) if item is not None)


def _follow(module: Path, directory: Path, found: dict[Path, None]) -> None:
    """Add a module, and what it imports from beside it and below ``directory``, to what was found."""
    waiting = [module]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found[path] = None
        with reading(path):
            source = read_regular(path, _CODE_LIMIT)
        for imported, names, plain in _RELATIVE_IMPORT.findall(source.decode("utf-8", "replace")):
            modules = [imported or plain] if imported or plain else re.findall(r"\w+", names)
            candidates = (path.parent / (name.replace(".", "/") + ".py") for name in modules)
            # "from ..etc.x import" would lead to /etc.
            waiting.extend(one for one in candidates if one.is_relative_to(directory) and one.is_file())
