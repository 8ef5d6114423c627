"""The rooms of the house and the arrows between them, as `docs/architecture.md` draws them."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "bundle"

EVERYWHERE = frozenset({"config", "system", "errors", "version"})
"""What every room may use; among these, each may use those to its right."""

ARROWS = {
    "cli": {"pipeline", "doctor", "reports"},
    "worker": {"pipeline", "fleet"},
    "pipeline": {"fleet", "reports", "evaluation", "serving", "checkpoints", "runs", "tasks", "client"},
    "fleet": {"client", "tasks"},
    "reports": {"runs"},
    "doctor": {"fleet", "serving", "checkpoints", "tasks", "runs"},
    "evaluation": {"client", "runs", "tasks"},
    "serving": {"checkpoints"},
    "checkpoints": set(),
    "runs": {"tasks"},
    "client": {"tasks"},
    "tasks": set(),
    "config": set(),
    "system": set(),
    "errors": set(),
    "version": set(),
}
"""The rooms that each room may use, beside `EVERYWHERE`. A room may also use what these use, further down."""


@dataclass(frozen=True)
class Import:
    """One import of a module of this program, or, where ``inside`` a function, of any module."""

    file: Path
    line: int
    module: str
    inside: bool

    @property
    def room(self) -> str:
        return room_of(self.file)

    @property
    def target(self) -> str:
        return self.module.split(".")[1]

    def __str__(self) -> str:
        return f"{self.file.relative_to(PACKAGE.parent)}:{self.line} imports {self.module}"


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def imports() -> tuple[Import, ...]:
    """All imports of the package, also those that only type checkers see."""
    return tuple(one for file in sorted(PACKAGE.rglob("*.py")) for one in imports_of(file))


def imports_of(file: Path) -> Iterator[Import]:
    def walk(node: ast.AST, inside: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(file, child.lineno, name.name, inside) for name in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{file}:{child.lineno}: a relative import"
                yield from (Import(file, child.lineno, name, inside) for name in modules_of(child))
            yield from walk(child, inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    return walk(ast.parse(file.read_text(encoding="utf-8")), inside=False)


def modules_of(node: ast.ImportFrom) -> list[str]:
    """``from bundle import errors`` is an import of ``bundle.errors``."""
    assert node.module is not None
    return [f"bundle.{name.name}" for name in node.names] if node.module == "bundle" else [node.module]


def between_rooms() -> Iterator[Import]:
    for one in imports():
        # `bundle/__init__.py` and `__main__.py` are no rooms.
        if one.module.startswith("bundle.") and one.room in ARROWS and one.target in ARROWS and one.room != one.target:
            yield one


def below(room: str) -> set[str]:
    """Every room that a room may use."""
    found = set(ARROWS[room])
    for other in ARROWS[room]:
        found |= below(other)
    return found


def test_every_room_is_in_the_drawing() -> None:
    there = {
        path.stem
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists() or any(path.glob("*.py"))
    }
    assert there - {"__init__", "__main__"} <= ARROWS.keys()


def test_no_import_goes_up() -> None:
    order = ("config", "system", "errors", "version")
    wrong = []
    for one in between_rooms():
        if one.room in order and one.target in order:
            allowed = order.index(one.room) < order.index(one.target)
        else:
            allowed = one.target in EVERYWHERE or one.target in below(one.room)
        if not allowed:
            wrong.append(str(one))
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    """What is imported inside a function or for types alone counts as well; the package's face only hands names on."""
    modules = {".".join(("bundle", *file.relative_to(PACKAGE).with_suffix("").parts)) for file in PACKAGE.rglob("*.py")}
    uses: dict[str, set[str]] = {}
    for one in imports():
        module = ".".join(("bundle", *one.file.relative_to(PACKAGE).with_suffix("").parts))
        target = f"{one.module}.__init__" if f"{one.module}.__init__" in modules else one.module
        if target in modules and module != "bundle.__init__":
            uses.setdefault(module, set()).add(target)
    assert circle_in(uses) is None


def circle_in(uses: dict[str, set[str]]) -> list[str] | None:
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str] | None:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return None
        for target in sorted(uses.get(module, ())):
            if (found := visit(target, [*path, module])) is not None:
                return found
        done.add(module)
        return None

    return next((found for module in sorted(uses) if (found := visit(module, [])) is not None), None)


def test_an_import_inside_a_function_says_why() -> None:
    """In a comment at the end of the line or above it; several in a row share one."""
    unexplained = []
    for file in sorted(PACKAGE.rglob("*.py")):
        lines = file.read_text(encoding="utf-8").splitlines()
        for one in imports_of(file):
            if not one.inside:
                continue
            above = one.line - 2
            while re.match(r"\s*(from|import)\s", lines[above]) and "#" not in lines[above]:
                above -= 1
            comment = re.compile(r"#(?! noqa| type:)")
            if not comment.search(lines[one.line - 1]) and not comment.search(lines[above]):
                unexplained.append(str(one))
    assert unexplained == []


@pytest.mark.parametrize("room", ARROWS)
def test_the_drawing_has_no_circle(room: str) -> None:
    assert room not in below(room)
