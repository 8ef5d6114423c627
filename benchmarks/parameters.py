"""What a simulated server is like, as written in ``benchmarks/*.toml``."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

FOLDER = Path(__file__).parent

Milliseconds = Annotated[float, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Batching(_Strict):
    """Continuous batching.

    Attributes:
        slots: Most requests in the batch.
        prefill_ms: What every prompt costs.
        prefill_ms_per_1000_tokens: What is added for the part of it that is not in the prefix cache.
        prefills_at_once: Most prompts computed at the same time; 0 for all that have a slot.
        ms_per_token: A decoding step, which brings every request of the batch one token.
        ms_per_token_per_request: What every request in the batch adds to a step.
    """

    slots: Annotated[int, Field(ge=1)] = 128
    prefill_ms: Milliseconds = 0.0
    prefill_ms_per_1000_tokens: Milliseconds = 0.0
    prefills_at_once: Annotated[int, Field(ge=0)] = 0
    ms_per_token: Milliseconds = 0.0
    ms_per_token_per_request: Milliseconds = 0.0


class PrefixCaching(_Strict):
    """The prefix cache: whole blocks, the least recently used of which go first.

    Attributes:
        blocks: How many it holds; 0 for no cache.
        tokens_per_block: Tokens of the prompt in a block.
    """

    blocks: Annotated[int, Field(ge=0)] = 4096
    tokens_per_block: Annotated[int, Field(ge=1)] = 64


class Replying(_Strict):
    """What the model says.

    Attributes:
        style: "letter" says the letter alone, "sentence" a short sentence around it, "explaining" the letter and then
            why, "explaining_late" why and then the letter.
        tokens: How long an explaining reply is.
    """

    style: Literal["letter", "sentence", "explaining", "explaining_late"] = "letter"
    tokens: Annotated[int, Field(ge=8)] = 120


class Parameters(_Strict):
    """A simulated server.

    Attributes:
        description: One line for people.
        characters_per_token: To count a prompt's tokens without a tokenizer.
    """

    description: str
    characters_per_token: Annotated[float, Field(gt=0)] = 1.5
    batching: Batching = Batching()
    prefix_caching: PrefixCaching = PrefixCaching()
    replying: Replying = Replying()


def read_parameters(name: str | Path) -> Parameters:
    """Read a parameter file by its path, or by its name in ``benchmarks/``.

    Raises:
        OSError: There is none.
        ValueError: It is not as it should be.
    """
    path = Path(name)
    if path.suffix != ".toml":
        path = FOLDER / f"{name}.toml"
    return Parameters.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
