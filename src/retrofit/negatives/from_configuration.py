"""From a configuration to mined negatives, for the commands that need them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from retrofit.artefacts import write_json, write_text
from retrofit.data.training_data import TrainingData, evaluation_sources
from retrofit.engine import Engine
from retrofit.instantiation import instantiate
from retrofit.models.embeddings import EmbeddingStore
from retrofit.models.precision import EncodingSettings
from retrofit.models.search_model import SearchModel
from retrofit.negatives.false_negatives import hidden_positives, rates
from retrofit.negatives.mined import MinedNegatives
from retrofit.negatives.mining import Miner, mine, searched_pool

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
        miner = miner_of(config, data, engine)
        if not len(hidden_positives(miner.pool, config["seed"])):
            return
        # What a filter that is tried looks at must be there: scores, and the veto's where there is one.
        searching = dataclasses.replace(miner, settings={**miner.settings, "margin": 0.0})
        table = pd.DataFrame(rates(miner, searching.search(), _tried(config), config["seed"]))
    write_text(folder / FALSE_NEGATIVES, table.to_csv(index=False))


def miner_of(config: Mapping[str, Any], data: TrainingData, engine: Engine) -> Miner:
    """Return the miner of a selection; ``negatives.mined``, ``model``, ``evaluation`` and ``paths`` are read."""
    settings = config["negatives"]["mined"]
    pool = searched_pool(data, settings["pool"])
    store = EmbeddingStore(Path(config["paths"]["cache"]))
    return Miner(pool, _search_model(config), settings, EncodingSettings.of(config["evaluation"]), store, engine)


def _tried(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the filters to try: those of ``tried_filters``, and each margin of a veto where there is one."""
    veto = config["negatives"]["mined"]["veto"]
    return [*config["tried_filters"], *([] if veto is None else [{"veto": veto}])]


def _mined(config: Mapping[str, Any], data: TrainingData, engine: Engine) -> MinedNegatives:
    encoding, cache = EncodingSettings.of(config["evaluation"]), Path(config["paths"]["cache"])
    return mine(data, _search_model(config), config["negatives"]["mined"], encoding, cache, engine)


def _engine(config: Mapping[str, Any]) -> Engine:
    engine: Engine = instantiate(config["engine"])
    return engine


def _search_model(config: Mapping[str, Any]) -> SearchModel:
    other = config["negatives"]["mined"]["model"]
    return SearchModel.of(config["model"]) if other is None else SearchModel.of(other, "negatives.mined.model")
