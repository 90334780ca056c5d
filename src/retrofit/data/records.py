"""What crosses a border: the pair record, its one Arrow schema, and content hashes.

A *pair* is a query with every passage known to answer it. Its identifiers are hashes of content, so the same text has
the same identifier in every language pool, split, run and machine, and a loss can mask duplicates by comparing them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pyarrow as pa

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

LABEL = pa.dictionary(pa.int16(), pa.string())
"""Type of columns with few different values: two bytes a row, so that selecting reads no text."""

PAIR_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.uint64(), nullable=False),
        pa.field("query", pa.string(), nullable=False),
        pa.field("positive_ids", pa.list_(pa.uint64()), nullable=False),
        pa.field("positives", pa.list_(pa.string()), nullable=False),
        pa.field("negative_ids", pa.list_(pa.uint64()), nullable=False),
        pa.field("negatives", pa.list_(pa.string()), nullable=False),
        pa.field("task", LABEL, nullable=False),
        pa.field("language", LABEL, nullable=False),
        pa.field("document_language", LABEL, nullable=False),
        pa.field("source", LABEL, nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("split", LABEL, nullable=False),
    ]
)

PASSAGE_SCHEMA = pa.schema(
    [
        pa.field("passage_id", pa.uint64(), nullable=False),
        pa.field("passage", pa.string(), nullable=False),
        pa.field("language", LABEL, nullable=False),
        pa.field("source", LABEL, nullable=False),
    ]
)


def content_id(text: str, language: str = "") -> int:
    """Return 64 bits that identify a text (and, for queries, the language that asks it)."""
    digest = hashlib.blake2b(f"{language}\x1f{text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def shown_id(identifier: int) -> str:
    """Return an identifier as results and reports show it: 16 hex digits."""
    return f"{identifier:016x}"


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
    def query_id(self) -> int:
        """Content hash of (language, query)."""
        return content_id(self.query, self.language)

    def row(self) -> dict[str, Any]:
        """Return the pair as a row of ``PAIR_SCHEMA``, identifiers filled in."""
        return {
            "query_id": self.query_id,
            "query": self.query,
            "positive_ids": [content_id(text) for text in self.positives],
            "positives": list(self.positives),
            "negative_ids": [content_id(text) for text in self.negatives],
            "negatives": list(self.negatives),
            "task": self.task,
            "language": self.language,
            "document_language": self.document_language,
            "source": self.source,
            "group": self.group,
            "split": self.split,
        }

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Pair:
        """Return the pair that a row of ``PAIR_SCHEMA`` holds."""
        names = ("query", "task", "language", "document_language", "source", "group", "split")
        labels = {name: row[name] for name in names}
        return cls(positives=tuple(row["positives"]), negatives=tuple(row["negatives"]), **labels)


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage that is searched although no pair may point to it: the rest of a corpus.

    Attributes:
        passage: its text.
        language: its language, as the source names it.
        source: name of the data source.
    """

    passage: str
    language: str
    source: str

    def row(self) -> dict[str, Any]:
        """Return the passage as a row of ``PASSAGE_SCHEMA``, its identifier filled in."""
        return {
            "passage_id": content_id(self.passage),
            "passage": self.passage,
            "language": self.language,
            "source": self.source,
        }


def to_table(pairs: Sequence[Pair]) -> pa.Table:
    """Return pairs as an Arrow table of ``PAIR_SCHEMA`` in memory."""
    return pa.Table.from_pylist([pair.row() for pair in pairs], schema=PAIR_SCHEMA)
