"""From per-query scores to the figures that are read."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pytest

from retrofit.analysis.run_results import Comparison
from retrofit.evaluation.evaluate import RESULT_SCHEMA
from retrofit.evaluation.metrics import METRICS
from retrofit.evaluation.summary import METRIC_COLUMNS, headline, language_means, metrics_frame, suite_mean

Cell = tuple[str, str, str, str]

BASE: dict[Cell, list[float]] = {
    ("held_out", "help", "de", "de"): [0.0, 0.5, 1.0],
    ("held_out", "help", "en", "en"): [0.2],
    ("held_out", "desc", "de", "de"): [0.1, 0.3],
    ("retention_bitext", "bitext", "de", "en"): [0.8],
    ("retention_bitext", "bitext", "de", "ja"): [0.6],
}
AFTER: dict[Cell, list[float]] = {
    ("held_out", "help", "de", "de"): [0.5, 0.5, 1.0],
    ("held_out", "help", "en", "en"): [0.1],
    ("held_out", "desc", "de", "de"): [0.3, 0.5],
    ("retention_bitext", "bitext", "de", "en"): [0.7],
    ("retention_bitext", "bitext", "de", "ja"): [0.6],
}
TRAINED_ON = [("help", "de", "de"), ("bitext", "de", "en")]


def results(cells: dict[Cell, list[float]]) -> pa.Table:
    rows = [
        dict(zip(("suite", "task", "query_language", "document_language"), cell, strict=True))
        | {
            "query_id": f"q{n}",
            "ndcg_at_10": value,
            "mrr_at_10": value / 2,
            "map_at_100": value / 2,
            "recall_at_100": 1.0,
        }
        | {"top_passage_ids": []}
        for cell, values in cells.items()
        for n, value in enumerate(values)
    ]
    return pa.Table.from_pylist(rows, schema=RESULT_SCHEMA)


@pytest.fixture(scope="module")
def metrics() -> pd.DataFrame:
    return metrics_frame({"base": results(BASE), "retrofitted": results(AFTER)}, TRAINED_ON)


def test_metrics_csv_has_a_row_for_each_model_cell_and_metric(metrics: pd.DataFrame) -> None:
    assert tuple(metrics.columns) == METRIC_COLUMNS
    assert len(metrics) == 2 * len(BASE) * len(METRICS)
    keyed = metrics.set_index(["model", "suite", "task", "query_language", "document_language", "metric"])
    assert keyed.index.is_unique
    for model, cells in (("base", BASE), ("retrofitted", AFTER)):
        for cell, values in cells.items():
            row = keyed.loc[(model, *cell, "ndcg_at_10")]
            assert row["value"] == pytest.approx(sum(values) / len(values))
            assert row["n_queries"] == len(values)
            assert row["seen_in_training"] == (cell[1:] in TRAINED_ON)
            assert keyed.loc[(model, *cell, "mrr_at_10")]["value"] == pytest.approx(row["value"] / 2)
            assert keyed.loc[(model, *cell, "recall_at_100")]["value"] == 1


def test_a_suite_mean_weighs_tasks_alike(metrics: pd.DataFrame) -> None:
    assert suite_mean(metrics, "base", "held_out") == pytest.approx(((0.5 + 0.2) / 2 + 0.2) / 2)
    assert suite_mean(metrics, "retrofitted", "held_out") == pytest.approx(((2 / 3 + 0.1) / 2 + 0.4) / 2)
    assert suite_mean(metrics, "base", "held_out", "recall_at_100") == 1
    assert suite_mean(metrics, "base", "retention_bitext") == pytest.approx(0.7)


def test_language_means(metrics: pd.DataFrame) -> None:
    table = language_means(metrics, "held_out").set_index("language")
    assert table.loc["de", "base"] == pytest.approx((0.5 + 0.2) / 2)
    assert table.loc["de", "retrofitted"] == pytest.approx((2 / 3 + 0.4) / 2)
    assert table.loc["de", "gain"] == pytest.approx((2 / 3 + 0.4) / 2 - 0.35)
    assert table.loc["en", "gain"] == pytest.approx(-0.1)
    assert table["seen"].to_dict() == {"de": True, "en": False}
    assert table["n_queries"].to_dict() == {"de": 5, "en": 1}


def test_the_headline_says_what_was_gained_where(metrics: pd.DataFrame) -> None:
    figures = headline(metrics)
    assert list(figures) == ["held_out", "retention_bitext"]
    held_out = figures["held_out"]
    assert held_out["base"] == pytest.approx(0.275, abs=1e-4)
    assert held_out["retrofitted"] == pytest.approx(0.3917, abs=1e-4)
    assert held_out["gain"] == pytest.approx(held_out["retrofitted"] - held_out["base"], abs=1e-9)
    assert held_out["seen_languages"]["languages"] == held_out["unseen_languages"]["languages"] == 1
    assert held_out["seen_languages"]["down"] == []
    assert held_out["unseen_languages"]["down"] == ["en"]
    assert held_out["unseen_languages"]["gain"] == pytest.approx(-0.1)
    assert figures["retention_bitext"]["gain"] == pytest.approx(-0.05)
    assert "unseen_languages" not in figures["retention_bitext"]


def test_the_report_reads_the_same_means(metrics: pd.DataFrame) -> None:
    comparison = Comparison(metrics)
    for suite in ("held_out", "retention_bitext"):
        means = comparison.suite_mean(suite)
        assert means["base"] == pytest.approx(suite_mean(metrics, "base", suite))
        assert means["retrofitted"] == pytest.approx(suite_mean(metrics, "retrofitted", suite))
        theirs = comparison.languages(suite).set_index("language")
        ours = language_means(metrics, suite).set_index("language")
        for column in ("base", "retrofitted", "gain", "seen", "n_queries"):
            assert theirs[column].to_dict() == pytest.approx(ours[column].to_dict())
