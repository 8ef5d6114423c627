"""A benchmark in a directory, in a .zip, or in the package.

A directory may be in the benchmark's own layout, hold Parquet files as the Hub's clients write them, or hold the
benchmark's .zip. It may also have such a directory up to three levels below, as OpenCompass's ``data/`` has.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from bundle.errors import DataError
from bundle.system.files import read_regular
from bundle.system.text import did_you_mean, is_unicode
from bundle.tasks.benchmarks import BENCHMARKS, Benchmark
from bundle.tasks.sources.csv_files import read_tables
from bundle.tasks.sources.parquet_files import find_shards, read_shards
from bundle.tasks.sources.tables import MAX_FILE_BYTES, MissingFilesError, Pair, Rows, check_total, missing_files
from bundle.tasks.sources.zip_files import names_in, read_archive

_NAMES = ("hub", "modelscope", "sample")
_SAMPLE = Path(__file__).parents[1] / "sample"
_DEPTH = 3
_PACKED = (".zip", ".gz", ".tgz", ".tar", ".bz2", ".xz", ".zst", ".7z", ".rar")
_TABLES = (".tsv", ".xlsx", ".xls", ".json", ".jsonl")
_FOLDERS = 1000  # enough for a folder of datasets, and soon done in a home directory


def load_sample(benchmark: Benchmark, wanted: Sequence[Pair], say: Callable[[str], None]) -> tuple[str, Rows]:
    """The wanted tables from the sample in the package, and where they came from."""
    root = _SAMPLE / benchmark.name
    if not root.is_dir():
        raise DataError(
            f"The package has no sample questions for {benchmark.title}.", remedy="Use another source with `--data`."
        )
    rows = _read_directory(root, benchmark, wanted, "the sample in the package", "sample: ")
    return "sample questions in the package", rows


def load_path(
    source: str, benchmark: Benchmark, wanted: Sequence[Pair], say: Callable[[str], None]
) -> tuple[str, Rows]:
    """The wanted tables from a directory or a .zip, and where they came from.

    Raises DataError if there is nothing of this benchmark, several copies of it, or files that cannot be read.
    """
    path = resolve(source)
    try:
        if path.is_dir():
            return _load_directory(path, benchmark, wanted, say)
        if path.suffix.lower() == ".zip":
            return _load_zip(path, benchmark, wanted)
    except MissingFilesError:
        other = next((one for one in BENCHMARKS.values() if one.name != benchmark.name and _holds(path, one)), None)
        if other is None:
            raise
        raise DataError(
            f"{path} looks like {other.title}, not {benchmark.title}.",
            remedy=f"Use a {other.title} task, such as `--task {other.name}_gen`, or give {benchmark.title}'s files.",
        ) from None
    packed = path.suffix.lower() in _PACKED
    remedy = "Unpack it, and give what is inside." if packed else "Give the directory that has the CSV files."
    raise DataError(f"{path} is neither a directory nor a .zip.", remedy=remedy)


def resolve(source: str) -> Path:
    """The path that a source names. Raises DataError if it cannot be used as one, or there is nothing at it."""
    try:
        path = Path(source).expanduser().resolve()
        found = bool(source) and path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # no permission, no such ~user, a NUL in the path
        reason = str(getattr(error, "strerror", None) or error).rstrip(".")
        raise DataError(f"{source!r} cannot be used as a path: {reason}.", remedy="Check the path.") from error
    if not is_unicode(source):
        raise DataError(f"The path {source!r} is not valid UTF-8.", remedy="Rename it.")
    if not found:
        raise DataError(
            f"There is no data source {source!r}: it is not hub, modelscope or sample, and no such path exists.",
            remedy=did_you_mean(source, _NAMES, "Use one of the three, or the path of a directory or .zip."),
        )
    return path


@dataclass(frozen=True, slots=True)
class _Place:
    kind: Literal["csv", "parquet", "zip"]
    path: Path


def _load_directory(
    root: Path, benchmark: Benchmark, wanted: Sequence[Pair], say: Callable[[str], None]
) -> tuple[str, Rows]:
    places = _places(root, benchmark, wanted)
    if len(places) > 1:
        shown = ", ".join(str(place.path) for place in places[:4])
        raise DataError(f"{root} has {benchmark.title} more than once: {shown}.", remedy="Give one of them as --data.")
    if not places:
        names = benchmark.file_names(wanted)
        nearby = [path for path in [root.parent] if any(_is_file(path / name) for name in names.values())]
        error = missing_files(list(names.values()), len(names), f"directory {root}", _list(root), nearby)
        instead = None if nearby else _instead(root, benchmark, names.values())
        raise MissingFilesError(error.message, remedy=instead or error.remedy)
    place = places[0]
    if place.path != root:
        say(f"Reading {benchmark.title} from {place.path}.")
    if place.kind == "zip":
        return _load_zip(place.path, benchmark, wanted)
    where = f"directory {place.path}"
    if place.kind == "csv":
        return where, _read_directory(place.path, benchmark, wanted, where, f"{place.path}/")
    files = _parquet_files(place.path)
    shards = find_shards(files, wanted)
    absent = [f"{subject}/{split}-*.parquet" for subject, split in wanted if (subject, split) not in shards]
    if absent:
        raise missing_files(absent, len(wanted), where, sorted(files))
    return where, read_shards(files, shards, benchmark, wanted, f"{place.path}/")


def _load_zip(path: Path, benchmark: Benchmark, wanted: Sequence[Pair]) -> tuple[str, Rows]:
    folder, rows = read_archive(path, benchmark, wanted, str(path))
    return f"zip file {path}" + (f" (folder {folder})" if folder else ""), rows


def _holds(path: Path, benchmark: Benchmark) -> bool:
    """Whether most subjects of a benchmark are at or below a path."""
    wanted = [(subject.name, benchmark.main_split) for subject in benchmark.subjects]
    places = _places(path, benchmark, wanted) if path.is_dir() else [_Place("zip", path)]
    return any(2 * len(_held(place, wanted, benchmark)) > len(wanted) for place in places)


def _held(place: _Place, wanted: Sequence[Pair], benchmark: Benchmark) -> Sequence[object]:
    names = benchmark.file_names(wanted).values()
    if place.kind == "zip":
        return _members(place.path, names)
    if place.kind == "csv":
        return [name for name in names if _is_file(place.path / name)]
    return list(find_shards(_parquet_files(place.path), wanted))


def _places(root: Path, benchmark: Benchmark, wanted: Sequence[Pair]) -> list[_Place]:
    """Where the files are: the directory itself, or else whatever is nearest below it."""
    names = list(benchmark.file_names(wanted).values())
    subjects, tops = {subject for subject, _ in wanted}, {name.split("/")[0] for name in names}

    def look(folder: Path) -> _Place | None:
        entries = set(_list(folder))
        if entries & tops and any(_is_file(folder / name) for name in names):
            return _Place("csv", folder)
        if entries & subjects and find_shards(_parquet_files(folder), wanted):
            return _Place("parquet", folder)
        zips = [folder / name for name in sorted(entries) if name.lower().endswith(".zip")]
        if folder / benchmark.archive in zips:
            return _Place("zip", folder / benchmark.archive)
        return next((_Place("zip", path) for path in zips[:20] if _members(path, names)), None)

    found = ([place for folder in level if (place := look(folder))] for level in _levels(root))
    return next((places for places in found if places), [])


def _levels(root: Path) -> Iterator[list[Path]]:
    """A directory, then those in it, then those in these; hidden ones are left out."""
    level = [root]
    seen = 0
    for _ in range(_DEPTH + 1):
        yield level
        below = (folder / name for folder in level for name in _list(folder) if not name.startswith("."))
        level = list(islice((path for path in below if path.is_dir()), _FOLDERS - seen))
        seen += len(level)


def _instead(root: Path, benchmark: Benchmark, names: Iterable[str]) -> str | None:
    """The remedy where the questions are there in another form than is read: packed, as another kind, renamed."""
    wanted = {name.casefold(): name for name in names}
    subjects = tuple(subject.name for subject in benchmark.subjects)
    for path in (folder / name for level in _levels(root) for folder in level for name in _list(folder)):
        below = path.relative_to(root).as_posix().casefold()
        if (name := wanted.get(below)) is not None:
            return f"Names are as published, in small letters: rename {path} to {name}, and all others like it."
        kind = path.suffix.lower()
        if kind in _PACKED and _is_file(path):
            return f"Unpack {path}, and give what is inside."
        if kind in (".arrow", ".parquet") and any(part.startswith(subjects) for part in below.split("/")):
            return (
                f"{path} is not in the layout of the dataset on the Hub. Download that with "
                f"`hf download {benchmark.hub} --repo-type dataset --local-dir DIR`, and give DIR."
            )
        if kind in _TABLES and path.name.casefold().startswith(subjects):
            return f"Save {path}, and all others like it, as CSV files with commas, in UTF-8."
    return None


def _parquet_files(folder: Path) -> dict[str, Path]:
    paths = islice((path for pattern in ("*/*.parquet", "*/*/*.parquet") for path in folder.glob(pattern)), 10_000)
    return {path.relative_to(folder).as_posix(): path for path in paths}


def _members(path: Path, names: Iterable[str]) -> list[str]:
    """The members of a .zip that end in one of these names."""
    wanted = tuple(names)
    return [member for member in names_in(path) if member.endswith(wanted)]


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises for some names


def _read_directory(root: Path, benchmark: Benchmark, wanted: Sequence[Pair], where: str, prefix: str) -> Rows:
    """Read the CSV files of the wanted tables below a directory; ``prefix`` goes before a file's name in errors.

    Raises DataError if some are missing or cannot be read; it says what is there instead.
    """
    names = benchmark.file_names(wanted)
    contents: dict[Pair, bytes] = {}
    absent: list[str] = []
    total = 0
    for pair, name in names.items():
        try:
            contents[pair] = read_regular(root / name, MAX_FILE_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            absent.append(name)
        except OSError as error:
            raise DataError(
                f"{name} in {where} cannot be read: {error.strerror or error}.",
                remedy="Check that it is the benchmark's own file, and its permissions.",
            ) from error
        else:
            total += len(contents[pair])
            check_total(total, where)
    if absent:
        folder = absent[0].rpartition("/")[0]
        there = [f"{folder}/{file}" for file in _list(root / folder)]
        raise missing_files(absent, len(names), where, there or _list(root))
    return read_tables(contents, benchmark, wanted, prefix)


def _list(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - only the names are wanted
    except OSError:
        return []
