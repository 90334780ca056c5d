"""Retrieval metrics, computed by ir-measures (pytrec_eval behind it): the field's reference implementation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

METRICS = {"ndcg_at_10": "nDCG@10", "mrr_at_10": "RR@10", "map_at_100": "AP@100", "recall_at_100": "R@100"}
"""Our column name of each metric and how ir-measures spells it."""


def score_run(
    qrels: Mapping[str, Mapping[str, int]], run: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """Return every metric of every judged query: ``{metric: {query id: value}}``, values 0 to 1.

    Args:
        qrels: relevance grade by passage id by query id.
        run: score by passage id by query id; a judged query that is not in the run scores 0.
    """
    import ir_measures

    measures = {ir_measures.parse_measure(spelled): name for name, spelled in METRICS.items()}
    scores: dict[str, dict[str, float]] = {name: dict.fromkeys(qrels, 0.0) for name in METRICS}
    # The implementations behind ir-measures break ties differently; without ties they all see the same ranking.
    untied = {
        query_id: {passage_id: -float(rank) for rank, passage_id in enumerate(ranking(found))}
        for query_id, found in run.items()
    }
    for result in ir_measures.iter_calc(list(measures), qrels, untied):
        if result.query_id in qrels:
            scores[measures[result.measure]][result.query_id] = float(result.value)
    return scores


def ranking(found: Mapping[str, float]) -> list[str]:
    """Return passage ids best first, equal scores by descending id, as trec_eval orders them.

    Scores are compared in single precision, in which trec_eval keeps them.
    """
    scores = np.fromiter(found.values(), dtype=np.float32, count=len(found)).tolist()
    return [passage_id for _, passage_id in sorted(zip(scores, found, strict=True), reverse=True)]
