"""From a configuration to mined negatives, for the commands that need them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from retrofit.artefacts import write_json, write_text
from retrofit.data.training_data import TrainingData, evaluation_sources
from retrofit.instantiation import instantiate
from retrofit.models.precision import EncodingSettings
from retrofit.negatives.embeddings import EmbeddingStore
from retrofit.negatives.engine import Engine
from retrofit.negatives.false_negatives import hidden_positives, rates
from retrofit.negatives.filters import Filter
from retrofit.negatives.mining import (
    MinedNegatives,
    SearchModel,
    candidates_of,
    embedded_pool,
    filters_of,
    mine,
)
from retrofit.negatives.pool import MiningPool

REPORT = "mining.json"
FALSE_NEGATIVES = "false_negatives.csv"


def mined_negatives(config: Mapping[str, Any], data: TrainingData) -> MinedNegatives | None:
    """Return the negatives of a selection, mined where the cache lacks them; None where none are asked for.

    Args:
        config: resolved; ``negatives.mined``, ``model``, ``evaluation``, ``engine`` and ``paths`` are read.
        data: the selection.
    """
    if config["negatives"]["mined"] is None:
        return None
    with contextlib.closing(_engine(config)) as engine:
        return _mined(config, data, engine)


def mine_and_measure(config: Mapping[str, Any], folder: Path) -> None:
    """Write ``mining.json``, and ``false_negatives.csv`` where queries have several known answers.

    Args:
        config: the resolved configuration of ``retrofit mine``.
        folder: where to write.
    """
    data = TrainingData.prepare(config, evaluation_sources(config))
    with contextlib.closing(_engine(config)) as engine:
        mined = _mined(config, data, engine)
        write_json(folder / REPORT, dict(mined.report))
        pool = MiningPool.of(data.source.pairs, data.rows)
        if not len(hidden_positives(pool, config["seed"])):
            return
        settings = config["negatives"]["mined"]
        store = EmbeddingStore(Path(config["paths"]["cache"]))
        model = _search_model(config)
        queries, passages = embedded_pool(pool, model, EncodingSettings.of(config["evaluation"]), store, engine)
        found = candidates_of(pool, model, settings, (queries, passages), engine)
    tried: dict[str, list[Filter]] = {
        "no margin" if margin is None else f"margin {margin:g}": filters_of({**settings, "margin": margin})
        for margin in config["margins"]
    }
    table = pd.DataFrame(rates(pool, queries, passages, found, tried, config["seed"]))
    write_text(folder / FALSE_NEGATIVES, table.to_csv(index=False))


def _mined(config: Mapping[str, Any], data: TrainingData, engine: Engine) -> MinedNegatives:
    encoding, cache = EncodingSettings.of(config["evaluation"]), Path(config["paths"]["cache"])
    return mine(data, _search_model(config), config["negatives"]["mined"], encoding, cache, engine)


def _engine(config: Mapping[str, Any]) -> Engine:
    engine: Engine = instantiate(config["engine"])
    return engine


def _search_model(config: Mapping[str, Any]) -> SearchModel:
    return SearchModel.of(config["negatives"]["mined"]["model"] or config["model"])
