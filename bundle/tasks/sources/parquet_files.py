"""A benchmark's Parquet files, as the Hub stores them: text as in its CSV files, ids as numbers."""

import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

from bundle.errors import DataError
from bundle.tasks.benchmarks import Benchmark
from bundle.tasks.sources.tables import (
    Pair,
    Row,
    check_rows,
    check_size,
    check_total,
    make_row,
    not_the_file,
    place_columns,
)

_REMEDY = "Read the benchmark from its .zip or its CSV files instead, with `--data PATH`."

# SUBJECT/val-00000-of-00001.parquet as `push_to_hub` of the datasets package writes it, in older versions with a hash
# at the end; SUBJECT/val/0000.parquet on the Hub's branch refs/convert/parquet, where the count is not in the name.
_SHARD = re.compile(
    r"(?P<subject>[^/]+)/(?P<split>[^/-]+)"
    r"(?:-(?P<number>\d{5})-of-(?P<count>\d{5})(?:-\w+)?|/(?P<converted>\d{4}))\.parquet"
)


_Table = dict[str, list[object]]
"""A file's columns."""


def find_shards(names: Iterable[str], wanted: Sequence[Pair]) -> dict[Pair, list[str]]:
    """The Parquet files of every wanted pair, in order; a pair whose files are not all there is left out."""
    shards: dict[Pair, list[str]] = {}
    counts: dict[Pair, int] = {}
    for name in sorted(names):
        if match := _SHARD.fullmatch(name):
            pair = match["subject"], match["split"]
            shards.setdefault(pair, []).append(name)
            counts[pair] = int(match["count"] or int(match["converted"]) + 1)
    return {pair: shards[pair] for pair in wanted if len(shards.get(pair, ())) == counts.get(pair)}


def read_shards(
    files: Mapping[str, Path],
    shards: Mapping[Pair, Sequence[str]],
    benchmark: Benchmark,
    wanted: Sequence[Pair],
    where: str,
) -> dict[Pair, list[Row]]:
    """Read every wanted table, each from its files in order.

    Line ends inside a cell are "\\n" here as they are in a CSV file (see `csv_files`), and a table without ids is
    numbered from 0: Parquet editions of CMMLU leave out the unnamed column that numbers the rows of its CSV files.
    Raises DataError if a file is damaged or does not hold the benchmark's columns as text. ``shards`` are
    those of `find_shards`.
    """
    tables = _read_files({name: files[name] for pair in wanted for name in shards[pair]}, where)
    return {
        pair: _rows({name: tables[name] for name in shards[pair]}, benchmark, pair[1], where)
        for pair in dict.fromkeys(wanted)
    }


def _rows(tables: Mapping[str, _Table], benchmark: Benchmark, split: str, where: str) -> list[Row]:
    rows: list[tuple[int, Row]] = []
    for name, table in tables.items():
        header, columns = list(table), list(table.values())
        if not any(benchmark.renames.get(column, column) == "id" for column in header):
            header.append("id")
            columns.append(list(range(len(rows), len(rows) + (len(columns[0]) if columns else 0))))
        places = place_columns(header, benchmark, split, where + name)
        texts = {
            column: [
                _text(cell, column, benchmark, f"{where}{name}, row {number}") for number, cell in enumerate(cells, 1)
            ]
            for column, cells in ((column, columns[place]) for column, place in places.items())
        }
        placed = {column: place for place, column in enumerate(texts)}
        for cells in zip(*texts.values(), strict=True):
            rows.append((len(rows) + 1, make_row(cells, placed, benchmark)))
    return check_rows(rows, benchmark, split, where + ", ".join(tables), "row")


def _read_files(files: Mapping[str, Path], where: str) -> dict[str, _Table]:
    """The content of every file.

    Files with the same columns are read together: most of the time goes into what the package does once for a call.
    """
    import datasets  # these two take a second, and CSV files do without
    import pyarrow.parquet

    alike: dict[tuple[tuple[str, str], ...], dict[str, int]] = {}
    total = 0
    for name, path in files.items():
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                size = sum(file.metadata.row_group(group).total_byte_size for group in range(file.num_row_groups))
                columns, count = [(one.name, str(one.type)) for one in file.schema_arrow], file.metadata.num_rows
        except Exception as error:
            raise _unreadable(name, path, where, error) from error
        check_size(size, where + name)
        total += size
        alike.setdefault(tuple(columns), {})[name] = count
    check_total(total, where.rstrip(": /") or "the benchmark")

    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        tables = {name: table for counts in alike.values() for name, table in _read_alike(files, counts, where).items()}
    finally:
        if shown:
            datasets.enable_progress_bars()
    return {name: tables[name] for name in files}


def _read_alike(files: Mapping[str, Path], counts: Mapping[str, int], where: str) -> dict[str, _Table]:
    """The content of files with the same columns and these numbers of rows."""
    try:
        joint = _joint([files[name] for name in counts], sum(counts.values()))
    except Exception as error:  # what a damaged file raises differs from version to version
        if len(counts) == 1:
            (name,) = counts
            raise _unreadable(name, files[name], where, error) from error
        return {name: table for one in counts for name, table in _read_alike(files, {one: counts[one]}, where).items()}
    begins = accumulate(counts.values(), initial=0)
    return {
        name: {column: cells[begin : begin + count] for column, cells in joint.items()}
        for (name, count), begin in zip(counts.items(), begins, strict=False)
    }


def _joint(paths: Sequence[Path], count: int) -> _Table:
    import datasets  # imported already

    # The package copies every file it reads into a cache; that copy is of no use here. It takes paths for patterns, so
    # it is given links without brackets in their names.
    with tempfile.TemporaryDirectory(prefix="bundle-parquet-") as copy:
        links = [Path(copy, f"{number}.parquet") for number in range(len(paths))]
        for link, path in zip(links, paths, strict=True):
            link.symlink_to(path.absolute())
        loaded = datasets.Dataset.from_parquet([str(link) for link in links], cache_dir=copy, keep_in_memory=True)
        joint: _Table = loaded.to_dict()
    if any(len(cells) != count for cells in joint.values()):
        raise ValueError("it holds another number of rows than it declares")
    return joint


def _unreadable(name: str, path: Path, where: str, error: Exception) -> DataError:
    if other := not_the_file(path, where + name):
        return other
    cause = error.__cause__ or error
    reason = (str(cause).splitlines() or [type(cause).__name__])[0].rstrip(".")
    return DataError(f"{where}{name} is not a readable Parquet file: {reason}.", remedy=f"Remove {path} and run again.")


def _text(cell: object, column: str, benchmark: Benchmark, where: str) -> str:
    match cell:
        case str():
            return cell.replace("\r\n", "\n").replace("\r", "\n")
        case None if column in benchmark.optional:
            return benchmark.optional[column]
        case None:
            raise DataError(f"{where}: column {column!r} is null.", remedy=_REMEDY)
        case int() if column == "id" and not isinstance(cell, bool):
            return str(cell)
        case _:
            # How the number was written ("0.10") is lost, so this is not the benchmark's text any more.
            raise DataError(f"{where}: column {column!r} holds a {type(cell).__name__}, not text.", remedy=_REMEDY)
