"""Model files, ``models/*.toml``: what to serve or call, with which key, and how to sample."""

import os
import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from bundle.config.files import Strict, file_names, find_file, read_file
from bundle.errors import ConfigError

# Strict: TOML has types of its own, so that `true` or "3" where a number belongs is a mistake and not a number.
_Count = Annotated[int, Field(ge=1, strict=True)]
_Seconds = Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)]

_KEY = re.compile(r"[!-~]+")  # what an HTTP header can carry: printable ASCII without spaces
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_USUAL_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


class Sampling(Strict):
    """How replies are generated. Greedy unless a file or the command line says otherwise."""

    temperature: Annotated[float, Field(ge=0, le=2, strict=True)] = 0.0
    max_out_len: _Count | None = None
    """Most tokens a reply may have; None leaves it to the task."""
    max_seq_len: _Count | None = None
    """Most tokens a prompt and its reply may have together; None for no limit of ours."""


class EngineSettings(Strict):
    """What one engine is started with, in addition to what the engine always passes."""

    args: tuple[str, ...] = ()
    env: Mapping[str, str] = Field(default_factory=dict)
    concurrency: _Count | None = None
    """Requests in flight that keep the server busy; None leaves it to the engine."""


class RemoteSettings(Strict):
    """Whom to call, where a model is served by somebody else."""

    model: Annotated[str, Field(min_length=1)] | None = None
    """The served name; None for the only model that the server lists."""
    base_url: Annotated[str, Field(min_length=1)] | None = None
    """None leaves it to the command line."""
    api_key_env: Annotated[str, Field(pattern=f"^{_VARIABLE.pattern}$")] | None = None
    """The environment variable that holds the key, or several separated by commas; None where no key is needed."""
    qps: Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)] | None = None
    """Most requests a second; None for no limit of ours."""
    concurrency: _Count = 128
    """Most requests in flight; fewer where the server does better with fewer."""
    retries: Annotated[int, Field(ge=0, strict=True)] = 3
    """How often a question is asked again after a passing fault."""
    timeout_s: _Seconds = 600.0
    """Most seconds a request may take."""


class ModelFile(Strict):
    """One model: what to serve or call, and how to sample. The schema of ``models/*.toml``."""

    description: str
    architectures: tuple[str, ...] = ()
    """A checkpoint of one of these architectures is served with this file unless another is named."""
    trust_remote_code: Annotated[bool, Field(strict=True)] = False
    """Leave to run the Python code that comes with the checkpoint."""
    prompt_shape: Literal["turns", "flat"] | None = None
    """Few-shot examples as chat turns, or all in one user message; None leaves it to the task."""
    sampling: Sampling = Sampling()
    remote: RemoteSettings = RemoteSettings()
    lmdeploy: EngineSettings = EngineSettings()
    transformers: EngineSettings = EngineSettings()


def model_file(name: str) -> ModelFile:
    """Read a model file by its name in ``models/`` or by its path.

    Raises:
        ConfigError: No such file, or it cannot be used as written.
    """
    return read_file(find_file("models", name), ModelFile)


def model_file_for(architecture: str) -> tuple[str, ModelFile] | None:
    """The shipped model file, with its name, that is meant for checkpoints of ``architecture``."""
    for name in file_names("models"):
        file = model_file(name)
        if architecture in file.architectures:
            return name, file
    return None


def keys_from_environment(name: str) -> list[str]:
    """The API keys in the environment variable ``name``: one, or several separated by commas; each once, in order.

    Raises:
        ConfigError: There is none, or one that no HTTP header can carry. No value is ever told.
    """
    value = os.environ.get(name, "") if _VARIABLE.fullmatch(name) else ""
    keys = list(dict.fromkeys(key for part in value.split(",") if (key := part.strip())))
    if not keys and not _USUAL_VARIABLE.fullmatch(name):
        # It may be a key that was pasted where its variable's name belongs, and is not repeated therefore.
        raise ConfigError(
            "The name given for the API key's environment variable is not that of a variable that is set.",
            remedy="Give the variable's name, as in --api-key-env OPENAI_API_KEY, and never the key itself.",
        )
    if not keys:
        raise ConfigError(
            f"No API key: the environment variable {name} is {'empty' if name in os.environ else 'not set'}.",
            remedy=f"Run `read -rs {name} && export {name}`, paste the key and press Enter: "
            "so it does not enter the shell's history.",
        )
    for position, key in enumerate(keys, 1):
        which = "The key" if len(keys) == 1 else f"Key {position} of {len(keys)}"
        if not _KEY.fullmatch(key):
            raise ConfigError(
                f"{which} in the environment variable {name} holds a space, a control character or another character "
                "that no key has.",
                remedy='Set it to the bare key, without "Bearer"; several are separated by commas.',
            )
        if key[0] in "\"'" or key[-1] in "\"'":
            raise ConfigError(
                f"{which} in the environment variable {name} is in quotation marks, which would be sent as well.",
                remedy="Set it to the bare key; several are separated by commas.",
            )
    return keys
