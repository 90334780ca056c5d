"""Run folders of a sweep as training leaves them, with scores that are known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

METRIC = "ndcg_at_10"
CELLS = [
    ("held_out", "help", "de"),
    ("held_out", "title", "de"),
    ("held_out", "help", "ga"),
    ("retention_leads", "lead", "en"),
]
QUERIES = 30


def write_swept_run(
    folder: Path, point: Mapping[str, Any], seed: int, gain: float, state: str = "finished", name: str = "paper/made_up"
) -> Path:
    """A run that was trained in German; every query gains ``gain`` and some noise."""
    path = folder / f"{'-'.join(map(str, point.values()))}-{seed}"
    path.mkdir(parents=True)
    sweep = {"name": name, "finding": "F3", "point": dict(point), "reference": {"negatives": "in_batch"}}
    (path / "config.yaml").write_text(yaml.safe_dump({"seed": seed, "sweep": sweep}), encoding="utf-8")
    (path / "status.json").write_text(json.dumps({"state": state}), encoding="utf-8")
    frame = pd.DataFrame(
        [(*cell, cell[2], f"q{number}") for cell in CELLS for number in range(QUERIES)],
        columns=["suite", "task", "query_language", "document_language", "query_id"],
    )
    base = np.random.default_rng(0).uniform(0.2, 0.6, len(frame))
    noise = np.random.default_rng(seed).normal(0, 0.02, len(frame))
    metrics = []
    for model, values in (("base", base), ("retrofitted", base + gain + noise)):
        scored = frame.assign(**{METRIC: values})
        scored.assign(query_group=[str(place) for place in range(len(frame))]).to_parquet(
            path / f"queries_{model}.parquet"
        )
        cells = scored.groupby(list(frame.columns[:-1]))[METRIC].agg(["mean", "size"]).reset_index()
        cells = cells.rename(columns={"mean": "value", "size": "n_queries"}).assign(model=model, metric=METRIC)
        metrics.append(cells.assign(seen_in_training=cells["query_language"] == "de"))
    pd.concat(metrics).to_csv(path / "metrics.csv", index=False)
    figures = {
        "seconds": {"base": 1.0, "training": 20.0, "total": 30.0},
        "machine": {"threads": 2, "evaluation_precision": "float32", "commit": "c0ffee"},
    }
    (path / "metrics.json").write_text(json.dumps(figures), encoding="utf-8")
    trained = [{"task": "help", "language": "de", "document_language": "de", "pairs": 100}]
    manifest = {"pairs": 100, "pairs_by_task_and_language": trained}
    (path / "data_manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    curve = pd.DataFrame({"step": [1, 2, 3], "loss": [2.0, 1.0, 0.5], "pairs_per_second": [1.0, 5.0, 9.0]})
    curve["negatives_per_query"] = [19.0, 20.0, 40.0]
    curve["peak_memory_gb"] = [1.5, 2.5, 2.5]
    curve.to_csv(path / "training_curve.csv", index=False)
    return path
