"""Rows of files with their places: a row that cannot be read never hides the others."""

from __future__ import annotations

import csv
import itertools
import json
import lzma
import re
import zlib
from collections.abc import Callable, Collection, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from retrofit.data.sources.files import DataFile
from retrofit.data.sources.refusals import Reason, RefusedRowError, Row
from retrofit.errors import UserError

_UNDECODED = re.compile("[\udc80-\udcff]")
_ROWS_A_BATCH = 256
_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What reading raises where a file is cut off, or not of the compression its name says."""

_MAX_CELL_CHARACTERS = 1 << 20
_MAX_ROW_CHARACTERS = 1 << 18
"""Of a row of several lines: a quote that is not closed takes in all that follows, so that good rows are lost."""


def read_rows(file: DataFile, form: str, paths: Collection[str] = ()) -> Iterator[Row]:
    """Yield the rows of a file.

    Args:
        file: the file, compressed or not.
        form: ``jsonl``, ``csv``, ``tsv``, ``parquet``, or ``txt`` for text with a row a line.
        paths: the fields that are wanted, as a column map names them; a format that can leaves out the others.

    Raises:
        UserError: the file as a whole cannot be read.
    """
    if form == "parquet":
        return read_parquet(file, paths)
    readers: dict[str, Callable[[DataFile], Iterator[Row]]] = {
        "jsonl": read_jsonl, "csv": read_csv, "tsv": read_tsv, "txt": read_text,
    }  # fmt: skip
    return readers[form](file)


def read_lines(file: DataFile) -> Iterator[str]:
    """Yield the lines of a file without their ends; bytes that are not UTF-8 become lone surrogates.

    Raises:
        UserError: the file is cut off or not of the compression its name says.
    """
    with file.open() as lines:
        for number in itertools.count(1):
            try:
                line = lines.readline()
            except _DAMAGE as error:
                raise UserError(f"{file.shown}, row {number}: cannot be read on: {error}") from error
            if not line:
                return
            text = line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "surrogateescape")
            yield text.removeprefix("\ufeff") if number == 1 else text


def read_jsonl(file: DataFile) -> Iterator[Row]:
    """Yield the objects of a JSON Lines file; empty lines are no rows."""
    for number, line in enumerate(read_lines(file), start=1):
        if line.strip():
            try:
                yield Row(file.shown, number, _json_object(line))
            except RefusedRowError as problem:
                yield Row(file.shown, number, problem=problem)


def _json_object(line: str) -> dict[str, object]:
    if _UNDECODED.search(line):
        raise RefusedRowError(Reason.INVALID_UTF8)
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RefusedRowError(Reason.BROKEN_JSON, found=str(error)) from error
    if not isinstance(value, dict):
        raise RefusedRowError(Reason.NOT_AN_OBJECT, found=value)
    return value


def read_text(file: DataFile) -> Iterator[Row]:
    """Yield the lines of a text file as the field ``text``; blank lines are no rows."""
    for number, line in enumerate(read_lines(file), start=1):
        if _UNDECODED.search(line):
            yield Row(file.shown, number, problem=RefusedRowError(Reason.INVALID_UTF8))
        elif line.strip():
            yield Row(file.shown, number, {"text": line})


def read_csv(file: DataFile) -> Iterator[Row]:
    """Yield the rows of a CSV file with a header (RFC 4180: a quoted cell may hold line breaks)."""
    lines = _RowLines(line + "\n" for line in read_lines(file))
    return _read_table(file, csv.reader(lines, strict=True), lines)


def read_tsv(file: DataFile) -> Iterator[Row]:
    """Yield the rows of a file with a header and tabs between cells; a quote is a character like any other."""
    lines = _RowLines(line.replace("\r", " ") for line in read_lines(file))
    return _read_table(file, csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE), lines)


class _RowLines:
    """Lines for the reader of a table, which are not endless for one row."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._characters = 0

    def begin_row(self) -> None:
        self._characters = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._characters > _MAX_ROW_CHARACTERS:
            raise csv.Error(f"a quote that is not closed within {_MAX_ROW_CHARACTERS:,} characters")
        line = next(self._lines)
        self._characters += len(line)
        return line


def _read_table(file: DataFile, cells: Iterator[list[str]], lines: _RowLines) -> Iterator[Row]:
    csv.field_size_limit(_MAX_CELL_CHARACTERS)
    header: list[str] | None = None
    while True:
        number = cells.line_num + 1  # type: ignore[attr-defined]  # of csv.reader, whose type has no public name
        lines.begin_row()
        try:
            row = next(cells)
        except StopIteration:
            return
        except csv.Error as error:
            # A quote that is not closed swallows good rows: each line counts, or thousands would pass for one bad row.
            reason = Reason.LONG_CELL if str(error).startswith("field larger") else Reason.BROKEN_QUOTING
            problem = RefusedRowError(reason, found=str(error))
            for line in range(number, cells.line_num + 1):  # type: ignore[attr-defined]
                yield Row(file.shown, line, problem=problem)
            continue
        if not row:
            continue
        if header is None:
            header = row
            if len(set(header)) < len(header) or "" in header:
                raise UserError(f"{file.shown}, row {number}: expected a header that names each column once")
        elif any(map(_UNDECODED.search, row)):
            yield Row(file.shown, number, problem=RefusedRowError(Reason.INVALID_UTF8))
        elif len(row) != len(header):
            found = f"{len(row)}, the header has {len(header)}"
            yield Row(file.shown, number, problem=RefusedRowError(Reason.WRONG_COLUMNS, found=found))
        else:
            yield Row(file.shown, number, dict(zip(header, row, strict=True)))


def read_parquet(file: DataFile, paths: Collection[str] = ()) -> Iterator[Row]:
    """Yield the rows of a Parquet file, a small batch in memory at a time.

    Args:
        file: the file.
        paths: the fields that are wanted; none, or none that the file has, takes all.

    Raises:
        UserError: the file is no Parquet, or damaged.
    """
    number = 0
    try:
        with file.open() as bytes_, pq.ParquetFile(bytes_) as table:
            names = table.schema_arrow.names
            wanted = [name for name in names if any(p == name or p.startswith(f"{name}.") for p in paths)]
            for batch in table.iter_batches(_ROWS_A_BATCH, columns=wanted or names):
                yield from _batch_rows(file.shown, number, batch)
                number += batch.num_rows
    except (pa.ArrowException, *_DAMAGE) as error:
        raise UserError(f"{file.shown}, after row {number}: cannot be read as Parquet: {error}") from error


def _batch_rows(file: str, before: int, batch: pa.RecordBatch) -> Iterator[Row]:
    try:
        for place, values in enumerate(batch.to_pylist()):
            yield Row(file, before + place + 1, values)
    except UnicodeDecodeError:
        if batch.num_rows > 1:
            for place in range(batch.num_rows):
                yield from _batch_rows(file, before + place, batch.slice(place, 1))
        else:
            yield Row(file, before + 1, problem=RefusedRowError(Reason.INVALID_UTF8))


def read_aligned(queries: DataFile, passages: DataFile) -> Iterator[Row]:
    """Yield the lines of two files that answer each other, as the fields ``query`` and ``positive``."""
    lines = itertools.zip_longest(read_lines(queries), read_lines(passages))
    for number, (query, positive) in enumerate(lines, start=1):
        if query is None or positive is None:
            longer = queries if positive is None else passages
            yield Row(longer.shown, number, problem=RefusedRowError(Reason.NO_COUNTERPART))
        elif _UNDECODED.search(query) or _UNDECODED.search(positive):
            damaged = queries if _UNDECODED.search(query) else passages
            yield Row(damaged.shown, number, problem=RefusedRowError(Reason.INVALID_UTF8))
        else:
            yield Row(queries.shown, number, {"query": query, "positive": positive})


def is_encodable(text: str) -> bool:
    """Return whether UTF-8 can hold a text: JSON may name half of a surrogate pair, which it cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
