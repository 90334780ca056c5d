"""Small BEIR folders."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any


def beir(
    folder: Path,
    corpus: list[Any],
    queries: list[Any],
    qrels: str,
    *,
    zipped: bool = False,
) -> Path:
    """Write a folder; a row that is a text is a line as it stands."""
    (folder / "qrels").mkdir(parents=True)
    for name, rows in (("corpus.jsonl", corpus), ("queries.jsonl", queries)):
        text = "".join((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (folder / name).write_text(text, encoding="utf-8")
    (folder / "qrels" / "test.tsv").write_text(qrels, encoding="utf-8")
    return folder
