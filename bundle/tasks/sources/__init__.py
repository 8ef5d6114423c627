"""Where the questions come from: the Hub, ModelScope, the sample in the package, a directory or a .zip.

A source is never replaced by another in silence: what is not available from the source the user named is a `DataError`
that lists the other options. Wherever they come from, the same questions arrive as the same text, see `csv_files`.

A new source is a module here and a line in `SOURCES`.
"""

from collections.abc import Callable, Mapping, Sequence

from bundle.tasks.benchmarks import Benchmark
from bundle.tasks.sources.local import load_path, load_sample, resolve
from bundle.tasks.sources.tables import (
    PackedRows,
    Pair,
    Row,
    Rows,
    Sizes,
    Tables,
    fingerprint,
    shown_sizes,
    unlike_published,
)

__all__ = ["SOURCES", "PackedRows", "Row", "Sizes", "Tables", "load_tables", "require_source", "shown_sizes"]

Say = Callable[[str], None]
Loader = Callable[[Benchmark, Sequence[Pair], Say], tuple[str, Rows]]


def _hub(benchmark: Benchmark, wanted: Sequence[Pair], say: Say) -> tuple[str, Rows]:
    from bundle.tasks.sources.hub import load_from_hub  # imported late: slow, and only this source needs it

    return load_from_hub(benchmark, wanted, say)


def _modelscope(benchmark: Benchmark, wanted: Sequence[Pair], say: Say) -> tuple[str, Rows]:
    from bundle.tasks.sources.modelscope import load_from_modelscope  # urllib.request takes 50 ms

    return load_from_modelscope(benchmark, wanted, say)


SOURCES: Mapping[str, Loader] = {"hub": _hub, "modelscope": _modelscope, "sample": load_sample}
"""The sources by name; any other is the path of a directory or .zip."""


def require_source(source: str) -> None:
    """Raises DataError if a source is neither one of `SOURCES` nor the path of something."""
    if source not in SOURCES:
        resolve(source)


def load_tables(source: str, benchmark: Benchmark, wanted: Sequence[Pair], say: Say = lambda _: None) -> Tables:
    """Load the wanted tables of a benchmark, all of them or none.

    Raises DataError if the questions cannot be found, downloaded or read; it names the file and, inside one, the line.
    ``source``: one of `SOURCES`, or the path of a directory or .zip. A directory that has one of these names is written
    ``./hub``.
    """
    loader = SOURCES.get(source)
    origin, rows = loader(benchmark, wanted, say) if loader else load_path(source, benchmark, wanted, say)
    unlike = {} if source == "sample" else unlike_published(rows, benchmark)
    if unlike:
        say(f"not {benchmark.title} as it was published: {shown_sizes(unlike)} questions")
    return Tables(source, origin, rows, fingerprint(rows, benchmark.columns), unlike)
