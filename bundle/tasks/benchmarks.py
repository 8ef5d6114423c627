"""The benchmarks this package knows by name: where their files are, what these hold, and how subjects are grouped."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Subject:
    """One exam subject.

    Attributes:
        name: As in file and score names.
        chinese: For people, and for the prompt.
        group: The group it counts towards; "" for none.
        published: How many questions of it were published, by split; empty where that is not known.
    """

    name: str
    english: str
    chinese: str
    group: str
    published: Mapping[str, int] = field(default_factory=dict, compare=False)  # no record has it


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A benchmark: where its files are, what they hold, and how its subjects are grouped.

    Attributes:
        hub: The dataset on the Hugging Face Hub ("ceval/ceval-exam").
        modelscope: The dataset on ModelScope ("opencompass/ceval-exam").
        archive: Name of the .zip with the CSV files, the same on both ("ceval-exam.zip").
        subjects: In the order they are asked and shown.
        groups: Subject names by group, in the order they are shown. The group of all subjects, which has the
            benchmark's own name, is not listed.
        main_split: The split whose scores have the benchmark's plain name; other splits' scores include the split.
        secret_splits: Splits published without answers; there an answer may be empty.
        file_name: Template of a CSV file's path in a directory or .zip ("{split}/{subject}_{split}.csv").
        prompt_columns: The columns a prompt can use, in the order they are filled in.
        columns: The required columns, by the names they have in a row.
        renames: Name in the file -> name in a row, where they differ.
        optional: Columns that may be missing, and the cell they then have. A missing ``answer`` is still an error
            unless the split's answers are secret.
    """

    name: str
    title: str
    hub: str
    modelscope: str
    archive: str
    subjects: tuple[Subject, ...]
    groups: Mapping[str, tuple[str, ...]]
    splits: tuple[str, ...]
    main_split: str
    secret_splits: frozenset[str] = frozenset()
    file_name: str
    prompt_columns: tuple[str, ...]
    columns: tuple[str, ...] = ("id", "question", "A", "B", "C", "D", "answer")
    renames: Mapping[str, str] = field(default_factory=dict)
    optional: Mapping[str, str] = field(default_factory=dict)
    answers: frozenset[str] = frozenset("ABCD")

    def file_names(self, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """The CSV file of every pair of subject and split."""
        return {(subject, split): self.file_name.format(subject=subject, split=split) for subject, split in wanted}


def _subjects(benchmark: str) -> tuple[Subject, ...]:
    """In the order and the groups of OpenCompass 0.3.3 (``configs/datasets``, ``configs/summarizers/groups``)."""
    with (Path(__file__).with_name("subjects") / f"{benchmark}.csv").open(encoding="utf-8", newline="") as file:
        return tuple(_subject(**row) for row in csv.DictReader(file))


def _subject(name: str, english: str, chinese: str, group: str, **published: str) -> Subject:
    return Subject(name, english, chinese, group, {split: int(count) for split, count in published.items()})


def _groups(subjects: Sequence[Subject], *groups: str) -> dict[str, tuple[str, ...]]:
    return {group: tuple(one.name for one in subjects if one.group == group) for group in groups}


_CEVAL_SUBJECTS = _subjects("ceval")
_CEVAL_HARD = (
    "advanced_mathematics",
    "discrete_mathematics",
    "probability_and_statistics",
    "college_chemistry",
    "college_physics",
    "high_school_mathematics",
    "high_school_chemistry",
    "high_school_physics",
)

CEVAL = Benchmark(
    name="ceval",
    title="C-Eval",
    hub="ceval/ceval-exam",
    modelscope="opencompass/ceval-exam",
    archive="ceval-exam.zip",
    subjects=_CEVAL_SUBJECTS,
    groups=_groups(_CEVAL_SUBJECTS, "stem", "social-science", "humanities", "other") | {"hard": _CEVAL_HARD},
    splits=("dev", "val", "test"),
    main_split="val",
    secret_splits=frozenset({"test"}),
    file_name="{split}/{subject}_{split}.csv",
    prompt_columns=("id", "question", "A", "B", "C", "D", "answer", "explanation"),
    optional={"explanation": "", "answer": ""},
)
"""C-Eval (Huang et al., 2023): 52 subjects of Chinese exams in four groups, and a hard subset."""

_CMMLU_SUBJECTS = _subjects("cmmlu")
_CHINA_SPECIFIC = (
    "ancient_chinese",
    "chinese_civil_service_exam",
    "chinese_driving_rule",
    "chinese_food_culture",
    "chinese_foreign_policy",
    "chinese_history",
    "chinese_literature",
    "chinese_teacher_qualification",
    "construction_project_management",
    "elementary_chinese",
    "elementary_commonsense",
    "ethnology",
    "high_school_politics",
    "modern_chinese",
    "traditional_chinese_medicine",
)

CMMLU = Benchmark(
    name="cmmlu",
    title="CMMLU",
    hub="haonan-li/cmmlu",
    modelscope="opencompass/cmmlu",
    archive="cmmlu_v1_0_1.zip",
    subjects=_CMMLU_SUBJECTS,
    groups=_groups(_CMMLU_SUBJECTS, "humanities", "stem", "social-science", "other")
    | {"china-specific": _CHINA_SPECIFIC},
    splits=("dev", "test"),
    main_split="test",
    file_name="{split}/{subject}.csv",
    prompt_columns=("question", "A", "B", "C", "D", "answer"),  # OpenCompass leaves the row's number out
    renames={"": "id", "Question": "question", "Answer": "answer"},
)
"""CMMLU (Li et al., 2023): 67 subjects of Chinese exams in four groups, and a China-specific subset."""

BENCHMARKS: Mapping[str, Benchmark] = {benchmark.name: benchmark for benchmark in (CEVAL, CMMLU)}
