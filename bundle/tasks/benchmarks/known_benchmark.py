"""A benchmark this package knows by name."""

from collections.abc import Mapping
from dataclasses import dataclass

from bundle.tasks.sources import Benchmark
from bundle.tasks.subjects import Subject


@dataclass(frozen=True, slots=True)
class KnownBenchmark:
    """A benchmark whose subjects, groups and files are known beforehand.

    Attributes:
        files: Where its rows come from.
        main_split: The split whose scores bear the benchmark's plain name; any other's bear the split's name too.
        prompt_columns: What a prompt can name, in the order the cells are put in.
        subjects: In the order they are asked and shown.
        groups: Subject names of every group, in the order they are shown; the group of all subjects, which has the
            benchmark's own name, is not listed.
    """

    files: Benchmark
    main_split: str
    prompt_columns: tuple[str, ...]
    subjects: tuple[Subject, ...]
    groups: Mapping[str, tuple[str, ...]]

    def score_prefix(self, split: str, scores: str) -> str:
        """What the names of this split's scores begin with, where those of the main split begin with ``scores``."""
        return scores if split == self.main_split else f"{scores}-{split}"
