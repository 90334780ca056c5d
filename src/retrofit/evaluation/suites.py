"""Suites: the groups of tasks a run is judged on, evaluated once for each model and data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from retrofit.artefacts import ArtefactStore
from retrofit.data.records import Split
from retrofit.data.storage import PairSource
from retrofit.evaluation.evaluate import evaluate, read_results, write_results
from retrofit.evaluation.suite_tasks import suite_identity, tasks_of_suite
from retrofit.evaluation.tasks import RetrievalTask
from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.embeddings import CODE_VERSION as EMBEDDINGS_VERSION
from retrofit.models.precision import EncodingSettings

CODE_VERSION = 8  # raise it whenever the same model, data and suite would give other results

RESULTS = "results.parquet"


def evaluate_tasks(
    encoder: BiEncoder,
    weights: str,
    tasks: Sequence[RetrievalTask],
    data: str,
    settings: EncodingSettings,
    store: ArtefactStore,
    label: str,
) -> pa.Table:
    """Return the per-query results of tasks, read from the cache where they were measured before.

    Args:
        encoder: the model.
        weights: what identifies its weights.
        tasks: what to search for in what.
        data: what identifies the tasks.
        settings: how texts are encoded.
        store: the cache.
        label: named in log lines.
    """
    inputs = {
        "version": CODE_VERSION,
        "embeddings": EMBEDDINGS_VERSION,
        "weights": weights,
        "pooling": encoder.pooling,
        "prompts": dict(encoder.prompts),
        "max_length": encoder.max_length,
        "data": data,
        "settings": asdict(settings),
    }

    def build(folder: Path) -> None:
        write_results(folder / RESULTS, evaluate(encoder, tasks, settings, label))

    return read_results(store.get("evaluations", inputs, build) / RESULTS)


def evaluate_suites(
    encoder: BiEncoder,
    weights: str,
    sources: Mapping[str, PairSource],
    suites: Mapping[str, Mapping[str, Any]],
    split: Split,
    settings: EncodingSettings,
    store: ArtefactStore,
    label: str,
) -> pa.Table:
    """Return the per-query results of all suites, one after the other.

    Args:
        encoder: the model.
        weights: what identifies its weights.
        sources: where the suites' pairs come from, by name.
        suites: specifications of retrieval suites by name, as :func:`tasks_of_suite` takes them.
        split: the split that is searched.
        settings: how texts are encoded.
        store: the cache.
        label: the model's name in log lines.
    """
    tables = []
    for suite, specification in suites.items():
        tasks = cast("list[RetrievalTask]", tasks_of_suite(suite, specification, sources, split))
        identity = suite_identity(suite, specification, sources, split)
        named = f"{label} on {suite} ({split})"
        tables.append(evaluate_tasks(encoder, weights, tasks, identity, settings, store, named))
    return pa.concat_tables(tables)
