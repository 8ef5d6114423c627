"""Where the questions come from: the hub, ModelScope, the sample in the package, a directory or a .zip.

A source is never replaced by another in silence: what cannot be had from the source the user named is a `DataError`
that names the other ways. Whatever the road, the same questions arrive as the same text, see `csv_files`.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path

from bundle.errors import DataError
from bundle.system.text import is_unicode
from bundle.tasks.benchmarks import Benchmark
from bundle.tasks.sources.csv_files import read_tables
from bundle.tasks.sources.local_files import read_directory
from bundle.tasks.sources.tables import Row, Tables, fingerprint
from bundle.tasks.sources.zip_files import read_archive

__all__ = ["Row", "Tables", "load_tables"]


def _silent(_: str) -> None:
    """Say nothing."""


def load_tables(
    source: str,
    benchmark: Benchmark,
    wanted: Sequence[tuple[str, str]],
    say: Callable[[str], None] = _silent,
) -> Tables:
    """Load the wanted tables of a benchmark, all of them or none.

    Args:
        source: ``hub``, ``modelscope``, ``sample``, or the path of a directory or .zip in the benchmark's own layout.
            A directory that has one of the three names is written ``./hub``.
        benchmark: Where its files lie and what they must hold.
        wanted: Pairs of subject and split.
        say: Told in one plain line what takes time, such as a download.

    Raises:
        DataError: The questions cannot be found, fetched or read; it says which file and, inside one, which line.
    """
    origin, rows = _load(source, benchmark, wanted, say)
    return Tables(source, origin, rows, fingerprint(rows, benchmark.columns))


def _load(
    source: str, benchmark: Benchmark, wanted: Sequence[tuple[str, str]], say: Callable[[str], None]
) -> tuple[str, Mapping[tuple[str, str], list[Row]]]:
    match source:
        case "hub":
            from bundle.tasks.sources.hub import load_from_hub

            return load_from_hub(benchmark, wanted, say)
        case "modelscope":
            from bundle.tasks.sources.modelscope import load_from_modelscope

            return load_from_modelscope(benchmark, wanted, say)
        case "sample":
            return _load_sample(benchmark, wanted)
        case _:
            return _load_path(source, benchmark, wanted)


def _load_sample(
    benchmark: Benchmark, wanted: Sequence[tuple[str, str]]
) -> tuple[str, Mapping[tuple[str, str], list[Row]]]:
    root = resources.files("bundle.tasks") / "sample" / benchmark.name
    if not root.is_dir():
        raise DataError(
            f"The package holds no sample questions for {benchmark.name}.",
            remedy="Use `--data hub`, `--data modelscope` or `--data PATH`.",
        )
    contents = read_directory(root, benchmark.file_names(wanted), "the sample in the package")
    return "sample questions in the package", read_tables(contents, benchmark, wanted, "sample: ")


def _load_path(
    source: str, benchmark: Benchmark, wanted: Sequence[tuple[str, str]]
) -> tuple[str, Mapping[tuple[str, str], list[Row]]]:
    names = benchmark.file_names(wanted)
    try:
        path = Path(source).expanduser().resolve()
        found, is_directory = path.exists(), path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # no permission, no such ~user, a NUL in the path
        reason = str(getattr(error, "strerror", None) or error).rstrip(".")
        raise DataError(f"{source!r} cannot be used as a path: {reason}.", remedy="Check the path.") from error
    if not is_unicode(source):
        raise DataError(f"The path {source!r} holds bytes that are no text.", remedy="Rename it.")
    if not source or not found:
        raise DataError(
            f"There is no data source {source!r}: it is neither hub, modelscope nor sample, and no such path exists.",
            remedy=f"Name one of the three, or a directory or .zip that holds {next(iter(names.values()))}.",
        )
    if is_directory:
        contents = read_directory(path, names, f"directory {path}")
        return f"directory {path}", read_tables(contents, benchmark, wanted, f"{path}/")
    if path.suffix.lower() != ".zip":
        raise DataError(f"{path} is neither a directory nor a .zip.", remedy="Give the directory the CSV files lie in.")
    folder, contents = read_archive(path, names)
    origin = f"zip file {path}" + (f" (folder {folder})" if folder else "")
    return origin, read_tables(contents, benchmark, wanted, f"{path}: {folder}")
