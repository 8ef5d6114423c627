"""What a benchmark is divided into."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Subject:
    """One exam subject.

    Attributes:
        name: As in file and score names.
        english: For people.
        chinese: For people, and for the prompt.
        group: The group it is counted in.
    """

    name: str
    english: str
    chinese: str
    group: str
