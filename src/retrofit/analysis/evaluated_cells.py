"""The scores of every item, from an evaluation folder or a run folder: a matrix of models and items for each cell."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from retrofit.analysis.clustered import QUERY_GROUP
from retrofit.analysis.significance import CELL
from retrofit.errors import UserError, one_line

METRIC_BY_KIND = {
    "retrieval": "ndcg_at_10",
    "reranking": "map_at_1000",
    "bitext": "accuracy",
    "sts": "cosine",
    "clustering": "v_measure",
    "classification": "accuracy",
}
"""What an item of each kind is compared by.

Of bitext it is whether the translation was found: mteb's F1, which ``metrics.csv`` has, is no mean of items. Items of
clustering are mteb's repetitions on the same texts, which say nothing of other texts: their mean counts as one item.
"""

GOLD = "gold"
"""The metric of an item of ``sts`` that its ``cosine`` is correlated with."""

TEXTS = {"model": str, "suite": str, "task": str, "query_language": str, "document_language": str}


@dataclass(frozen=True)
class Cell:
    """What one task holds in one pair of languages, and what models make of it.

    Attributes:
        suite: the group of tasks it is reported under.
        kind: ``retrieval``, ``reranking``, ``bitext``, ``sts``, ``clustering`` or ``classification``.
        task: its task.
        query_language: language of the queries.
        document_language: language of the passages.
        models: the models that were measured on it.
        values: float64 ``[items, models]``, the items in the same order for all models.
        gold: of ``sts``, what people say, float64 ``[items]``.
        groups: of each item, what it belongs together with others by, in all of the suite, object ``[items]``.
    """

    suite: str
    kind: str
    task: str
    query_language: str
    document_language: str
    models: tuple[str, ...]
    values: np.ndarray
    gold: np.ndarray | None
    groups: np.ndarray


@dataclass(frozen=True)
class Evaluation:
    """What was measured, and what it is to be judged by.

    Attributes:
        cells: all cells.
        models: the models by the name they are shown with: several where one was trained with several seeds.
        reference: the name that the others are compared with.
        training: the strata that models were trained on, a row each: ``model`` (the shown name), ``task``,
            ``query_language``, ``document_language``.
        language_groups: ``evaluation.retention.groups``: languages by name of group, such as ``high_resource``.
    """

    cells: Sequence[Cell]
    models: Mapping[str, Sequence[str]]
    reference: str
    training: pd.DataFrame
    language_groups: Mapping[str, Sequence[str]]

    @classmethod
    def read(cls, folder: Path) -> Evaluation:
        """Return the evaluation of a folder that ``retrofit evaluate`` wrote.

        Raises:
            UserError: a file is missing, cannot be read or lacks a column; a model lacks items of a cell that another
                was measured on.
        """
        config = read_config(folder)
        table = read_table(folder / "models.csv", ["model", "configuration"])
        models: dict[str, list[str]] = {}
        for row in table.itertuples():
            models.setdefault(row.configuration or row.model, []).append(row.model)
        shown = {model: name for name, its in models.items() for model in its}
        asked = config.get("reference") or table["model"].iloc[0]
        if asked not in shown and asked not in models:
            raise UserError(f"reference={asked}: expected one of the models that were measured, {', '.join(shown)}")
        training = read_table(folder / "training.csv", ["model", "task", "query_language", "document_language"])
        training["model"] = training["model"].map(lambda model: shown.get(model, model))
        return cls(
            cells=list(_cells(_scores(folder / "scores.parquet"), str(folder / "scores.parquet"))),
            models=models,
            reference=shown.get(asked, asked),
            training=training.drop_duplicates(),
            language_groups=config["evaluation"]["retention"]["groups"],
        )

    @classmethod
    def of_run(cls, folder: Path) -> Evaluation:
        """Return what ``retrofit train`` measured of a run: its base, the reference, and the retrofitted model.

        Raises:
            UserError: a file is missing or cannot be read.
        """
        metric, models = METRIC_BY_KIND["retrieval"], ("base", "retrofitted")
        tables = []
        for model in models:
            path = folder / f"queries_{model}.parquet"
            queries = _parquet(path, [*CELL, "query_id", QUERY_GROUP, metric])
            columns = [*CELL, "item_id", "item_group", "value"]
            fixed = {"model": model, "kind": "retrieval", "metric": metric}
            queries = queries.rename_columns(columns)
            for name, value in fixed.items():
                queries = queries.append_column(name, pa.repeat(pa.scalar(value), len(queries)))
            tables.append(queries)
        manifest = json.loads(_text(folder / "data_manifest.json"))
        strata = [
            ("retrofitted", row["task"], row["language"], row["document_language"])
            for row in manifest["pairs_by_task_and_language"]
        ]
        return cls(
            cells=list(_cells(pa.concat_tables(tables), str(folder))),
            models={model: [model] for model in models},
            reference="base",
            training=pd.DataFrame(strata, columns=["model", "task", "query_language", "document_language"]),
            language_groups=read_config(folder)["evaluation"]["retention"]["groups"],
        )


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Return a CSV file of an evaluation folder; texts as they stand, so that a language ``NA`` stays one.

    Raises:
        UserError: the file is missing, cannot be read or lacks one of ``columns``.
    """
    texts = dict.fromkeys([*TEXTS, "configuration", "kind", "source", "level", "group", "verdict", "metric"], str)
    try:
        frame = pd.read_csv(path, dtype=texts, keep_default_na=False, na_values={name: [""] for name in NUMBERS})
    except FileNotFoundError:
        raise UserError(f"{path} is missing: expected the folder of an evaluation (retrofit evaluate)") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {one_line(error)}; evaluate again") from error
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise UserError(f"{path} cannot be read: no column {missing[0]!r}; evaluate again")
    return frame


NUMBERS = (
    "parameters", "dimension", "megabytes", "texts_per_second", "encoded_texts", "seconds", "queries",
    "queries_in_training", "passages", "passages_in_training", "value", "low", "high", "reference_value", "difference",
    "effect_size", "p", "p_holm", "items", "seeds",
)  # fmt: skip
"""Columns of the tables of an evaluation folder in which nothing stands where there is no number."""


def read_config(folder: Path) -> dict[str, Any]:
    """Return ``config.yaml`` of an evaluation or run folder.

    Raises:
        UserError: it is missing, or says nothing of ``evaluation.retention``.
    """
    try:
        config = yaml.safe_load(_text(folder / "config.yaml"))
        if {"max_drop", "groups"} <= set(config["evaluation"]["retention"]):
            return dict(config)
    except (KeyError, TypeError, UnicodeDecodeError, yaml.YAMLError):
        pass
    raise UserError(f"{folder / 'config.yaml'}: no evaluation.retention with max_drop and groups; measure again")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; measure again") from error


def _scores(path: Path) -> pa.Table:
    """Return the scores of the metrics that items are compared by."""
    needed = pa.array([*set(METRIC_BY_KIND.values()), GOLD])
    columns = ["model", *CELL, "kind", "item_id", "item_group", "metric", "value"]
    return _parquet(path, columns, pc.field("metric").isin(needed))


def _parquet(path: Path, columns: Sequence[str], rows: pc.Expression | None = None) -> pa.Table:
    try:
        return pq.read_table(path, columns=list(columns), filters=rows)
    except (OSError, pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise UserError(f"{path} cannot be read: {one_line(error)}; measure again") from error


def _cells(scores: pa.Table, where: str) -> Iterator[Cell]:
    """Yield the cells of scores in order: by suite, kind, task and languages."""
    keys = ["suite", "kind", "task", "query_language", "document_language"]
    codes, names = {}, {}
    for column in (*keys, "model", "item_id", "item_group", "metric"):
        encoded = scores[column].combine_chunks().dictionary_encode()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.combine_chunks()
        values, place = np.unique(np.asarray(encoded.dictionary.to_pylist(), dtype=object), return_inverse=True)
        codes[column], names[column] = place[encoded.indices.to_numpy(zero_copy_only=False)], values
    order = np.lexsort([codes[column] for column in ("item_id", "model", "metric", *reversed(keys))])
    sorted_codes = {column: code[order] for column, code in codes.items()}
    values = scores["value"].to_numpy()[order]
    first = np.zeros(len(order), dtype=bool)
    first[:1] = True
    for column in keys:
        first[1:] |= np.diff(sorted_codes[column]) != 0
    starts = [*np.flatnonzero(first), len(order)]
    for start, end in itertools.pairwise(starts):
        key = {column: str(names[column][sorted_codes[column][start]]) for column in keys}
        if key["kind"] not in METRIC_BY_KIND:
            raise UserError(f"{where}: kind {key['kind']!r}: expected one of {', '.join(METRIC_BY_KIND)}")
        part = {column: sorted_codes[column][start:end] for column in ("metric", "model", "item_id", "item_group")}
        cell = f"{where}: {', '.join(key.values())}"
        metric = METRIC_BY_KIND[key["kind"]]
        matrices = {
            name: _matrix(part, names["metric"] == name, values[start:end], names["model"], f"{cell}, {name}")
            for name in ([metric, GOLD] if key["kind"] == "sts" else [metric])
        }
        models, scored = matrices[metric]
        groups = names["item_group"][part["item_group"][names["metric"][part["metric"]] == metric][: len(scored)]]
        gold = matrices[GOLD][1][:, 0] if GOLD in matrices else None
        if gold is not None and len(gold) != len(scored):
            raise UserError(f"{cell}: expected gold for every cosine; evaluate again")
        if key["kind"] == "clustering":
            scored, groups = scored.mean(axis=0, keepdims=True), np.array([key["query_language"]], dtype=object)
        yield Cell(**key, models=models, values=scored, gold=gold, groups=groups)


def _matrix(
    part: Mapping[str, np.ndarray], is_metric: np.ndarray, values: np.ndarray, models: np.ndarray, cell: str
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the models of a cell and their values of one metric, ``[items, models]``, from rows sorted by both."""
    rows = is_metric[part["metric"]]
    found, items = part["model"][rows], part["item_id"][rows]
    distinct, counts = np.unique(found, return_counts=True)
    if not len(distinct):
        raise UserError(f"{cell}: no item has this metric; evaluate again")
    alike = len(set(counts)) == 1 and (items.reshape(len(distinct), -1) == items[: counts[0]]).all()
    if not alike or len(np.unique(items[: counts[0]])) < counts[0]:
        raise UserError(f"{cell}: models were not measured on the same items, each once; evaluate them again")
    matrix = values[rows].reshape(len(distinct), -1).T
    if not np.isfinite(matrix).all():
        raise UserError(f"{cell}: a value is no number; evaluate again")
    return tuple(str(models[code]) for code in distinct), np.ascontiguousarray(matrix)
