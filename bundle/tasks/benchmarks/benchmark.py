"""What this package knows of a benchmark beforehand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Subject:
    """One exam subject.

    Attributes:
        name: As in file and score names.
        english: For people.
        chinese: For people, and for the prompt.
        group: The group it counts towards; "" for none.
    """

    name: str
    english: str
    chinese: str
    group: str


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark: where its files are, what they hold, and how its subjects are grouped.

    Attributes:
        name: As in score names ("ceval").
        title: For people ("C-Eval").
        hub: The dataset on the Hugging Face Hub ("ceval/ceval-exam").
        modelscope: The dataset on ModelScope ("opencompass/ceval-exam").
        archive: Name of the .zip with the CSV files, the same on both ("ceval-exam.zip").
        splits: ("dev", "val", "test").
        main_split: The split whose scores have the benchmark's plain name; other splits' scores include the split.
        secret_splits: Splits published without answers; there an answer may be empty.
        file_name: Template of a CSV file's path in a directory or .zip ("{split}/{subject}_{split}.csv").
        columns: The required columns, by the names they have in a row. Must include id, question and answer.
        renames: Name in the file -> name in a row, where they differ.
        optional: Columns that may be missing, and the cell they then have. A missing ``answer`` is still an error
            unless the split's answers are secret.
        answers: What an answer may be ("A", "B", "C", "D").
        prompt_columns: The columns a prompt can use, in the order they are filled in.
        subjects: In the order they are asked and shown.
        groups: Subject names by group, in the order they are shown. The group of all subjects, which has the
            benchmark's own name, is not listed.
    """

    name: str
    title: str
    hub: str
    modelscope: str
    archive: str
    splits: tuple[str, ...]
    main_split: str
    secret_splits: frozenset[str]
    file_name: str
    columns: tuple[str, ...]
    renames: Mapping[str, str]
    optional: Mapping[str, str]
    answers: frozenset[str]
    prompt_columns: tuple[str, ...]
    subjects: tuple[Subject, ...]
    groups: Mapping[str, tuple[str, ...]]

    def file_names(self, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """The CSV file of every pair of subject and split."""
        return {(subject, split): self.file_name.format(subject=subject, split=split) for subject, split in wanted}

    def score_prefix(self, split: str, scores: str) -> str:
        """What the score names of a split begin with, where those of the main split begin with ``scores``."""
        return scores if split == self.main_split else f"{scores}-{split}"


def grouped(subjects: Sequence[Subject], *groups: str) -> dict[str, tuple[str, ...]]:
    """Subject names by group, the groups in this order."""
    return {group: tuple(subject.name for subject in subjects if subject.group == group) for group in groups}
