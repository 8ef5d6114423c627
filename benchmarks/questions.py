"""Questions that look like C-Eval's to a program, and mean nothing: its layout, its sizes, random characters.

    python -m benchmarks.questions DIRECTORY

C-Eval itself may not be passed on. ``ceval_sizes.csv`` holds how many questions a subject has in each split and how
many characters a question and an option have on average; lengths are drawn around these as they vary there.
"""

import argparse
import csv
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SIZES = Path(__file__).with_name("ceval_sizes.csv")

_EXAMPLES = 5
_SPREAD = 0.65  # of the logarithm of a question's length, about as in C-Eval
_CHARACTERS = (
    "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而方后多定行学法所民得经十三之进着等"
    "部度家电力里如水化高自二理起小物现实加量都两体制机当使点从业本去把性好应开它合还因由其些然前外天政四日那社义事平形相全表间样与关各重新线内"
    "数正心反你明看原又么利比或但质气第向道命此变条只没结解问意建月公无系军很情者最立代想已通并提直题党程展五果料象员革位入常文总次品式活设及管"
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a subject is: questions of two splits, and average characters of a question and an option."""

    subject: str
    val: int
    test: int
    question: int
    option: int
    example_question: int
    example_option: int


def read_sizes() -> list[Sizes]:
    """The sizes of all subjects."""
    with SIZES.open(encoding="utf-8", newline="") as file:
        return [
            Sizes(row.pop("subject"), **{key: int(value) for key, value in row.items()}) for row in csv.DictReader(file)
        ]


def write_questions(directory: Path, seed: int = 0) -> None:
    """Write ``dev|val|test/SUBJECT_SPLIT.csv``. The same seed writes the same."""
    for sizes in read_sizes():
        for split, count in (("dev", _EXAMPLES), ("val", sizes.val), ("test", sizes.test)):
            path = directory / split / f"{sizes.subject}_{split}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            columns = ["id", "question", "A", "B", "C", "D"]
            columns += {"dev": ["answer", "explanation"], "val": ["answer"], "test": []}[split]
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
                writer.writeheader()
                writer.writerows(_rows(sizes, split, count, seed))


def _rows(sizes: Sizes, split: str, count: int, seed: int) -> Iterator[dict[str, str]]:
    rng = random.Random(f"{seed}/{sizes.subject}/{split}")  # noqa: S311
    dev = split == "dev"
    question, option = (sizes.example_question, sizes.example_option) if dev else (sizes.question, sizes.option)
    for number in range(count):
        yield {
            "id": str(number),
            "question": _text(rng, question) + "____。",
            **{letter: _text(rng, option) for letter in "ABCD"},
            "answer": rng.choice("ABCD"),
            "explanation": _text(rng, 3 * option),
        }


def _text(rng: random.Random, mean: int) -> str:
    # The mean of a log-normal variable is exp(mu + sigma^2 / 2).
    factor = rng.lognormvariate(-(_SPREAD**2) / 2, _SPREAD)
    return "".join(rng.choices(_CHARACTERS, k=max(1, round(mean * factor))))


def main() -> None:
    """Parse the command line and write."""
    parser = argparse.ArgumentParser(description="Write random questions in C-Eval's layout.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_questions(arguments.directory, arguments.seed)


if __name__ == "__main__":
    main()
