"""Finding and reading the files in ``models/`` and ``configs/``."""

import difflib
import tomllib
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from bundle.errors import ConfigError


class Strict(BaseModel):
    """A part of a file: any key that is not named here is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)


_File = TypeVar("_File", bound=BaseModel)


def _folder(name: str) -> Path:
    """The folder ``models`` or ``configs``: inside the package when installed, beside it in a checkout."""
    inside = Path(__file__).parent / name
    return inside if inside.is_dir() else Path(__file__).parent.parent / name


def file_names(folder: Literal["models", "configs"]) -> list[str]:
    """Names of the files that ship with the package, sorted."""
    return sorted(path.stem for path in _folder(folder).glob("*.toml"))


def find_file(folder: Literal["models", "configs"], name: str) -> Path:
    """The file of this name among those that ship, or at this path.

    Raises:
        ConfigError: There is none; the nearest name is told.
    """
    if name.endswith(".toml") or "/" in name:
        path = Path(name).expanduser()
        if path.is_file():
            return path
        raise ConfigError(f"There is no file {path}.", remedy="Check the path, or use a name listed by `bundle tasks`.")
    path = _folder(folder) / f"{name}.toml"
    if path.is_file():
        return path
    names = file_names(folder)
    near = difflib.get_close_matches(name, names, n=1)
    kind = "model" if folder == "models" else "task"
    remedy = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(names)}."
    raise ConfigError(f"There is no {kind} named {name!r}.", remedy=remedy)


def read_file(path: Path, schema: type[_File]) -> _File:
    """Read a TOML file that must hold what ``schema`` says.

    Raises:
        ConfigError: It cannot be read or used; file, key and the nearest valid name are told.
    """
    try:
        with path.open("rb") as stream:
            content = tomllib.load(stream)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.", remedy="Mend the file and try again.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", remedy="Check the path.") from None
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise ConfigError(
            f"{path} cannot be used: {_first_fault(error, schema)}", remedy="Mend the file and try again."
        ) from None


def _first_fault(error: ValidationError, schema: type[BaseModel]) -> str:
    fault = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(fault["loc"][-1]), _keys(schema, fault["loc"][:-1]), n=1)
        return f"unknown key {key!r}." + (f" Did you mean {near[0]!r}?" if near else "")
    return f"key {key!r}: {fault['msg']}."


def _keys(schema: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    fields: Any = schema
    for part in location:
        fields = fields.model_fields[str(part)].annotation
    return list(fields.model_fields)
