"""From what the user gave as the model to the directory that holds it, or to an error that says what it is instead."""

import contextlib
import re
import stat
from pathlib import Path
from typing import Final

from bundle.checkpoints._files import list_names, listed, shown, unreadable
from bundle.checkpoints._training import shards_above, training_state
from bundle.checkpoints._weights import only_an_adapter
from bundle.errors import CheckpointError
from bundle.system.files import user_path
from bundle.system.text import is_unicode, nearest

_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# What browsers, wget's kin, aria2 and the hubs' own clients call a file they have not finished.
_UNFINISHED: Final = (".incomplete", ".aria2", ".part", ".crdownload")
_LEVELS, _WIDTH = 3, 1000
"""How far below a directory, and in how many, a checkpoint is looked for."""
_SINGLE_FILE_SUFFIXES: Final = (".safetensors", ".bin", ".json", ".model", ".pt", ".pth")


def require_model_directory(path: Path) -> Path:
    """The directory, resolved, that holds a checkpoint's ``config.json``.

    Raises CheckpointError if the directory does not exist, or holds something other than a checkpoint.
    """
    directory = require_directory(path, "MODEL_DIR", "config.json and the weights")
    if not is_unicode(str(directory)):
        raise CheckpointError(
            f"The path {shown(directory)} is not valid UTF-8, so the engines cannot open it.", remedy="Rename it."
        )
    names = list_names(directory)
    if not names:
        raise CheckpointError(
            f"{shown(directory)} is empty.", remedy="Give the directory that holds config.json and the weights."
        )
    if unfinished := [name for name in names if name.endswith(_UNFINISHED)]:
        raise CheckpointError(
            f"The download into {shown(directory)} has not finished: {listed(unfinished)}.",
            remedy="Wait for it, or run it again; if it did finish, delete these files.",
        )
    if "config.json" not in names:
        raise _no_config(directory, names)
    return directory


def require_directory(given: Path, argument: str, content: str) -> Path:
    """The directory, resolved, that the user gave as ``argument`` and that should hold ``content``.

    Raises CheckpointError if it is not there, or not a directory.
    """
    path = user_path(given)
    try:
        status = path.stat()
    except ValueError:  # half a character, or a NUL
        raise CheckpointError(f"{shown(path)} is not a valid path.", remedy="Check the spelling.") from None
    except (FileNotFoundError, NotADirectoryError) as error:
        if path.is_symlink():
            raise unreadable(path, FileNotFoundError(error.errno, error.strerror)) from error
        raise _nothing_there(path, argument) from error
    except OSError as error:
        raise unreadable(path, error) from error
    if stat.S_ISDIR(status.st_mode):
        return path.resolve()
    if path.suffix == ".gguf":
        raise CheckpointError(
            f"{shown(path)} is a GGUF file, which the engines do not serve.",
            remedy="Give the directory of the original checkpoint (config.json and safetensors files).",
        )
    where = f": {shown(path.parent)}" if path.suffix in _SINGLE_FILE_SUFFIXES else ""
    raise CheckpointError(
        f"{shown(path)} is a file, not a directory.", remedy=f"Give the directory that holds {content}{where}."
    )


def _nothing_there(path: Path, argument: str) -> CheckpointError:
    given = str(path)
    if _HUB_ID.fullmatch(given) and not path.parent.exists():
        name = path.name
        return CheckpointError(
            f"{given} does not exist. It looks like the name of a model on the Hub; {argument} is a local directory.",
            remedy=f"Download it first: `hf download {given} --local-dir {name}` (`huggingface-cli download …` where "
            f"there is no hf), or `modelscope download --model {given} --local_dir {name}`; then give ./{name}.",
        )
    return CheckpointError(f"{shown(path)} does not exist.", remedy=_nearest(path))


def _nearest(path: Path) -> str:
    """Up to where the path exists, and similar names there."""
    present = path.absolute().parent
    missing = path.name
    while not present.exists() and present != present.parent:
        present, missing = present.parent, present.name
    try:
        names = [child.name for child in present.iterdir() if child.is_dir()]
    except OSError:
        names = []
    near = nearest(missing, names, count=3)
    if near:
        typed = path.parent if present == path.absolute().parent else present
        return f"Did you mean {listed(typed / name for name in near)}?"
    return f'{shown(present)} exists, but does not contain "{shown(missing)}".'


def _no_config(directory: Path, names: tuple[str, ...]) -> CheckpointError:
    """What a directory without ``config.json`` is instead, as far as its other files show."""
    present = set(names)
    candidates = directories_with("config.json", directory, names)
    adapters = [directory] if "adapter_config.json" in present else []
    if not candidates:
        adapters += directories_with("adapter_config.json", directory, names)
    if adapters:
        return only_an_adapter(directory, adapters[0])
    if "triton_models" in present:
        return CheckpointError(
            f"{shown(directory)} is a TurboMind workspace (triton_models/, from `lmdeploy convert`), not a checkpoint.",
            remedy="bundle cannot inspect it: give the original checkpoint's directory.",
        )
    state = training_state(directory, names) or next(filter(None, map(shards_above, candidates)), None)
    # What verl has beside its shards has all but the weights.
    whole = [one for one in candidates if _has_weights(one)]
    if candidates and (state is None or whole):
        have = "a directory in it has" if len(candidates) == 1 else "directories in it have"
        return CheckpointError(
            f"{shown(directory)} has no config.json, but {have}.", remedy=f"Give {listed(whole or candidates)}."
        )
    if any(name.endswith(".gguf") for name in names):
        return CheckpointError(
            f"{shown(directory)} holds GGUF files, which the engines do not serve.",
            remedy="Give the directory of the original checkpoint (config.json and safetensors files).",
        )
    if "params.json" in present and any(re.fullmatch(r"consolidated.*\.(pth|safetensors)", name) for name in names):
        return CheckpointError(
            f"{shown(directory)} holds weights in their publisher's own format (params.json, consolidated.*).",
            remedy="Convert them to the Hugging Face format, or download the model in that format.",
        )
    if state is not None:
        return CheckpointError(
            f"{shown(directory)} holds {state.what}, not a model that can be served.", remedy=state.remedy
        )
    return CheckpointError(
        f"{shown(directory)} has no config.json. It holds {listed(names)}.",
        remedy="Give the directory that holds config.json and the weights, or download the missing file.",
    )


def _has_weights(directory: Path) -> bool:
    return any(name.endswith((".safetensors", ".bin")) for name in list_names(directory))


def _step(name: str) -> int:
    """The number that a name ends in, as of "checkpoint-500"; 0 if there is none."""
    return int((re.search(r"\d{1,18}$", name, re.ASCII) or [0])[0])


def directories_with(file: str, directory: Path, names: tuple[str, ...]) -> list[Path]:
    """The nearest directories below this one that hold a file of this name; of a hub cache only the newest snapshot."""
    level = [directory / name for name in names]
    with contextlib.suppress(OSError):
        for _ in range(_LEVELS):
            if found := [child for child in level if (child / file).is_file()]:
                snapshots = [child for child in found if child.parent.name == "snapshots"]
                newest = max(snapshots, key=lambda child: (child.stat().st_mtime, child.name), default=None)
                return [newest] if newest else sorted(found, key=lambda child: (-_step(child.name), child.name))
            level = [below for child in level[:_WIDTH] if child.is_dir() for below in child.iterdir()]
    return []
