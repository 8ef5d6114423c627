"""Tasks by name, from the files in ``configs/`` or the user's own."""

import re
from dataclasses import replace
from pathlib import Path

from bundle.config.files import find_file, read_file
from bundle.config.task_files import PromptFile, RowsFile, TaskFile
from bundle.errors import ConfigError
from bundle.system.files import user_path
from bundle.system.text import did_you_mean
from bundle.tasks.answers import AnswerRule, Likeliest, make_rule
from bundle.tasks.benchmarks import BENCHMARKS, Benchmark, Subject
from bundle.tasks.own_rows import EXAMPLES, QUESTIONS, OwnRows
from bundle.tasks.prompts import Prompt
from bundle.tasks.task import Question, Task

__all__ = ["Question", "Task", "find_task"]


def find_task(name: str) -> Task:
    """The task of this name or alias in ``configs/``, or written in the file at this path.

    Raises ConfigError if there is none, or its file cannot be used as written; DataError if it has its own rows, and
    they cannot be used.
    """
    path = find_file("configs", name)
    file = read_file(path, TaskFile)
    try:
        rule = make_rule(file.answer.rule, file.answer.settings)
        _require_likelihood(file)
        if file.rows is not None:
            return _own_task(path, file, file.rows, rule)
        return _benchmark_task(path, file, BENCHMARKS[file.benchmark or ""], rule)
    except ConfigError as error:
        raise ConfigError(f"{path} cannot be used: {error.message}", remedy=error.remedy) from None


def _benchmark_task(path: Path, file: TaskFile, known: Benchmark, rule: AnswerRule) -> Task:
    splits = file.splits or (known.main_split,)
    example_split = file.example_split or "dev"
    for key, split in [("example_split", example_split), *(("splits", split) for split in splits)]:
        if split not in known.splits:
            raise ConfigError(
                f"key {key!r}: {known.name} has no split {split!r}.",
                remedy=did_you_mean(split, known.splits, f"It has {', '.join(known.splits)}."),
            )
    for column in _placeholders(file.prompt):
        if column not in known.prompt_columns:
            raise ConfigError(
                f"its prompt names {{{column}}}, but {known.name} has no such column.",
                remedy=did_you_mean(column, known.prompt_columns, f"It has {', '.join(known.prompt_columns)}."),
            )
    scores = file.scores or known.name
    prefixes = {split: scores if split == known.main_split else f"{scores}-{split}" for split in splits}
    groups: dict[str, tuple[tuple[str, str], ...]] = {}
    for split, prefix in prefixes.items():
        groups[prefix] = tuple((split, subject.name) for subject in known.subjects)
        for group, members in known.groups.items():
            groups[f"{prefix}-{group}"] = tuple((split, subject) for subject in members)
    return Task(
        name=path.stem,
        description=file.description,
        benchmark=known,
        splits=prefixes,
        secret_splits=known.secret_splits & prefixes.keys(),
        example_split=example_split,
        first=file.first,
        subjects=known.subjects,
        groups=groups,
        columns=known.prompt_columns,
        prompt=_prompt(file.prompt),
        shape=file.prompt.shape,
        answer_rule=rule,
        max_out_len=file.max_out_len,
    )


def _own_task(path: Path, file: TaskFile, rows: RowsFile, rule: AnswerRule) -> Task:
    placeholders = _placeholders(file.prompt)
    if not any(f"{{{column}}}" in file.prompt.user for column in placeholders if column != "answer"):
        raise ConfigError(
            "its prompt names no column, so every question would be the same.",
            remedy="Write a column's name in braces in 'prompt.user', such as {question}.",
        )
    for letter, column in re.findall(r"\b([A-Z])\s?[.．、:：)）]\s?\{([A-Z])\}", file.prompt.user):
        if letter != column:
            raise ConfigError(
                f"its prompt shows {{{column}}} as option {letter}.", remedy=f"Write {{{letter}}} beside {letter}."
            )
    own = OwnRows(
        name=path.stem,
        file=path.parent / user_path(rows.file),
        examples_file=path.parent / user_path(rows.examples_file) if rows.examples_file else None,
        columns=tuple(dict.fromkeys((*placeholders, "answer"))),
        given=rows,
        rule=rule,
    ).with_rule_for_answers()
    prefix = file.scores or path.stem
    names = own.subjects()
    return Task(
        name=path.stem,
        description=file.description,
        benchmark=own,
        splits={QUESTIONS: prefix},
        secret_splits=frozenset(),
        example_split=EXAMPLES,
        first=file.first,
        subjects=tuple(Subject(name, english=name, chinese=name, group="") for name in names),
        groups={prefix: tuple((QUESTIONS, name) for name in names)},
        columns=own.columns,
        prompt=replace(_prompt(file.prompt), may_be_absent=own.option_columns, verbatim=True),
        shape=file.prompt.shape,
        answer_rule=own.rule,
        max_out_len=file.max_out_len,
    )


def _require_likelihood(file: TaskFile) -> None:
    """Check that a prompt scored by likelihood ends where an option can follow."""
    if file.answer.rule == Likeliest.name and not (
        file.prompt.assistant.endswith("{answer}") and file.prompt.shape == "plain"
    ):
        raise ConfigError(
            f"the rule {Likeliest.name} compares texts that end in an option.",
            remedy="Set 'prompt.shape' to \"plain\", and let 'prompt.assistant' end in {answer}.",
        )


def _prompt(file: PromptFile) -> Prompt:
    return Prompt(file.user, file.assistant, file.examples, file.place_for_examples or file.examples > 0)


def _placeholders(prompt: PromptFile) -> list[str]:
    """The columns a prompt names, in order: identifiers in braces."""
    found = re.findall(r"\{([^{}]*)\}", prompt.user + prompt.assistant)
    return [name for name in dict.fromkeys(found) if name.isidentifier() and name != "subject"]
