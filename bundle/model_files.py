"""Model files, ``models/*.toml``: what to serve, and how to sample."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from bundle.config import Strict, file_names, find_file, read_file


class Sampling(Strict):
    """How replies are generated. Greedy unless a file or the command line says otherwise."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    max_out_len: Annotated[int, Field(ge=1)] | None = None
    """Most tokens a reply may have; None leaves it to the task."""


class EngineSettings(Strict):
    """What one engine is started with, in addition to what the engine always passes."""

    args: tuple[str, ...] = ()
    env: Mapping[str, str] = Field(default_factory=dict)
    concurrency: Annotated[int, Field(ge=1)] | None = None
    """Requests in flight that keep the server busy; None leaves it to the engine."""


class ModelFile(Strict):
    """One model: what to serve, and how to sample. The schema of ``models/*.toml``."""

    description: str
    architectures: tuple[str, ...] = ()
    """A checkpoint of one of these architectures is served with this file unless another is named."""
    trust_remote_code: bool = False
    """Leave to run the Python code that comes with the checkpoint."""
    sampling: Sampling = Sampling()
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
