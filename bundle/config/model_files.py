"""Model files, ``models/*.toml``: what to serve or call, with which key, and how to sample."""

import json
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from bundle.config.files import Strict, file_names, find_file, read_file
from bundle.errors import ConfigError

# Strict: TOML has types of its own, so `true` or "3" where a number belongs is a mistake.
_Count = Annotated[int, Field(ge=1, strict=True)]
_Positive = Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)]

_KEY = re.compile(r"[!-~]+")  # what an HTTP header can carry: printable ASCII without spaces
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_USUAL_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


# What `bundle` sends by itself, and where it is set.
_OWN_FIELDS = {
    "model": "[remote] model",
    "messages": "the task",
    "stream": "--stream",
    "stream_options": "--stream",
    "temperature": "[sampling] temperature",
    "top_p": "[sampling] top_p",
    "reasoning_effort": "[sampling] reasoning_effort",
    "chat_template_kwargs": "[sampling] chat_template_kwargs",
    "max_tokens": "[sampling] max_out_len",
    "max_completion_tokens": "[sampling] max_out_len",
}
_OWN_HEADERS = re.compile(r"host|connection|content-\S*|transfer-encoding|accept-encoding", re.IGNORECASE)
_SECRET_HEADER = re.compile(r"auth|key|token|secret|cookie|passw", re.IGNORECASE)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[ -~]*")


def _is_json(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        json.dumps(fields, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError("only text, numbers, true, false, lists and tables can be sent") from None
    return fields


def _are_not_ours(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    if own := next(filter(_OWN_FIELDS.get, fields), None):
        raise ValueError(f"{own} is set by {_OWN_FIELDS[own]}")
    return fields


_Fields = Annotated[Mapping[str, Any], AfterValidator(_is_json)]


class Sampling(Strict):
    """How replies are generated. Greedy unless a file or the command line says otherwise."""

    temperature: Annotated[float, Field(ge=0, le=2, strict=True)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1, strict=True)] | None = None
    reasoning_effort: Annotated[str, Field(min_length=1)] | None = None
    """How much a reasoning model thinks, as in "low"."""
    chat_template_kwargs: _Fields = Field(default_factory=dict)
    """Arguments of the chat template, as in ``{ enable_thinking = false }`` for Qwen3."""
    extra_body: Annotated[_Fields, AfterValidator(_are_not_ours)] = Field(default_factory=dict)
    """Further fields of every request."""
    max_out_len: _Count | None = None
    """Maximum tokens per reply; None leaves it to the task."""
    max_seq_len: _Count | None = None
    """Maximum tokens of a prompt and its reply together; None for no limit here."""

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of a request that are set here, besides temperature and length."""
        own = {
            "top_p": self.top_p,
            "reasoning_effort": self.reasoning_effort,
            "chat_template_kwargs": dict(self.chat_template_kwargs) or None,
        }
        return {**self.extra_body, **{name: value for name, value in own.items() if value is not None}}


class FromEnvironment(Strict):
    """A secret, by the name of the environment variable that holds it."""

    env: Annotated[str, Field(pattern=f"^{_VARIABLE.pattern}$")]


def _can_be_sent(headers: Mapping[str, str | FromEnvironment]) -> Mapping[str, str | FromEnvironment]:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or _OWN_HEADERS.fullmatch(name):
            raise ValueError(f"{name!r} cannot be set")
        if isinstance(value, str) and _SECRET_HEADER.search(name):
            raise ValueError(f'{name} holds a secret: name its environment variable, as in {{ env = "NAME" }}')
        if isinstance(value, str) and not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"{name} contains a character that is not valid in a header")
    return headers


class Thinking(Strict):
    """The marks around a model's thinking, where they are none of those that are known anyway."""

    open: Annotated[str, Field(min_length=1)]
    close: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _must_differ(self) -> Self:
        if self.open.casefold() == self.close.casefold():
            raise ValueError("'open' and 'close' must differ")
        return self


class EngineSettings(Strict):
    """What one engine is started with, besides what it is always given."""

    args: tuple[str, ...] = ()
    env: Mapping[str, str] = Field(default_factory=dict)
    concurrency: _Count | None = None
    """Concurrent requests that keep the server busy; None leaves it to the engine."""


class RemoteSettings(Strict):
    """How to call a model that is served elsewhere."""

    model: Annotated[str, Field(min_length=1)] | None = None
    """The served name; None for the only model that the server lists."""
    base_url: Annotated[str, Field(min_length=1)] | None = None
    """None leaves it to the command line."""
    api_key_env: Annotated[str, Field(pattern=f"^{_VARIABLE.pattern}$")] | None = None
    """The environment variable with the API key, or several keys separated by commas; None if no key is needed."""
    headers: Annotated[Mapping[str, str | FromEnvironment], AfterValidator(_can_be_sent)] = Field(default_factory=dict)
    """Further headers of every request; secrets only as ``{ env = "NAME" }``."""
    qps: _Positive | None = None
    """Maximum requests per second; None for no limit here."""
    concurrency: _Count = 128
    """Maximum concurrent requests; fewer where the server does better with fewer."""
    retries: Annotated[int, Field(ge=0, strict=True)] = 3
    """How often a question is retried after a transient fault."""
    timeout_s: _Positive = 600.0
    """Maximum seconds per request."""


class ModelFile(Strict):
    """One model: what to serve or call, and how to sample. The schema of ``models/*.toml``."""

    description: str
    architectures: tuple[str, ...] = ()
    """The default for checkpoints of these architectures."""
    trust_remote_code: Annotated[bool, Field(strict=True)] = False
    """Permission to run the Python code that comes with the checkpoint."""
    trusted_code: tuple[Annotated[str, Field(pattern="^[0-9a-f]{64}$")], ...] = ()
    """Digests (SHA-256) of Python files that may run without it, in checkpoints that come with no other."""
    prompt_shape: Literal["turns", "flat", "plain"] | None = None
    """Few-shot examples as chat turns, all in one user message, or as plain text; None leaves it to the task."""
    sampling: Sampling = Sampling()
    thinking: Thinking | None = None
    remote: RemoteSettings = RemoteSettings()
    lmdeploy: EngineSettings = EngineSettings()
    vllm: EngineSettings = EngineSettings()
    transformers: EngineSettings = EngineSettings()


def model_file(name: str) -> ModelFile:
    """Read a model file by its name in ``models/`` or by its path.

    Raises ConfigError if there is none, or it cannot be used as written.
    """
    return read_file(find_file("models", name), ModelFile)


def model_file_for(architecture: str) -> tuple[str, ModelFile]:
    """The shipped model file for checkpoints of ``architecture``, with its name; where there is none, an empty one."""
    for name in file_names("models"):
        file = model_file(name)
        if architecture in file.architectures:
            return name, file
    return "none", ModelFile(description=architecture)


def keys_from_environment(name: str) -> list[str]:
    """The API keys in the environment variable ``name``: one, or several separated by commas; each once, in order.

    Raises ConfigError if there is none, or one that no HTTP header can carry. The message never includes a value.
    """
    value = os.environ.get(name, "") if _VARIABLE.fullmatch(name) else ""
    keys = list(dict.fromkeys(key for part in value.split(",") if (key := part.strip())))
    if not keys and not _USUAL_VARIABLE.fullmatch(name):
        # It may be a key pasted where its variable's name belongs, so it is not repeated.
        raise ConfigError(
            "--api-key-env must name an environment variable that is set.",
            remedy="Give the variable's name, as in --api-key-env OPENAI_API_KEY, never the key itself.",
        )
    if not keys:
        raise ConfigError(
            f"No API key: the environment variable {name} is {'empty' if name in os.environ else 'not set'}.",
            remedy=f"Run `read -rs {name} && export {name}`, paste the key and press Enter "
            "(this keeps the key out of your shell history).",
        )
    for position, key in enumerate(keys, 1):
        which = "The key" if len(keys) == 1 else f"Key {position} of {len(keys)}"
        if not _KEY.fullmatch(key):
            raise ConfigError(
                f"{which} in the environment variable {name} contains a space, a control character or another "
                "character that is not valid in a key.",
                remedy='Set it to the key alone, without "Bearer"; separate several keys by commas.',
            )
        if key[0] in "\"'" or key[-1] in "\"'":
            raise ConfigError(
                f"{which} in the environment variable {name} is in quotation marks, which would be sent too.",
                remedy="Set it to the key alone; separate several keys by commas.",
            )
    return keys


def headers_from(settings: RemoteSettings) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """The further headers of every request, what may be shown of them, and their secret values.

    Raises ConfigError if the environment variable of one is not set, or holds what no header can carry.
    """
    headers: dict[str, str] = {}
    shown: dict[str, str] = {}
    secrets: list[str] = []
    for name, value in settings.headers.items():
        if isinstance(value, str):
            headers[name] = shown[name] = value
            continue
        secret = os.environ.get(value.env, "").strip()
        if not secret or not _HEADER_VALUE.fullmatch(secret):
            state = "contains a character that is not valid in a header" if secret else "is not set"
            raise ConfigError(
                f"The environment variable {value.env}, for the header {name}, {state}.",
                remedy=f"Run `read -rs {value.env} && export {value.env}`, paste the value and press Enter.",
            )
        headers[name], shown[name] = secret, f"${value.env}"
        secrets.append(secret.partition(" ")[2] or secret)  # a server may repeat it without its scheme ("Bearer")
    return headers, shown, secrets
