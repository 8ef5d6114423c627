"""Task files, ``configs/*.toml``: which questions, which prompt, what counts as the answer."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from bundle.config.files import Strict

Text = Annotated[str, StringConstraints(min_length=1)]


class RowsFile(Strict):
    """The user's own questions."""

    file: Text
    """A ``.csv`` with a header, or a ``.jsonl``; relative to the task file."""
    examples_file: Text | None = None
    """The same, for the rows shown as examples."""
    columns: Mapping[Text, Text] = Field(default_factory=dict)
    """Name in prompts -> name in the file, where they differ."""
    subject: Text | None = None
    """The file's column that divides the questions into subjects."""
    answer_as: Literal["letter", "text", "index"] | None = None
    """How answers are written: an option's letter, its text, or its number; by default whichever each can mean."""
    first_index: Literal[0, 1] | None = None
    """The number of the first option; by default 0."""


class PromptFile(Strict):
    """The prompt of a task: a question's two turns, and how many answered ones come before it."""

    user: Text
    """The user's turn; ``{subject}`` is the subject's name, any other ``{column}`` a cell of the row."""
    assistant: str = "{answer}"
    """The assistant's turn in an example."""
    examples: Annotated[int, Field(ge=0)] = 0
    """How many rows of the example split are shown, from the first."""
    place_for_examples: bool = False
    """Whether OpenCompass's template has a place for examples even though none are shown."""
    shape: Literal["turns", "flat", "plain"] = "turns"


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
    """The benchmark's splits to ask; by default its main one."""
    example_split: Text | None = None
    """The benchmark's split with the examples; by default ``dev``."""
    rows: RowsFile | None = None
    """The user's own questions, in place of a benchmark."""
    first: Annotated[int, Field(ge=1)] | None = None
    """Ask only the first questions of every subject; by default all."""
    scores: Text | None = None
    """What score names begin with; by default the name of the benchmark, or of the task."""
    max_out_len: Annotated[int, Field(ge=1)] | None = None
    """Maximum tokens per reply; by default the model's."""
    prompt: PromptFile
    answer: AnswerFile

    @model_validator(mode="after")
    def _rows_are_from_one_place(self) -> Self:
        if (self.benchmark is None) == (self.rows is None):
            raise ValueError("a task needs either the key 'benchmark' or a table [rows], not both")
        if self.rows is not None:
            for key in ("splits", "example_split"):
                if getattr(self, key) is not None:
                    raise ValueError(f"the key {key!r} is for benchmarks; [rows] names its own files")
            if self.prompt.examples and self.rows.examples_file is None:
                raise ValueError("'prompt.examples' is set, but 'rows.examples_file' is not")
            if self.rows.examples_file is not None and not self.prompt.examples:
                raise ValueError("'rows.examples_file' is set, but 'prompt.examples' does not say how many to show")
        return self
