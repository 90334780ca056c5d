"""What is in a selection, in numbers and examples: the content of a data card."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrofit.data.records import SPLITS
from retrofit.data.selection import STRATUM_COLUMNS, cap_per_stratum, count_by, labels, select, strata
from retrofit.data.storage import RowReader
from retrofit.data.training_data import TrainingData

Tokenize = Callable[[Sequence[str], Literal["query", "passage"]], list[list[int]]]

LIMITS = (64, 128, 256, 512)
"""Lengths in tokens that texts are commonly cut at."""

_EDGES = (0, 8, 16, 32, 64, 128, 256, 512, np.inf)
_BINS = ("0–7", "8–15", "16–31", "32–63", "64–127", "128–255", "256–511", "512+")
_EXAMPLE_LENGTH = 300
_REMOVED_EXAMPLES = 12


def inspect_selection(
    data: TrainingData, name: str, tokenize: Tokenize, sample: int, examples: int, seed: int
) -> dict[str, Any]:
    """Return the data card of what a configuration selects, JSON-like.

    Counts are of every pair; lengths in tokens, of a sample. No more texts than the sample's are read.

    Args:
        data: the selection.
        name: of the data source.
        tokenize: turns texts of a kind into token ids, uncut.
        sample: pairs of each task and language pair whose tokens are counted.
        examples: pairs of each task and language pair that are shown.
        seed: of the sample.
    """
    table, rows = data.source.pairs, data.rows
    reader = RowReader(table)
    return {
        "name": name,
        "fingerprint": data.source.fingerprint,
        "source": dict(data.source.report),
        "passages_besides": 0 if data.source.passages is None else len(data.source.passages),
        "pairs": len(rows),
        "selected": _counts(count_by(table, rows, *STRATUM_COLUMNS)),
        "by_split": _by_split(table),
        "curation": dict(data.curation.report),
        "removed_examples": _removed_examples(data.curation.removed),
        "texts": _texts(table, rows),
        "tokens": _tokens(table, rows, reader, tokenize, sample, seed),
        "examples": _examples(reader.rows(cap_per_stratum(table, rows, examples, seed))),
    }


def _counts(counts: Mapping[tuple[str, ...], int]) -> list[dict[str, Any]]:
    return [dict(zip((*STRATUM_COLUMNS, "pairs"), (*key, pairs), strict=True)) for key, pairs in counts.items()]


def _by_split(table: pa.Table) -> list[dict[str, Any]]:
    """Return the pairs of each split and task of the whole source, before anything is selected."""
    return [
        {"split": split, "task": task, "pairs": pairs}
        for split in SPLITS
        for (task,), pairs in count_by(table, select(table, split), "task").items()
    ]


def _removed_examples(removed: pa.Table) -> list[dict[str, Any]]:
    """Return removed rows to look at: of each reason, in turn, those that come first."""
    codes, reasons = labels(removed, "reason")
    of_reason = {reason: np.flatnonzero(codes == code) for code, reason in enumerate(reasons)}
    each = max(1, _REMOVED_EXAMPLES // max(1, len(reasons)))
    chosen = [number for reason in sorted(of_reason) for number in of_reason[reason][:each].tolist()]
    return RowReader(removed).rows(np.array(chosen, dtype=np.int64))


def _texts(table: pa.Table, rows: np.ndarray) -> dict[str, Any]:
    """Return how often queries and passages recur in the selection, and how many passages a query has."""
    query_ids = table["query_id"].to_numpy()[rows]
    positives, negatives = [], []
    passages: list[np.ndarray] = []
    chosen = np.zeros(len(table), dtype=bool)
    chosen[rows] = True
    start = 0
    for batch in table.select(["positive_ids", "negative_ids"]).to_batches():
        here = batch.filter(pa.array(chosen[start : start + batch.num_rows]))
        start += batch.num_rows
        positives.append(pc.list_value_length(here["positive_ids"]).to_numpy())
        negatives.append(pc.list_value_length(here["negative_ids"]).to_numpy())
        passages.append(pc.list_flatten(here["positive_ids"]).to_numpy())
    lengths = np.concatenate(positives)
    times_asked = np.unique(query_ids, return_counts=True)[1]
    times_right = np.unique(np.concatenate(passages), return_counts=True)[1]
    return {
        "queries": len(times_asked),
        "queries_in_several_pairs": int((times_asked > 1).sum()),
        "passages": len(times_right),
        "passages_in_several_pairs": int((times_right > 1).sum()),
        "pairs_with_several_positives": int((lengths > 1).sum()),
        "positives_per_pair": _share_by_value(lengths),
        "pairs_with_given_negatives": int((np.concatenate(negatives) > 0).sum()),
    }


def _share_by_value(lengths: np.ndarray, most: int = 5) -> dict[str, int]:
    """Return how many pairs have 1, 2, … passages, and ``most`` or more."""
    counts = np.bincount(np.minimum(lengths, most), minlength=most + 1)
    return {f"{value}{'+' if value == most else ''}": int(counts[value]) for value in range(1, most + 1)}


def _tokens(
    table: pa.Table, rows: np.ndarray, reader: RowReader, tokenize: Tokenize, sample: int, seed: int
) -> list[dict[str, Any]]:
    """Return the lengths in tokens of queries and first positives of each task and language pair, from a sample."""
    found = []
    for key, members in strata(table, cap_per_stratum(table, rows, sample, seed)).items():
        pairs = reader.rows(members)
        kinds: dict[Literal["query", "passage"], list[str]] = {
            "query": [pair["query"] for pair in pairs],
            "passage": [pair["positives"][0] for pair in pairs],
        }
        for kind, texts in kinds.items():
            lengths = np.array([len(ids) for ids in tokenize(texts, kind)])
            found.append(
                {
                    **dict(zip(STRATUM_COLUMNS, key, strict=True)),
                    "kind": kind,
                    "texts": len(texts),
                    "median": float(np.median(lengths)),
                    "percentile_95": float(np.percentile(lengths, 95)),
                    "longest": int(lengths.max()),
                    "longer_than": {str(limit): int((lengths > limit).sum()) for limit in LIMITS},
                    "histogram": dict(zip(_BINS, np.histogram(lengths, _EDGES)[0].tolist(), strict=True)),
                }
            )
    return found


def _examples(pairs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            **{name: pair[name] for name in STRATUM_COLUMNS},
            "query": _cut(pair["query"]),
            "positive": _cut(pair["positives"][0]),
            "positives": len(pair["positives"]),
        }
        for pair in pairs
    ]


def _cut(text: str) -> str:
    return text if len(text) <= _EXAMPLE_LENGTH else text[: _EXAMPLE_LENGTH - 1] + "…"
