"""A frozen teacher or guide of an objective: every text of a run is embedded once, and looked up at every step."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from retrofit.data.storage import RowReader
from retrofit.data.training_data import TrainingData
from retrofit.models.embeddings import Embeddings, EmbeddingStore, Model
from retrofit.models.precision import EncodingSettings
from retrofit.models.search_model import SearchModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbeddingsById:
    """Embeddings of texts by content hash.

    Attributes:
        ids: uint64 ``[texts]``, ascending.
        embeddings: of these texts, in their order.
    """

    ids: np.ndarray
    embeddings: Embeddings

    def of(self, ids: Tensor) -> Tensor:
        """Return the embeddings of texts, float32 ``[texts, dimension]``, unit length.

        Args:
            ids: int64 ``[texts]``, content hashes as a batch holds them.

        Raises:
            KeyError: a text was not embedded.
        """
        wanted = ids.cpu().numpy().view(np.uint64)
        positions = np.searchsorted(self.ids, wanted)
        if (self.ids[np.minimum(positions, len(self.ids) - 1)] != wanted).any():
            raise KeyError("the teacher has not embedded a text of this step")
        return torch.from_numpy(self.embeddings.rows(positions)).to(ids.device)


@dataclass(frozen=True)
class Teacher:
    """The embeddings that a frozen model gives to the texts of a run.

    Attributes:
        queries: of all queries.
        passages: of all passages that may stand in a batch.
    """

    queries: EmbeddingsById
    passages: EmbeddingsById

    @classmethod
    def of(cls, config: Mapping[str, Any], data: TrainingData) -> Teacher | None:
        """Return the teacher of a configuration, None where it names none; what the cache lacks is encoded.

        Args:
            config: resolved; ``loss.teacher``, ``negatives``, ``evaluation`` and ``paths`` are read.
            data: the pairs that train.
        """
        model, mined = config["loss"]["teacher"], config["negatives"]["mined"]
        if model is None:
            return None
        holders = {"positive": data.rows}
        if mined is not None and mined["pool"] == "source":
            holders["positive"] = np.union1d(data.rows, data.curation.kept)
        if config["negatives"]["given"]:
            holders["negative"] = data.rows
        log.info("the teacher's embeddings of all queries and passages")
        return cls.embedding(
            SearchModel.of(model, "loss.teacher"),
            data.source.pairs,
            data.rows,
            holders,
            EmbeddingStore(Path(config["paths"]["cache"])),
            EncodingSettings.of(config["evaluation"]),
        )

    @classmethod
    def embedding(
        cls,
        model: Model,
        table: pa.Table,
        rows: np.ndarray,
        holders: Mapping[str, np.ndarray],
        store: EmbeddingStore,
        encoding: EncodingSettings,
    ) -> Teacher:
        """Return a model's embeddings of some texts of a pairs table.

        Args:
            model: the teacher.
            table: of ``PAIR_SCHEMA``.
            rows: int64: whose queries are embedded.
            holders: int64 by ``positive`` or ``negative``: whose passages of that kind are embedded.
            store: where embeddings are kept.
            encoding: how texts are encoded.
        """
        query_ids, first = np.unique(table["query_id"].to_numpy()[rows], return_index=True)
        askers, queries = rows[first], RowReader(table.select(["query"]))

        def query_texts(positions: np.ndarray) -> list[str]:
            return [row["query"] for row in queries.rows(askers[positions])]

        passage_ids, homes = _distinct(table, holders)
        columns = [f"{kind}s" for kind in holders]
        passages = RowReader(table.select(columns))

        def passage_texts(positions: np.ndarray) -> list[str]:
            holding = passages.rows(homes[positions, 0])
            places = homes[positions, 1:].tolist()
            return [row[columns[column]][place] for row, (column, place) in zip(holding, places, strict=True)]

        return cls(
            EmbeddingsById(query_ids, store.embed(model, "query", query_ids, query_texts, encoding)),
            EmbeddingsById(passage_ids, store.embed(model, "passage", passage_ids, passage_texts, encoding)),
        )

    @property
    def dimension(self) -> int:
        """Number of components of its embeddings."""
        return self.passages.embeddings.dimension


def _distinct(table: pa.Table, holders: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct passages of some rows, and where each stands.

    Args:
        table: of ``PAIR_SCHEMA``.
        holders: rows by ``positive`` or ``negative``.

    Returns:
        ids, uint64 ``[passages]``, ascending; homes, int64 ``[passages, 3]``: row, number of the kind, place.
    """
    ids, homes = [], []
    for number, (kind, rows) in enumerate(holders.items()):
        lists = table.select([f"{kind}_ids"]).take(pa.array(rows)).combine_chunks()[f"{kind}_ids"]
        lengths = pc.list_value_length(lists).to_numpy()
        row = np.repeat(rows, lengths)
        place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        ids.append(pc.list_flatten(lists).to_numpy())
        homes.append(np.stack([row, np.full(len(row), number), place], axis=1))
    distinct, first = np.unique(np.concatenate(ids), return_index=True)
    return distinct, np.concatenate(homes)[first]
