"""Questions made for benchmarks."""

from pathlib import Path

from benchmarks.questions import read_sizes, write_questions

SAMPLE = Path(__file__).parents[2] / "bundle" / "tasks" / "sample" / "ceval" / "val"


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*.csv")}


def test_there_are_as_many_subjects_and_questions_as_in_ceval() -> None:
    sizes = read_sizes()
    assert {f"{one.subject}_val.csv" for one in sizes} == {path.name for path in SAMPLE.iterdir()}
    assert (sum(one.val for one in sizes), sum(one.test for one in sizes)) == (1346, 12342)


def test_the_same_seed_writes_the_same_questions_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        write_questions(tmp_path / name, seed)
    one, same, other = (contents(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same
    assert one.keys() == other.keys()
    assert not any(one[name] == other[name] for name in one)
