"""A run folder as ``retrofit train`` leaves it, with figures made up so that each can be found again.

No mean of them ends in a five at the last digit shown, where the order of a sum would decide how it is rounded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

SEEN, UNSEEN = ["en", "zh-Hans", "de", "he", "el"], ["ru", "fi", "ga"]
BY_GAIN = ["en", "ru", "zh-Hans", "de", "fi", "he", "ga", "el"]
TASKS = ["field_desc", "issue_fix"]
RETENTION = [("bitext", "en", "de"), ("bitext", "tr", "en"), ("definition", "en", "en"), ("emoji_name", "he", "he")]

EXAMPLES: list[dict[str, Any]] = [
    {
        "kind": "gained",
        "query": "<script>alert('query')</script> & [bold]Host[/bold]",
        "task": "field_desc",
        "language": "en",
        "ndcg_at_10": {"base": 0.1234, "retrofitted": 1.0},
        "passages": {
            "base": [{"text": "wrong <b>passage</b>\nof two lines", "relevant": False}],
            "retrofitted": [{"text": "the right passage " + "which is long " * 20, "relevant": True}],
        },
    },
    {
        "kind": "lost",
        "query": "שם המארח",
        "task": "issue_fix",
        "language": "he",
        "ndcg_at_10": {"base": 1.0, "retrofitted": 0.6309},
        "passages": {
            "base": [{"text": "כתובת המכשיר", "relevant": True}, {"text": "סיסמה", "relevant": False}],
            "retrofitted": [{"text": "סיסמה", "relevant": False}, {"text": "כתובת המכשיר", "relevant": True}],
        },
    },
]


def metrics() -> pd.DataFrame:
    """Return ``metrics.csv`` with a value of its own in every cell."""
    held_out = [("held_out", task, language, language) for task in TASKS for language in BY_GAIN]
    cells = held_out + [("retention", *cell) for cell in RETENTION]
    rows = []
    for model in ("base", "retrofitted"):
        for number, (suite, task, query_language, document_language) in enumerate(cells):
            gain = 0.05 - 0.00553 * number if suite == "held_out" else 0.00213 * (number - len(held_out)) - 0.01
            gain = 0.0 if model == "base" else gain
            for metric, shift in (("ndcg_at_10", 0.0), ("mrr_at_10", -0.1), ("recall_at_100", 0.2)):
                rows.append(
                    {
                        "model": model,
                        "suite": suite,
                        "task": task,
                        "query_language": query_language,
                        "document_language": document_language,
                        "seen_in_training": suite == "held_out" and query_language in SEEN,
                        "metric": metric,
                        "value": round(0.4 + 0.017317 * number + gain + shift, 6),
                        "n_queries": 50 + number,
                    }
                )
    return pd.DataFrame(rows)


def headline(frame: pd.DataFrame) -> dict[str, Any]:
    """Return what ``metrics.json`` says of the frame, computed apart from the code under test."""
    ndcg = frame[frame["metric"] == "ndcg_at_10"]
    figures: dict[str, Any] = {}
    for suite, rows in ndcg.groupby("suite"):
        means = {model: part.groupby("task")["value"].mean().mean() for model, part in rows.groupby("model")}
        figures[str(suite)] = {name: round(value, 4) for name, value in means.items()}
        figures[str(suite)]["gain"] = round(means["retrofitted"] - means["base"], 4)
        seen = set(rows.loc[rows["seen_in_training"], "query_language"])
        for name, chosen in (("seen_languages", seen), ("unseen_languages", set(rows["query_language"]) - seen)):
            part = rows[rows["query_language"].isin(chosen)].pivot_table(
                index="query_language", columns="model", values="value"
            )
            if len(part):
                change = part["retrofitted"] - part["base"]
                figures[str(suite)][name] = {
                    "languages": len(part),
                    "base": round(part["base"].mean(), 4),
                    "retrofitted": round(part["retrofitted"].mean(), 4),
                    "gain": round(change.mean(), 4),
                    "down": sorted(part.index[change < 0]),
                }
    return figures


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "embedded" / "0123456789abcdef"
    (folder / "model").mkdir(parents=True)
    frame = metrics()
    frame.to_csv(folder / "metrics.csv", index=False, float_format="%.6f")
    figures = {
        "headline": headline(frame),
        "seconds": {"base": 61.5, "training": 203.4, "total": 318.7},
        "machine": {"torch": "2.13.0", "python": "3.11.2", "threads": 2, "evaluation_precision": "bfloat16"},
    }
    (folder / "metrics.json").write_text(json.dumps(figures))
    config = {
        "paths": {"runs": "/secret/runs", "cache": "/secret/cache"},
        "model": {"name": "embedded", "prompts": {"query": "query: ", "passage": "passage: "}},
        "experiment_name": "embedded",
        "seed": 0,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    manifest = {
        "data_source": "embedded",
        "fingerprint": "feedfeedfeedfeed",
        "base_weights": "cafecafecafecafe",
        "pairs": 1234,
        "pairs_by_task_and_language": [
            {"task": "field_desc", "language": "de", "document_language": "de", "pairs": 1000},
            {"task": "issue_fix", "language": "de", "document_language": "de", "pairs": 200},
            {"task": "bitext", "language": "en", "document_language": "de", "pairs": 34},
        ],
    }
    (folder / "data_manifest.json").write_text(json.dumps(manifest))
    (folder / "examples.json").write_text(json.dumps(EXAMPLES, ensure_ascii=False))
    (folder / "interpolation.csv").write_text(
        "weight,gain,retention,languages_down,chosen\n"
        "0.25,0.0111,0.0007,1,False\n0.5,0.0222,0.0001,0,True\n1.0,0.0333,-0.0044,2,False\n"
    )
    (folder / "training_curve.csv").write_text(
        "step,loss,learning_rate,pairs_per_second,negatives_per_query\n"
        "10,1.5,0.0003,80.0,63.0\n20,0.9,0.0002,82.5,63.0\n24,0.7,0.0,81.0,63.0\n"
    )
    return folder
