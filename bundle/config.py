"""Finding and reading the files in ``models/`` and ``configs/``."""

import difflib
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from bundle.errors import ConfigError


class Strict(BaseModel):
    """A part of a file: any key that is not named here is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)


_File = TypeVar("_File", bound=BaseModel)
_Folder = Literal["models", "configs"]


def _folder(name: str) -> Path:
    """The folder ``models`` or ``configs``: inside the package when installed, beside it in a checkout."""
    inside = Path(__file__).parent / name
    return inside if inside.is_dir() else Path(__file__).parent.parent / name


def file_names(folder: _Folder) -> list[str]:
    """Names of the files that ship with the package, sorted."""
    return sorted(path.stem for path in _folder(folder).glob("*.toml"))


def _aliases(folder: _Folder) -> dict[str, Path]:
    """The other names that files which ship go by, from their key ``aliases``."""
    files = sorted(_folder(folder).glob("*.toml"))
    return {alias: path for path in files for alias in _content(path).get("aliases", ())}


def find_file(folder: _Folder, name: str) -> Path:
    """The file of this name or alias among those that ship, or at this path.

    Raises:
        ConfigError: There is none; the nearest name is told.
    """
    if name.endswith(".toml") or "/" in name:
        path = Path(name).expanduser()
        if path.is_file():
            return path
        raise ConfigError(
            f"There is no file {path}.",
            remedy=f"Check the path, or use a name listed by `bundle {_LISTED_BY[folder]}`.",
        )
    path = _folder(folder) / f"{name}.toml"
    if path.is_file():
        return path
    aliases = _aliases(folder)
    if name in aliases:
        return aliases[name]
    names = file_names(folder)
    near = difflib.get_close_matches(name, [*names, *aliases], n=1)
    remedy = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(names)}."
    raise ConfigError(f"There is no {_LISTED_BY[folder].removesuffix('s')} named {name!r}.", remedy=remedy)


_LISTED_BY = {"models": "models", "configs": "tasks"}


def read_file(path: Path, schema: type[_File]) -> _File:
    """Read a TOML file that must hold what ``schema`` says.

    Raises:
        ConfigError: It cannot be read or used; file, key and the nearest valid name are told.
    """
    content = _content(path)
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise ConfigError(
            f"{path} cannot be used: {_first_fault(error, schema)}", remedy="Mend the file and try again."
        ) from None


def _content(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            return tomllib.load(stream)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.", remedy="Mend the file and try again.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", remedy="Check the path.") from None


def _first_fault(error: ValidationError, schema: type[BaseModel]) -> str:
    # An unknown key often is the cause of a missing one, so it goes first.
    faults = sorted(error.errors(include_url=False), key=lambda fault: fault["type"] != "extra_forbidden")
    fault = faults[0]
    key = ".".join(str(part) for part in fault["loc"])
    match fault["type"]:
        case "extra_forbidden":
            near = _nearest(fault["loc"][-1], _keys(schema, fault["loc"][:-1]))
            return f"unknown key {key!r}.{near}"
        case "missing":
            return f"the key {key!r} is missing."
        case "literal_error":
            allowed = re.findall(r"'([^']*)'", fault["msg"])
            return f"key {key!r}: {fault['msg']}.{_nearest(fault['input'], allowed)}"
        case _:
            said = fault["msg"].removeprefix("Value error, ")
            return f"key {key!r}: {said}." if key else f"{said}."


def _nearest(written: object, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(written), names, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _keys(schema: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys a part of the file may have; none where the part is no table of a schema."""
    fields = schema.model_fields
    for part in location:
        annotation: Any = fields[str(part)].annotation if str(part) in fields else None
        kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
        tables = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not tables:
            return []
        fields = tables[0].model_fields
    return list(fields)
