"""A benchmark's CSV files, read so that every cell is the text OpenCompass sees.

OpenCompass opens a file in text mode and hands it to `csv.reader`. Line ends are therefore translated, inside quotes
as well: a cell's "\\r\\n" or lone "\\r" is "\\n". Everything else stays as it is in the file: ``0.10``, ``NA``,
``null`` and spaces around a cell are text like any other. Unlike OpenCompass, which would pair up whatever it finds, a
file that is not well formed is an error. A UTF-8 byte order mark is skipped.
"""

import codecs
import csv
import io
from collections.abc import Mapping, Sequence

from bundle.errors import DataError
from bundle.tasks.benchmarks import Benchmark
from bundle.tasks.sources.tables import REMEDY, Row, check_rows, make_row, not_the_file, place_columns

MAX_ROWS = 1_000_000
"""A hundred times what all of a benchmark has; it keeps a hostile file from filling the memory."""


def read_tables(
    contents: Mapping[tuple[str, str], bytes], benchmark: Benchmark, wanted: Sequence[tuple[str, str]], prefix: str
) -> dict[tuple[str, str], list[Row]]:
    """Read the CSV file of every wanted pair; ``prefix`` goes before its name in errors.

    Raises DataError if a file is malformed.
    """
    names = benchmark.file_names(wanted)
    return {pair: read_csv(contents[pair], prefix + name, benchmark, pair[1]) for pair, name in names.items()}


def read_csv(data: bytes, where: str, benchmark: Benchmark, split: str) -> list[Row]:
    """The questions of one file.

    Raises DataError if the file is malformed, with its name and the line a faulty row begins in.
    """
    header, records = read_records(data, where)
    places = place_columns(header, benchmark, split, where)
    rows = [(line, make_row(cells, places, benchmark)) for line, cells in records]
    return check_rows(rows, benchmark, split, where, "line")


def read_records(data: bytes, where: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """A file's header, and the line and the cells of every row below it.

    Raises DataError if the file is malformed, with its name and the line a faulty row begins in.
    """
    # Strict, or a quote left open would swallow questions in silence.
    reader = csv.reader(io.StringIO(decode(data, where)), strict=True)
    header: list[str] = []
    records: list[tuple[int, list[str]]] = []
    blank: int | None = None
    begin = 1
    try:
        for cells in reader:
            line, begin = begin, reader.line_num + 1
            if not cells:
                blank = blank or line
            elif blank is not None and header:
                raise DataError(f"{where}, line {blank}: empty line between questions.", remedy=REMEDY)
            elif not header:
                header = cells
                _require_commas(header, where)
            elif len(cells) != len(header):
                raise DataError(
                    f"{where}, line {line}: {len(cells)} cells, but the header has {len(header)}.", remedy=REMEDY
                )
            elif len(records) == MAX_ROWS:
                raise DataError(f"{where} has more than {MAX_ROWS:,} rows.", remedy=REMEDY)
            else:
                records.append((line, cells))
    except csv.Error as error:
        raise DataError(f"{where}, line {begin}: {_explain(error)}.", remedy=REMEDY) from error
    if not header:
        raise DataError(f"{where} is empty.", remedy=REMEDY)
    return header, records


def _require_commas(header: list[str], where: str) -> None:
    if header[0].lower().startswith("sep="):  # a line of Excel's own
        raise DataError(f'{where}: it begins with a line "sep=…".', remedy="Delete that line, and save it with commas.")
    separator = next((one for one in ";\t|" if len(header) == 1 and one in header[0]), None)
    if separator is not None:
        raise DataError(
            f"{where}: its columns are not separated by commas but by {separator!r}.", remedy="Save it with commas."
        )


def decode(data: bytes, where: str) -> str:
    """UTF-8 to text, with line ends translated as text mode does.

    Raises DataError if it is not UTF-8, or holds a NUL.
    """
    while data.startswith(codecs.BOM_UTF8):  # each program that saves it may add one
        data = data.removeprefix(codecs.BOM_UTF8)
    if other := not_the_file(data, where):
        raise other
    if data.startswith(b"PK\x03\x04"):
        raise DataError(f"{where} is an Excel workbook or a .zip.", remedy='In Excel, save it as "CSV UTF-8".')
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{where}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x}).", remedy=_remedy_for_encoding(data)
        ) from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    nul = text.find("\0")
    if nul >= 0:
        raise DataError(f"{where}, line {text.count(chr(10), 0, nul) + 1}: a NUL character.", remedy=REMEDY)
    return text


def _remedy_for_encoding(data: bytes) -> str:
    # Nothing is guessed: what is decoded wrongly still looks like text.
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return 'It is UTF-16; in Excel, save it as "CSV UTF-8".'
    try:
        data.decode("gb18030")
    except UnicodeDecodeError:
        return "Save the file as UTF-8."
    return 'It may be GBK: `iconv -f gb18030 -t utf-8 FILE >NEW`, or in Excel, save it as "CSV UTF-8".'


def _explain(error: csv.Error) -> str:
    reason = str(error)
    if "unexpected end of data" in reason:
        return "a quote is opened here and never closed"
    if "field larger than field limit" in reason:
        return f"a cell has more than {csv.field_size_limit():,} characters, or a quote is never closed"
    return reason
