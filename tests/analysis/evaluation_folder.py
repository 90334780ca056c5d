"""An evaluation folder as ``retrofit evaluate`` leaves it, with figures made up: who is ahead where is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

CELLS = [
    # suite, kind, task, query language, document language, items
    ("held_out", "retrieval", "field_help", "de", "de", 60),
    ("held_out", "retrieval", "field_help", "fi", "fi", 40),
    ("held_out", "retrieval", "title_body", "de", "de", 50),
    ("retention_leads", "retrieval", "definition", "de", "de", 60),
    ("retention_leads", "retrieval", "definition", "fi", "fi", 60),
    ("tatoeba", "bitext", "tatoeba", "de", "en", 120),
    ("tatoeba", "bitext", "tatoeba", "th", "en", 80),
    ("sts", "sts", "sts", "en", "en", 150),
    ("sts", "sts", "sts", "zh", "zh", 100),
]

METRICS = {"retrieval": "ndcg_at_10", "bitext": "accuracy", "sts": "cosine"}

STRATA = [("field_help", "de", "de"), ("title_body", "de", "de"), ("title_body", "en", "en")]


@dataclass
class MadeUp:
    """Models by what they add to the reference's scores, by suite; of sts, how much noise their cosines have."""

    models: Mapping[str, Mapping[str, float]]
    trained: Sequence[str] = ("ours",)
    configurations: Mapping[str, str] = field(default_factory=dict)
    without: Sequence[tuple[str, str]] = ()
    max_drop: float | None = None
    reference: str | None = None
    suites: Mapping[str, str] = field(default_factory=dict)


def scores(made: MadeUp) -> pd.DataFrame:
    """Return ``scores.parquet``."""
    frames = []
    for number, (suite, kind, task, query, document, items) in enumerate(CELLS):
        shared = np.random.default_rng(number)
        start, gold = shared.uniform(0.3, 0.7, items), shared.uniform(0, 5, items)
        for place, (model, changes) in enumerate(made.models.items()):
            if (model, suite) in made.without:
                continue
            noise = np.random.default_rng([number, place])
            change = changes.get(suite, 0.0)
            if kind == "sts":
                values = 0.8 + 0.02 * place + 0.02 * gold + noise.normal(0, 0.05 - change, items)
            elif kind == "bitext":
                values = (noise.uniform(size=items) < 0.6 + change).astype(float)
            else:
                values = start + change + noise.normal(0, 0.05, items)
            columns = {"model": model, "suite": made.suites.get(suite, suite), "kind": kind, "task": task,
                       "query_language": query, "document_language": document,
                       "item_id": [str(item) for item in range(items)],
                       "item_group": [f"{task} {query} {item}" for item in range(items)]}  # fmt: skip
            frames.append(pd.DataFrame({**columns, "metric": METRICS[kind], "value": values}))
            if kind == "sts":
                frames.append(pd.DataFrame({**columns, "metric": "gold", "value": gold}))
            if kind == "retrieval":
                frames.append(pd.DataFrame({**columns, "metric": "recall_at_100", "value": 1.0}))
    # In no order: the reader is to find its way.
    return pd.concat(frames).sample(frac=1, random_state=0)


def write(folder: Path, made: MadeUp) -> Path:
    """Write the files of an evaluation folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    frame = scores(made)
    frame.to_parquet(folder / "scores.parquet", index=False)
    cell = ["model", "suite", "kind", "task", "query_language", "document_language", "metric"]
    metrics = frame.groupby(cell)["value"].agg(value="mean", n_items="size").reset_index()
    metrics.to_csv(folder / "metrics.csv", index=False)
    pd.DataFrame(
        [
            {"model": model, "configuration": made.configurations.get(model, model), "source": f"option {model}",
             "kind": "bm25" if model == "bm25" else "bi-encoder",
             "parameters": None if model == "bm25" else 117_653_760 + place,
             "dimension": None if model == "bm25" else 384, "megabytes": 471.2, "texts_per_second": 1234.5 + place,
             "encoded_texts": 10_000, "seconds": 8.1}
            for place, model in enumerate(made.models)
        ]
    ).to_csv(folder / "models.csv", index=False)  # fmt: skip
    leaks = [
        {"model": model, "suite": made.suites.get(suite, suite), "task": task, "query_language": query,
         "document_language": document, "queries": items,
         "queries_in_training": items // 10 if suite == "tatoeba" else 0, "passages": 2 * items,
         "passages_in_training": 0}
        for model in made.trained
        for suite, _, task, query, document, items in CELLS
    ]  # fmt: skip
    columns = ["model", "suite", "task", "query_language", "document_language"]
    counts = ["queries", "queries_in_training", "passages", "passages_in_training"]
    pd.DataFrame(leaks, columns=[*columns, *counts]).to_csv(folder / "leakage.csv", index=False)
    pd.DataFrame(
        [(model, *stratum) for model in made.trained for stratum in STRATA],
        columns=["model", "task", "query_language", "document_language"],
    ).to_csv(folder / "training.csv", index=False)
    retention = {"max_drop": made.max_drop, "groups": {"high_resource": ["en", "de", "zh-Hans"]}}
    config = {"reference": made.reference, "evaluation": {"retention": retention}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder
