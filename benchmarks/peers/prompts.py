"""Five-shot prompts from questions in C-Eval's layout, for programs that take finished prompts."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_TEMPLATE = (
    "以下是中国关于{subject}考试的单项选择题，请选出其中的正确答案。\n"
    "{question}\nA. {A}\nB. {B}\nC. {C}\nD. {D}\n答案: "
)


def write_prompts(data: Path, path: Path) -> None:
    """Write one line of JSON a question of the validation split: ``subject``, ``messages`` and ``answer``."""
    with path.open("w", encoding="utf-8") as file:
        for one in _prompts(data):
            file.write(json.dumps(one, ensure_ascii=False) + "\n")


def _prompts(data: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((data / "val").glob("*_val.csv")):
        subject = path.name.removesuffix("_val.csv")
        examples: list[dict[str, str]] = []
        for row in _rows(data / "dev" / f"{subject}_dev.csv")[:5]:
            examples += [_asked(subject, row), {"role": "assistant", "content": row["answer"]}]
        for row in _rows(path):
            yield {"subject": subject, "messages": [*examples, _asked(subject, row)], "answer": row["answer"]}


def _asked(subject: str, row: dict[str, str]) -> dict[str, str]:
    return {"role": "user", "content": _TEMPLATE.format(subject=subject, **row)}


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
