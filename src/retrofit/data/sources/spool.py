"""Checked rows on disk, with what merging them needs to know as integers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from retrofit.data.records import LABEL, SPLITS, content_id
from retrofit.data.sources.columns import Example
from retrofit.data.sources.refusals import Row
from retrofit.data.storage import RecordWriter
from retrofit.errors import UserError

SPOOL = "spool.arrow"
UNSAID = -1
"""In place of a split's place in ``SPLITS`` where the source does not say."""

SPOOL_SCHEMA = pa.schema(
    [
        pa.field("query", pa.string()),
        pa.field("positives", pa.list_(pa.string())),
        pa.field("negatives", pa.list_(pa.string())),
        *(pa.field(name, LABEL) for name in ("task", "language", "document_language", "source")),
        pa.field("file", pa.dictionary(pa.int32(), pa.string())),  # a folder may hold more files than LABEL has codes
        pa.field("group", pa.string()),
        pa.field("split", pa.int8()),
        pa.field("number", pa.int64()),
        pa.field("row_key", pa.uint64()),
        pa.field("pair_key", pa.uint64()),
        pa.field("question_key", pa.uint64()),
        pa.field("query_text_id", pa.uint64()),
        pa.field("positive_ids", pa.list_(pa.uint64())),
        pa.field("negative_ids", pa.list_(pa.uint64())),
    ]
)

_MOST_LABELS = 10_000


class SpoolWriter:
    """Writes examples to the spool; use as a context manager.

    Args:
        folder: where ``spool.arrow`` goes.
    """

    def __init__(self, folder: Path) -> None:
        self._writer = RecordWriter(folder / SPOOL, SPOOL_SCHEMA)
        self._labels: dict[str, set[str]] = {"task": set(), "language": set(), "document_language": set()}

    def __enter__(self) -> SpoolWriter:
        self._writer.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._writer.__exit__(*error)

    @property
    def rows(self) -> int:
        """How many examples were written so far."""
        return self._writer.rows

    def write(self, example: Example, row: Row, source: str) -> None:
        """Add an example.

        Args:
            example: the example, checked.
            row: where it comes from.
            source: name of the source.

        Raises:
            UserError: a column that should hold labels holds something else.
        """
        for name, known in self._labels.items():
            known.add(getattr(example, name))
            if len(known) > _MOST_LABELS:
                raise UserError(
                    f"{row.file}, row {row.number}: more than {_MOST_LABELS} different values of {name}; "
                    f"expected labels (data_source.columns.{name})"
                )
        self._writer.write(_spooled(example, row, source))


def _spooled(example: Example, row: Row, source: str) -> Mapping[str, Any]:
    positive_ids = [content_id(text) for text in example.positives]
    negative_ids = [content_id(text) for text in example.negatives]
    # Without a group, all rows of a query are one pair, whatever their answers; its group is found afterwards.
    group = "" if example.group is None else f"\x1e{example.group}"
    languages = (example.language, example.document_language)
    pair_key = content_id("\x1f".join([example.query, example.task, *languages, group, example.split or ""]))
    return {
        "query": example.query,
        "positives": example.positives,
        "negatives": example.negatives,
        "task": example.task,
        "language": example.language,
        "document_language": example.document_language,
        "source": source,
        "file": row.file,
        "group": example.group,
        "split": UNSAID if example.split is None else SPLITS.index(example.split),
        "number": row.number,
        "row_key": content_id(f"{pair_key} {sorted(positive_ids)} {sorted(negative_ids)}"),
        "pair_key": pair_key,
        "question_key": content_id("\x1f".join([example.query, *languages])),
        "query_text_id": content_id(example.query),
        "positive_ids": positive_ids,
        "negative_ids": negative_ids,
    }
