"""Task files, ``configs/*.toml``: which questions, which prompt, what counts as the answer."""

from typing import Annotated, Literal

from pydantic import Field

from bundle.config import Strict, find_file, read_file


class PromptFile(Strict):
    """The prompt of a task: a question's two turns, and how many answered ones come before it."""

    shape: Literal["turns"] = "turns"
    examples: Annotated[int, Field(ge=0)]
    """How many rows of the example split are shown, always the first ones."""
    user: str
    """What the user says; ``{subject}`` is the subject's Chinese name, any other ``{column}`` a cell of the row."""
    assistant: str = "{answer}"


class TaskFile(Strict):
    """One task. The schema of ``configs/*.toml``."""

    description: str
    benchmark: Literal["ceval"]
    split: str
    example_split: str = "dev"
    answer_rule: str
    max_out_len: Annotated[int, Field(ge=1)]
    prompt: PromptFile


def task_file(name: str) -> TaskFile:
    """Read a task file by its name in ``configs/`` or by its path.

    Raises:
        ConfigError: No such file, or it cannot be used as written.
    """
    return read_file(find_file("configs", name), TaskFile)
