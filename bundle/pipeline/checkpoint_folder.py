"""Which checkpoints the user means, and which of a training that goes on have been written to their end."""

import asyncio
import contextlib
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bundle.checkpoints import inspect_checkpoint
from bundle.errors import CheckpointError, UsageError
from bundle.system.background import in_thread

_CONFIG: Final = "config.json"
_WEIGHTS: Final = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_UNFINISHED: Final = re.compile(r"^(\.|tmp[-_.])|\.(tmp|part|incomplete)$", re.IGNORECASE)
"""Names under which trainers write what they rename in the end."""

Shape = frozenset[tuple[str, int, int]]
"""Name, size and time of the last change (ns) of every file of a directory."""

_LOOK_EVERY_S = 5.0
STILL_S = 30.0
"""Nothing of a checkpoint has changed for so long. Trainers write file after file, and pause for less."""


class Model(NamedTuple):
    """One of several models that are evaluated by one command.

    Attributes:
        path: Its directory, or its base model's.
        adapter: The directory of its LoRA adapter; None if it has none.
    """

    name: str
    path: Path
    adapter: Path | None = None

    @property
    def given(self) -> Path:
        """The directory that distinguishes it from the others."""
        return self.adapter or self.path


def models_of(checkpoints: Sequence[Path], adapters: Sequence[Path | None]) -> list[Model]:
    """The models that the command line names. Raises UsageError for several checkpoints with adapters."""
    if adapters and len(checkpoints) > 1:
        raise UsageError(
            "--adapter is for a single checkpoint.", remedy="Leave it out, or name the one that it was trained on."
        )
    models = [(path, adapter) for path in checkpoints for adapter in adapters or [None]]
    names = short_names([adapter or path for path, adapter in models])
    return [Model(name, *model) for name, model in zip(names, models, strict=True)]


def several(given: Sequence[Path]) -> list[Path] | None:
    """The checkpoints, where the command line names several, or one folder that holds some; None where it is one.

    Raises UsageError if one is not a directory, or is named twice.
    """
    if len(given) == 1:
        return None if _may_be_one(given[0]) else (checkpoints_in(given[0]) or None)
    for path in given:
        if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for some; it is most likely a mistyped option
            raise UsageError(
                f"{path} is not a directory.",
                remedy="Name the directory of each checkpoint. Options begin with two hyphens, as in --limit 3.",
            )
    resolved = [path.resolve() for path in given]
    for number, path in enumerate(resolved):
        if path in resolved[:number]:
            raise UsageError(f"{given[number]} is named twice.", remedy="Name each checkpoint once.")
    # A shell lists 1000 before 500; who has chosen an order has chosen the first one to compare with.
    return by_number(given) if list(given) == sorted(given) else list(given)


def _may_be_one(path: Path) -> bool:
    """Whether it is a checkpoint, or one that lacks its configuration."""
    try:
        names = os.listdir(path)  # noqa: PTH208 - only names are wanted
    except (OSError, ValueError):
        return True  # whoever inspects it says why
    return _CONFIG in names or any(name.endswith(_WEIGHTS) for name in names)


def checkpoints_in(folder: Path) -> list[Path]:
    """The directories in a folder that look like checkpoints, by the numbers in their names."""
    try:
        found = [path for path in folder.iterdir() if (path / _CONFIG).is_file() and not _UNFINISHED.search(path.name)]
    except OSError:
        return []
    return by_number(found)


def by_number(paths: Iterable[Path]) -> list[Path]:
    """In the order in which people count: ``checkpoint-500`` before ``checkpoint-1000``."""

    def key(path: Path) -> list[tuple[int, int, str]]:
        parts = re.split(r"(\d+)", str(path))
        return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]

    return sorted(paths, key=key)


def short_names(paths: Sequence[Path]) -> list[str]:
    """What to call checkpoints: by their own names, or by as much of their paths as distinguishes them."""
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(one[-length:]) for one in parts]
        if len(set(names)) == len(names):
            break
    return names if paths else []


def require_folder(folder: Path) -> None:
    """Refuse what checkpoints cannot appear in. Raises CheckpointError if it is not a directory."""
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder} is not a directory.", remedy="Give the directory that the training writes its checkpoints to."
        )


async def appearing(
    folder: Path,
    until: str | None,
    say: Callable[[str], None],
    *,
    still_s: float = STILL_S,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncIterator[Model]:
    """Every checkpoint in a folder, once it is whole and nothing of it has changed for ``still_s`` seconds.

    ``until`` is the last checkpoint's name, None to go on for ever; ``pause`` waits between two looks.
    """
    changed: dict[Path, tuple[Shape, float]] = {}
    settled: dict[Path, Shape | None] = {}
    while True:
        for path in checkpoints_in(folder):
            if settled.get(path, frozenset()) is None:
                continue  # handed out already
            now = _shape(path)
            if now is None or settled.get(path) == now:
                continue
            if path not in changed or changed[path][0] != now:
                changed[path] = now, clock()
            elif clock() - changed[path][1] >= still_s:
                settled[path] = now
                if await _is_whole(path, say) and _shape(path) == now:
                    settled[path] = None
                    yield Model(path.name, path)
        if any(path.name == until for path, left in settled.items() if left is None):
            return
        await pause(_LOOK_EVERY_S)


async def _is_whole(path: Path, say: Callable[[str], None]) -> bool:
    try:
        await in_thread(lambda: inspect_checkpoint(path))
    except CheckpointError as error:
        say(f"{path.name}: not evaluated unless it changes: {error}")
        return False
    return True


def _shape(directory: Path) -> Shape | None:
    """What changes while a checkpoint is written; None if it is being renamed or removed."""
    try:
        return frozenset(_files(directory, ""))
    except OSError:
        return None


def _files(directory: Path, prefix: str) -> Iterator[tuple[str, int, int]]:
    with contextlib.suppress(PermissionError), os.scandir(directory) as entries:  # what may not be read is not served
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path), f"{prefix}{entry.name}/")
            else:
                is_dangling = entry.is_symlink() and not os.path.exists(entry.path)  # noqa: PTH110 - quicker
                status = entry.stat(follow_symlinks=not is_dangling)
                yield f"{prefix}{entry.name}", status.st_size, status.st_mtime_ns
