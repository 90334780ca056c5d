"""What curation reports: counts that add up, and examples of each rule for people to judge it by."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

EXAMPLES = 10


def counts_and_examples(pairs: pa.Table, kept: npt.NDArray[np.int64], removed: pa.Table) -> dict[str, Any]:
    """Return an account of what was kept and what was removed, JSON-like.

    Args:
        pairs: of ``PAIR_SCHEMA``.
        kept: int64 ``[rows]``, rows of ``pairs``.
        removed: of ``REMOVED_SCHEMA``.

    Returns:
        ``candidates``, ``kept``, ``removed`` by reason, ``rows`` by task, language, and ``kept`` or reason,
        ``evaluation_sets`` by set and reason, and up to ten ``examples`` by reason, evenly drawn from the table.
    """
    reasons = removed.column("reason").cast(pa.string())
    rows = pa.concat_tables(
        [
            _labels(pairs, pa.array(kept)).append_column("outcome", pa.array(["kept"] * len(kept), pa.string())),
            _labels(pairs, removed.column("row").combine_chunks()).append_column("outcome", reasons),
        ]
    )
    sets = pa.table({"set": removed.column("evaluation_set").cast(pa.string()), "reason": reasons})
    sets = sets.filter(pc.not_equal(sets["set"], ""))
    return {
        "candidates": len(kept) + removed.num_rows,
        "kept": len(kept),
        "removed": _counts(removed.select(["reason"]).cast(pa.schema([("reason", pa.string())])), "reason"),
        "rows": _counts(rows, "task", "language", "outcome"),
        "evaluation_sets": _counts(sets, "set", "reason"),
        "examples": {reason: _examples(removed, reasons, reason) for reason in sorted(reasons.unique().to_pylist())},
    }


def _labels(pairs: pa.Table, rows: pa.Array) -> pa.Table:
    labels = pairs.select(["task", "language"])
    # By chunk: taking from a column of many chunks would first join them.
    return labels.cast(pa.schema([("task", pa.string()), ("language", pa.string())])).take(rows)


def _counts(table: pa.Table, *names: str) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    grouped = table.group_by(list(names)).aggregate([([], "count_all")])
    for row in sorted(zip(*(grouped.column(name).to_pylist() for name in (*names, "count_all")), strict=True)):
        node = tree
        for part in row[: len(names) - 1]:
            node = node.setdefault(part, {})
        node[row[-2]] = row[-1]
    return tree


def _examples(removed: pa.Table, reasons: pa.ChunkedArray, reason: str) -> list[dict[str, Any]]:
    places = np.flatnonzero(pc.equal(reasons, reason).to_numpy())
    chosen = places[np.unique(np.linspace(0, len(places) - 1, EXAMPLES).round().astype(np.int64))]
    examples: list[dict[str, Any]] = removed.take(pa.array(chosen)).to_pylist()
    return examples
