"""Finding and reading the TOML files in ``models/`` and ``configs/``, or of the user's own."""

import re
import tomllib
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from bundle.config.faults import first_fault
from bundle.errors import ConfigError
from bundle.system.files import read_regular, user_path
from bundle.system.text import did_you_mean, is_unicode, one_line, printable

_LARGEST = 1024 * 1024
"""Bytes; such files are a few thousand long."""
# TOML's parser takes time quadratic in the number of a key's parts, and no schema has more than three.
_DEEP_KEY = re.compile(
    r"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){64}""",
)


class Strict(BaseModel):
    """A part of a file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


_File = TypeVar("_File", bound=BaseModel)
_Folder = Literal["models", "configs"]


def _folder(name: str) -> Path:
    """The folder ``models`` or ``configs``: inside the package when installed, beside it in a checkout."""
    inside = Path(__file__).parents[1] / name
    return inside if inside.is_dir() else Path(__file__).parents[2] / name


def file_names(folder: _Folder) -> list[str]:
    """Names of the files that ship with the package, sorted."""
    return sorted(path.stem for path in _folder(folder).glob("*.toml"))


def _aliases(folder: _Folder) -> dict[str, Path]:
    """Other names of the files that ship, from their key ``aliases``."""
    files = sorted(_folder(folder).glob("*.toml"))
    return {alias: path for path in files for alias in _content(path).get("aliases", ())}


def _is_path(name: str) -> bool:
    return name.endswith(".toml") or "/" in name


def path_or_name(name: str) -> str:
    """What names the same file in any current directory: its absolute path, unless it ships with the package."""
    return str(user_path(name).absolute()) if _is_path(name) else name


def find_file(folder: _Folder, name: str) -> Path:
    """The file of this name or alias among those that ship, or this path.

    Raises ConfigError if no file has the name; it suggests the nearest.
    """
    if _is_path(name):
        if not is_unicode(name):
            raise ConfigError(f"The path {name!r} is not valid UTF-8.", remedy="Rename the file.")
        return user_path(name)
    path = _folder(folder) / f"{name}.toml"
    if path.is_file():
        return path
    aliases = _aliases(folder)
    if name in aliases:
        return aliases[name]
    names = file_names(folder)
    kind = _LISTED_BY[folder]
    raise ConfigError(
        f"There is no {kind.removesuffix('s')} {printable(name)}; there are {', '.join(names)}.",
        # A short name is like many: mmlu is a benchmark of its own, and no misspelt cmmlu_gen.
        remedy=did_you_mean(name, [*names, *aliases], f"`bundle {kind}` describes them.", cutoff=0.7),
    )


_LISTED_BY = {"models": "models", "configs": "tasks"}


def read_file(path: Path, schema: type[_File]) -> _File:
    """Read a TOML file that must hold what ``schema`` says.

    Raises ConfigError if it cannot be read or used; it names the file, the key and the nearest valid name.
    """
    content = _content(path)
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{path} cannot be used: {first_fault(error, schema)}", remedy="Fix the file.") from None


def _content(path: Path) -> dict[str, Any]:
    try:
        data = read_regular(path, _LARGEST)
    except FileNotFoundError:
        remedy = "Check the path, or use a name that `bundle models` or `bundle tasks` lists."
        raise ConfigError(f"There is no file {path}.", remedy=remedy) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", remedy="Check the path.") from None
    try:
        text = data.decode("utf-8-sig")  # Windows' editors begin a file with a byte order mark
        if _DEEP_KEY.search(text):
            raise ConfigError(f"{path} has a key with too many parts.", remedy="Fix the file.")
        return tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x}).", remedy="Save the file as UTF-8."
        ) from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply.", remedy="Fix the file.") from None
    except ValueError as error:
        reason = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "a number has thousands of digits"
        raise ConfigError(f"{path} is not valid TOML: {one_line(reason)}.", remedy="Fix the file.") from None
