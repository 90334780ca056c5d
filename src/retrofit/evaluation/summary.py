"""From per-query scores to the figures that are read: cells, languages, suites, and what changed against the base."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd
import pyarrow as pa

from retrofit.data.selection import Stratum
from retrofit.evaluation.metrics import METRICS

CELL = ["suite", "task", "query_language", "document_language"]

METRIC_COLUMNS = (
    "model",
    "suite",
    "task",
    "query_language",
    "document_language",
    "seen_in_training",
    "metric",
    "value",
    "n_queries",
)
"""Columns of ``metrics.csv``, long form: one row for each model, cell and metric."""


def metrics_frame(results: Mapping[str, pa.Table], trained_on: Collection[Stratum]) -> pd.DataFrame:
    """Return ``metrics.csv``: the mean of every metric over the queries of each cell.

    Args:
        results: per-query results by model name (``base``, ``retrofitted``).
        trained_on: the (task, query language, document language) combinations of the training data.
    """
    frames = []
    for model, table in results.items():
        frame = table.select([*CELL, *METRICS]).to_pandas()
        cells = frame.melt(id_vars=CELL, value_vars=list(METRICS), var_name="metric")
        means = cells.groupby([*CELL, "metric"], sort=True)["value"].agg(value="mean", n_queries="size").reset_index()
        frames.append(means.assign(model=model))
    merged = pd.concat(frames, ignore_index=True)
    keys = zip(merged["task"], merged["query_language"], merged["document_language"], strict=True)
    merged["seen_in_training"] = [key in set(trained_on) for key in keys]
    return merged[list(METRIC_COLUMNS)]


def suite_mean(metrics: pd.DataFrame, model: str, suite: str, metric: str = "ndcg_at_10") -> float:
    """Return a suite's mean: over its tasks, of the mean over each task's language pairs."""
    rows = metrics[(metrics["model"] == model) & (metrics["suite"] == suite) & (metrics["metric"] == metric)]
    return float(rows.groupby("task")["value"].mean().mean())


def language_means(metrics: pd.DataFrame, suite: str, metric: str = "ndcg_at_10") -> pd.DataFrame:
    """Return a suite's mean over tasks for each query language: columns ``language``, ``base`` and ``retrofitted``.

    ``seen`` says whether any of the language's tasks was trained on, ``gain`` is retrofitted minus base and
    ``n_queries`` the number of queries behind a mean.
    """
    rows = metrics[(metrics["suite"] == suite) & (metrics["metric"] == metric)]
    means = rows.pivot_table(index="query_language", columns="model", values="value", aggfunc="mean")
    base_rows = rows[rows["model"] == "base"].groupby("query_language")
    means["gain"] = means["retrofitted"] - means["base"]
    means["seen"] = base_rows["seen_in_training"].any()
    means["n_queries"] = base_rows["n_queries"].sum()
    return means.rename_axis("language").rename_axis(None, axis=1).reset_index()


def headline(metrics: pd.DataFrame) -> dict[str, Any]:
    """Return the figures a reader asks first, nDCG@10 by suite: base, retrofitted, gain, and languages up and down.

    For suites with languages that were trained on and others that were not, both groups get their own means.
    """
    figures: dict[str, Any] = {}
    for suite in metrics["suite"].unique():
        languages = language_means(metrics, suite)
        base, retrofitted = (suite_mean(metrics, model, suite) for model in ("base", "retrofitted"))
        entry: dict[str, Any] = {
            "base": round(base, 4),
            "retrofitted": round(retrofitted, 4),
            "gain": round(retrofitted - base, 4),
        }
        for group, rows in languages.groupby("seen"):
            entry["seen_languages" if group else "unseen_languages"] = {
                "languages": len(rows),
                "base": round(float(rows["base"].mean()), 4),
                "retrofitted": round(float(rows["retrofitted"].mean()), 4),
                "gain": round(float(rows["gain"].mean()), 4),
                "down": sorted(rows.loc[rows["gain"] < 0, "language"]),
            }
        figures[suite] = entry
    return figures
