"""Model files (``models/*.toml``) and task files (``configs/*.toml``): where they are, what they may hold."""

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bundle.errors import ConfigError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Sampling(_Strict):
    """How replies are generated. Greedy unless a file or the command line says otherwise."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    max_out_len: Annotated[int, Field(ge=1)] | None = None
    """Most tokens a reply may have; None leaves it to the task."""


class EngineSettings(_Strict):
    """What one engine is started with, in addition to what the engine always passes."""

    args: tuple[str, ...] = ()
    env: Mapping[str, str] = Field(default_factory=dict)
    concurrency: Annotated[int, Field(ge=1)] | None = None
    """Requests in flight that keep the server busy; None leaves it to the engine."""


class ModelFile(_Strict):
    """One model: what to serve, and how to sample. The schema of ``models/*.toml``."""

    description: str
    architectures: tuple[str, ...] = ()
    """A checkpoint of one of these architectures is served with this file unless another is named."""
    trust_remote_code: bool = False
    """Leave to run the Python code that comes with the checkpoint."""
    sampling: Sampling = Sampling()
    lmdeploy: EngineSettings = EngineSettings()
    transformers: EngineSettings = EngineSettings()


class PromptFile(_Strict):
    """The prompt of a task: a question's two turns, and how many answered ones come before it."""

    shape: Literal["turns"] = "turns"
    examples: Annotated[int, Field(ge=0)]
    """How many rows of the example split are shown, always the first ones."""
    user: str
    """What the user says; ``{subject}`` is the subject's Chinese name, any other ``{column}`` a cell of the row."""
    assistant: str = "{answer}"


class TaskFile(_Strict):
    """One task. The schema of ``configs/*.toml``."""

    description: str
    benchmark: Literal["ceval"]
    split: str
    example_split: str = "dev"
    answer_rule: str
    max_out_len: Annotated[int, Field(ge=1)]
    prompt: PromptFile


_File = TypeVar("_File", ModelFile, TaskFile)


def _folder(name: str) -> Path:
    """The folder ``models`` or ``configs``: inside the package when installed, beside it in a checkout."""
    inside = Path(__file__).parent / name
    return inside if inside.is_dir() else Path(__file__).parent.parent / name


def file_names(folder: Literal["models", "configs"]) -> list[str]:
    """Names of the files that ship with the package, sorted."""
    return sorted(path.stem for path in _folder(folder).glob("*.toml"))


def model_file(name: str) -> ModelFile:
    """Read a model file by its name in ``models/`` or by its path.

    Raises:
        ConfigError: No such file, or it cannot be used as written.
    """
    return _read(_find("models", name), ModelFile)


def task_file(name: str) -> TaskFile:
    """Read a task file by its name in ``configs/`` or by its path.

    Raises:
        ConfigError: No such file, or it cannot be used as written.
    """
    return _read(_find("configs", name), TaskFile)


def model_file_for(architecture: str) -> tuple[str, ModelFile] | None:
    """The shipped model file, with its name, that is meant for checkpoints of ``architecture``."""
    for name in file_names("models"):
        file = model_file(name)
        if architecture in file.architectures:
            return name, file
    return None


def _find(folder: Literal["models", "configs"], name: str) -> Path:
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


def _read(path: Path, schema: type[_File]) -> _File:
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
