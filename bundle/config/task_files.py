"""Task files, ``configs/*.toml``: which questions, which prompt, what counts as the answer."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from bundle.config.files import Strict

Text = Annotated[str, StringConstraints(min_length=1)]


class RowsFile(Strict):
    """Questions of the user's own."""

    file: Text
    """A ``.csv`` with a header, or a ``.jsonl``; a relative path begins where the task file is."""
    examples_file: Text | None = None
    """The same, for the rows shown as examples."""
    columns: Mapping[Text, Text] = Field(default_factory=dict)
    """Our name for a column, and the file's; a column that is not here keeps its name."""
    subject: Text | None = None
    """The file's column that divides the questions into subjects."""


class PromptFile(Strict):
    """The prompt of a task: a question's two turns, and how many answered ones come before it."""

    user: Text
    """What the user says; ``{subject}`` is the subject's name, any other ``{column}`` a cell of the row."""
    assistant: str = "{answer}"
    """What the assistant replies in an example."""
    examples: Annotated[int, Field(ge=0)] = 0
    """How many rows of the example split are shown, always the first ones."""
    place_for_examples: bool = False
    """Whether OpenCompass's template has a place for examples even though none are shown."""
    shape: Literal["turns", "flat"] = "turns"


class AnswerFile(BaseModel):
    """What counts as the answer in a reply: a rule, and its settings, which are checked where the rules are."""

    model_config = ConfigDict(extra="allow", frozen=True)

    rule: Text

    @property
    def settings(self) -> Mapping[str, object]:
        """The keys besides ``rule``."""
        return self.model_extra or {}


class TaskFile(Strict):
    """One task. The schema of ``configs/*.toml``."""

    description: Text
    aliases: tuple[Text, ...] = ()
    """Other names the task goes by."""
    benchmark: Literal["ceval", "cmmlu"] | None = None
    splits: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    """The benchmark's splits that are asked; its main one unless said otherwise."""
    example_split: Text | None = None
    """The benchmark's split that the examples are from; ``dev`` unless said otherwise."""
    rows: RowsFile | None = None
    """Questions of the user's own, in place of a benchmark."""
    first: Annotated[int, Field(ge=1)] | None = None
    """How many questions of every subject are asked, always the first ones; all unless said otherwise."""
    scores: Text | None = None
    """What the names of the scores begin with: the name of the benchmark, or of the task, unless said otherwise."""
    max_out_len: Annotated[int, Field(ge=1)] | None = None
    """Most tokens a reply may have; left to the model unless said."""
    prompt: PromptFile
    answer: AnswerFile

    @model_validator(mode="after")
    def _rows_are_from_one_place(self) -> Self:
        if (self.benchmark is None) == (self.rows is None):
            raise ValueError("a task has either the key 'benchmark' or a table [rows], one of them")
        if self.rows is not None:
            for key in ("splits", "example_split"):
                if getattr(self, key) is not None:
                    raise ValueError(f"the key {key!r} is for benchmarks; [rows] names its files")
            if self.prompt.examples and self.rows.examples_file is None:
                raise ValueError("'prompt.examples' asks for examples, and 'rows.examples_file' names no file of them")
            if self.rows.examples_file is not None and not self.prompt.examples:
                raise ValueError(
                    "'rows.examples_file' names a file, and 'prompt.examples' does not say how many to show"
                )
        return self
