"""Pairs on disk: one memory-mapped Arrow file that is written in batches and never read whole.

Arrow's file format lies on disk as it lies in memory, so opening ten million pairs maps them and reads none; what a
batch takes is read, and what a selection looks at are columns of two bytes a row.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from retrofit.data.records import PAIR_SCHEMA, PASSAGE_SCHEMA, Pair, Passage

PAIRS = "pairs.arrow"
PASSAGES = "passages.arrow"
REPORT = "report.json"

_ROWS_A_BATCH = 20_000
_CHARACTERS_A_BATCH = 1 << 26  # of at most four bytes each: a column of a batch holds less than 2 GiB


class RecordWriter:
    """Writes rows of a schema to an Arrow file, aside and then renamed; nothing but the current batch is in memory.

    Use as a context manager: the file appears when the context ends without an exception.

    Attributes:
        path: the file.
        schema: of the rows; its label columns share one growing dictionary a column.
        rows: how many were written so far.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.schema = schema
        self.rows = 0
        self._partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
        self._buffer: list[Mapping[str, Any]] = []
        self._characters = 0
        self._codes: dict[str, dict[str, int]] = {
            field.name: {} for field in schema if pa.types.is_dictionary(field.type)
        }

    def __enter__(self) -> Self:
        self._file = pa.OSFile(str(self._partial), "wb")
        options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
        self._writer = pa.ipc.new_file(self._file, self.schema, options=options)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
            self._writer.close()
            self._file.close()
            if kind is None:
                self._partial.replace(self.path)
        finally:
            self._partial.unlink(missing_ok=True)

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row."""
        self._buffer.append(row)
        self.rows += 1
        self._characters += sum(map(_characters, row.values()))
        if len(self._buffer) == _ROWS_A_BATCH or self._characters >= _CHARACTERS_A_BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._buffer:
            columns = [self._column(field) for field in self.schema]
            self._writer.write_batch(pa.record_batch(columns, schema=self.schema))
            self._buffer.clear()
            self._characters = 0

    def _column(self, field: pa.Field) -> pa.Array:
        values = [row[field.name] for row in self._buffer]
        if field.name not in self._codes:
            return pa.array(values, field.type)
        # The file format allows a dictionary to grow from batch to batch, not to change.
        codes = self._codes[field.name]
        indices = pa.array([codes.setdefault(value, len(codes)) for value in values], field.type.index_type)
        return pa.DictionaryArray.from_arrays(indices, pa.array(list(codes), pa.string()))


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    return sum(map(_characters, value)) if isinstance(value, list | tuple) else 0


def write_pairs(path: Path, pairs: Iterable[Pair]) -> int:
    """Write pairs to a file and return how many there were."""
    with RecordWriter(path, PAIR_SCHEMA) as writer:
        for pair in pairs:
            writer.write(pair.row())
    return writer.rows


def write_passages(path: Path, passages: Iterable[Passage]) -> int:
    """Write passages to a file and return how many there were."""
    with RecordWriter(path, PASSAGE_SCHEMA) as writer:
        for passage in passages:
            writer.write(passage.row())
    return writer.rows


def nested(counts: Mapping[Any, int]) -> dict[str, Any]:
    """Return counts by tuples of strings as nested mappings, one level per item of the tuple, in sorted order."""
    tree: dict[str, Any] = {}
    for key, count in sorted(counts.items()):
        node = tree
        for part in key[:-1]:
            node = node.setdefault(part, {})
        node[key[-1]] = count
    return tree


def read_records(path: Path) -> pa.Table:
    """Return the rows of an Arrow file as a memory-mapped table: opening it reads no text."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


class RowReader:
    """Reads rows of a table by number, and nothing else of it.

    Arrow's own ``take`` joins the batches of a text column before it takes from it: the whole file, for one row.

    Attributes:
        table: what is read from.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self._batches = table.to_batches()
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])

    def rows(self, numbers: np.ndarray) -> list[dict[str, Any]]:
        """Return rows as dictionaries, in the order of their numbers.

        Args:
            numbers: int64, row numbers of the table.
        """
        of_batch = np.searchsorted(self._starts, numbers, side="right") - 1
        found: list[dict[str, Any]] = [{}] * len(numbers)
        for index in np.unique(of_batch).tolist():
            places = np.flatnonzero(of_batch == index)
            taken = self._batches[index].take(pa.array(numbers[places] - self._starts[index]))
            for place, row in zip(places.tolist(), taken.to_pylist(), strict=True):
                found[place] = row
        return found


@dataclass(frozen=True)
class PairSource:
    """The folder a data source builds, opened.

    Attributes:
        folder: holds ``pairs.arrow``, ``report.json`` and, where there is more to search in, ``passages.arrow``.
        pairs: memory-mapped table of ``PAIR_SCHEMA``. Every pair lists all positives the source knows of its query in
            its document language.
        passages: memory-mapped table of ``PASSAGE_SCHEMA``: passages that are searched whatever the split; None where
            the passages of the pairs are all there are.
        report: what was read, left out and why; JSON-like.
    """

    folder: Path
    pairs: pa.Table
    passages: pa.Table | None
    report: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> PairSource:
        """Return the source of an artefact's folder."""
        passages = folder / PASSAGES
        return cls(
            folder,
            read_records(folder / PAIRS),
            read_records(passages) if passages.exists() else None,
            json.loads((folder / REPORT).read_text(encoding="utf-8")),
        )

    @property
    def fingerprint(self) -> str:
        """What identifies the data: the name of the artefact's folder."""
        return self.folder.name
