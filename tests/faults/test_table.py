"""The fault table in ``docs/reliability.md`` names tests that there are, and leaves none of these out."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
TABLE = TESTS.parent / "docs" / "reliability.md"
NAMED = re.compile(r"`([\w/]+\.py|…)(?:::(\w+))?`")


def named() -> Iterator[tuple[str, str]]:
    """The file and the test, "" for all in it, of every reference."""
    file = ""
    for match in NAMED.finditer(TABLE.read_text(encoding="utf-8")):
        file = file if match[1] == "…" else match[1]
        yield file, match[2] or ""


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {function.name for function in functions if function.name.startswith("test_")}


def test_every_test_it_names_is_there() -> None:
    references = list(named())

    assert len(references) > 20
    for file, test in references:
        assert (TESTS / file).is_file(), file
        assert not test or test in names_in(TESTS / file), (file, test)


def test_every_test_of_a_fault_is_in_it() -> None:
    references = set(named())
    there = {
        (f"faults/{path.name}", test) for path in Path(__file__).parent.glob("test_*.py") for test in names_in(path)
    }

    missing = {one for one in there if one not in references and (one[0], "") not in references}
    assert missing == {("faults/test_table.py", test) for test in names_in(Path(__file__))}
