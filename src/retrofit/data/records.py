"""What crosses a border: the pair record, its one Parquet schema, and content hashes.

A *pair* is a query with every passage known to answer it. Its identifiers are hashes of content, so the same text has
the same identifier in every language pool, split, run and machine, and a loss can mask duplicates by comparing them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

PAIR_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("query", pa.string(), nullable=False),
        pa.field("positive_ids", pa.list_(pa.string()), nullable=False),
        pa.field("positives", pa.list_(pa.string()), nullable=False),
        pa.field("negative_ids", pa.list_(pa.string()), nullable=False),
        pa.field("negatives", pa.list_(pa.string()), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("document_language", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)


def content_id(text: str, language: str = "") -> str:
    """Return 16 hex digits that identify a text (and, for queries, the language that asks it)."""
    return hashlib.blake2b(f"{language}\x1f{text}".encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and the passages known to answer it.

    Attributes:
        query: the text of the query, without a model's prefix.
        positives: passages that answer it, at least one, without duplicates.
        task: what relates the two, e.g. ``field_help`` or ``bitext``.
        language: language of the query, as the source names it (``de``, ``zh-Hans``).
        document_language: language of the passages.
        source: name of the data source.
        group: the unit that is never divided between splits, e.g. an integration or an article.
        split: the split the group fell into.
        negatives: passages known or mined not to answer it; may be empty.
    """

    query: str
    positives: tuple[str, ...]
    task: str
    language: str
    document_language: str
    source: str
    group: str
    split: Split
    negatives: tuple[str, ...] = ()

    @property
    def query_id(self) -> str:
        """Content hash of (language, query)."""
        return content_id(self.query, self.language)


def to_table(pairs: Iterable[Pair]) -> pa.Table:
    """Return pairs as an Arrow table of ``PAIR_SCHEMA``, identifiers filled in."""
    pairs = list(pairs)
    columns: dict[str, list[Any]] = {
        "query_id": [pair.query_id for pair in pairs],
        "positive_ids": [[content_id(text) for text in pair.positives] for pair in pairs],
        "negative_ids": [[content_id(text) for text in pair.negatives] for pair in pairs],
    }
    columns |= {name: [getattr(pair, name) for pair in pairs] for name in PAIR_SCHEMA.names if name not in columns}
    return pa.Table.from_pydict(columns, schema=PAIR_SCHEMA)


def write_pairs(path: Path, table: pa.Table) -> None:
    """Write pairs as Parquet, aside and then renamed."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        pq.write_table(table.cast(PAIR_SCHEMA), partial, compression="zstd")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_pairs(path: Path) -> pa.Table:
    """Return the pairs of a Parquet file as an Arrow table of ``PAIR_SCHEMA``."""
    return pq.read_table(path, schema=PAIR_SCHEMA, memory_map=True)
