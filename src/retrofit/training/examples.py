"""Three queries to look at: one the retrofit answers better, one as before, one worse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from retrofit.data.records import shown_id
from retrofit.data.storage import PairSource
from retrofit.evaluation.evaluate import RESULT_SCHEMA

KEYS = RESULT_SCHEMA.names[:5]


def example_queries(
    source: PairSource, results: Mapping[str, pa.Table], suite: str = "held_out"
) -> list[dict[str, Any]]:
    """Return three examples of a suite with the best passages of both models.

    The choice is fixed by the scores: the query that gained most, the first by id among those ranked imperfectly by
    both alike, and the query that lost most. Fewer, where there is no such query.

    Args:
        source: the suite's, for the texts.
        results: per-query results of ``base`` and ``retrofitted``.
        suite: the suite to choose from.
    """
    base, retrofitted = (results[model].to_pandas() for model in ("base", "retrofitted"))
    both = base.merge(retrofitted, on=KEYS, suffixes=("_base", "_retrofitted"))
    both = both[both["suite"] == suite].sort_values("query_id")
    if both.empty:
        return []
    both["gain"] = both["ndcg_at_10_retrofitted"] - both["ndcg_at_10_base"]
    picks = {
        "gained": both[both["gain"] > 0].nlargest(1, "gain"),
        "unchanged": both[(both["gain"] == 0) & (both["ndcg_at_10_base"] < 1)].head(1),
        "lost": both[both["gain"] < 0].nsmallest(1, "gain"),
    }
    return [_example(kind, rows.iloc[0], source) for kind, rows in picks.items() if len(rows)]


def _example(kind: str, row: Any, source: PairSource) -> dict[str, Any]:
    query_id = int(row["query_id"], 16)
    asked = source.pairs.filter(pc.equal(source.pairs["query_id"], pa.scalar(query_id, pa.uint64()))).to_pylist()
    relevant = {shown_id(passage_id) for pair in asked for passage_id in pair["positive_ids"]}
    texts = _passage_texts(source, {*row["top_passage_ids_base"], *row["top_passage_ids_retrofitted"]})
    return {
        "kind": kind,
        "query": asked[0]["query"],
        "task": row["task"],
        "language": row["query_language"],
        "ndcg_at_10": {model: round(float(row[f"ndcg_at_10_{model}"]), 4) for model in ("base", "retrofitted")},
        "passages": {
            model: [
                {"text": texts[passage_id], "relevant": passage_id in relevant}
                for passage_id in row[f"top_passage_ids_{model}"][:3]
            ]
            for model in ("base", "retrofitted")
        },
    }


def _passage_texts(source: PairSource, wanted: set[str]) -> dict[str, str]:
    identifiers = pa.array([int(shown, 16) for shown in wanted], pa.uint64())
    found: dict[str, str] = {}
    columns = [
        (pc.list_flatten(ids), pc.list_flatten(texts))
        for ids, texts in zip(source.pairs["positive_ids"].chunks, source.pairs["positives"].chunks, strict=True)
    ]
    if source.passages is not None:
        columns += zip(source.passages["passage_id"].chunks, source.passages["passage"].chunks, strict=True)
    for ids, texts in columns:
        here = pc.is_in(ids, identifiers)
        found.update(zip(map(shown_id, ids.filter(here).to_pylist()), texts.filter(here).to_pylist(), strict=True))
    return found
