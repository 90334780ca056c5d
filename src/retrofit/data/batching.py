"""From planned rows to tensors: unique texts, their relevance to each other, and chunks of similar length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from retrofit.data.sampling import PlannedBatch, SamplingPlan

Tokenize = Callable[[Sequence[str], Literal["query", "passage"]], list[list[int]]]


@dataclass(frozen=True)
class TextBatch:
    """The texts of a step, each once, and what is known of their relevance.

    Attributes:
        queries: query texts.
        passages: passage texts, positives first as they come, then negatives, without duplicates.
        relevance: int8 ``[queries, passages]``: 1 positive, -1 negative, 0 masked.
    """

    queries: list[str]
    passages: list[str]
    relevance: Tensor


@dataclass(frozen=True)
class TokenBatch:
    """A step as the model takes it.

    Attributes:
        token_ids: one list of token ids a text: all queries, then all passages.
        n_queries: how many of the texts are queries.
        relevance: int8 ``[queries, passages]``.
        anchors: one list of token ids for each text whose embedding should stay where the base has it; may be empty.
    """

    token_ids: list[list[int]]
    n_queries: int
    relevance: Tensor
    anchors: list[list[int]]


def text_batch(
    rows: Sequence[dict[str, Any]], visits: Sequence[int], extra_passages: Sequence[tuple[str, str]] = ()
) -> TextBatch:
    """Return the texts of a step and their relevance.

    Passages are told apart by content hash, so a passage that stands in a batch twice is one column. A query's
    positive of this visit is marked 1; its other known positives, should they stand in the batch, 0; all else -1.

    Args:
        rows: records of ``PAIR_SCHEMA``.
        visits: how often each row was drawn before; chooses among its positives in turn.
        extra_passages: (passage id, text) of further negatives.
    """
    column: dict[str, int] = {}
    passages: list[str] = []

    def add(passage_id: str, text: str) -> int:
        if passage_id not in column:
            column[passage_id] = len(passages)
            passages.append(text)
        return column[passage_id]

    chosen = []
    known: dict[str, set[str]] = {}
    for row, visit in zip(rows, visits, strict=True):
        turn = int(visit) % len(row["positives"])
        chosen.append(add(row["positive_ids"][turn], row["positives"][turn]))
        known.setdefault(row["query_id"], set()).update(row["positive_ids"])
    for row in rows:
        for passage_id, text in zip(row["negative_ids"], row["negatives"], strict=True):
            add(passage_id, text)
    for passage_id, text in extra_passages:
        add(passage_id, text)

    relevance = torch.full((len(rows), len(passages)), -1, dtype=torch.int8)
    for index, row in enumerate(rows):
        relevance[index, [column[i] for i in known[row["query_id"]] if i in column]] = 0
        relevance[index, chosen[index]] = 1
    return TextBatch([row["query"] for row in rows], passages, relevance)


class PlannedBatches(torch.utils.data.Dataset[TokenBatch]):
    """The steps of a run as a dataset: item k is the batch of step k, tokenised.

    Attributes:
        table: pairs of ``PAIR_SCHEMA``.
        plan: which rows form which batch.
        tokenize: turns texts of a kind into token ids.
        random_negatives: passages of the same task and language drawn for each query besides the in-batch ones.
        anchors: pairs of ``PAIR_SCHEMA`` that lend their texts as anchors, None where there are none.
        n_anchors: anchor texts a step.
        seed: of both draws.
    """

    def __init__(
        self,
        table: pa.Table,
        plan: SamplingPlan,
        tokenize: Tokenize,
        random_negatives: int = 0,
        anchors: pa.Table | None = None,
        n_anchors: int = 0,
        seed: int = 0,
    ) -> None:
        self.table = table
        self.plan = plan
        self.tokenize = tokenize
        self.random_negatives = random_negatives
        self.anchors = anchors
        self.n_anchors = n_anchors
        self.seed = seed

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, step: int) -> TokenBatch:
        planned = self.plan.batch(step)
        rows = self.table.take(planned.rows).to_pylist()
        texts = text_batch(rows, planned.visits.tolist(), self._draw(step, planned))
        token_ids = self.tokenize(texts.queries, "query") + self.tokenize(texts.passages, "passage")
        return TokenBatch(token_ids, len(texts.queries), texts.relevance, self._anchor_token_ids(step))

    def _draw(self, step: int, planned: PlannedBatch) -> list[tuple[str, str]]:
        """Return positives of other pairs of the batch's stratum; the relevance matrix masks those that answer."""
        if self.random_negatives == 0:
            return []
        generator = np.random.default_rng([self.seed, 2, step])
        pool = self.plan.rows(step)
        drawn = generator.choice(pool, size=min(len(pool), self.random_negatives * len(planned.rows)), replace=False)
        others = self.table.take(drawn).to_pylist()
        return [(other["positive_ids"][0], other["positives"][0]) for other in others]

    def _anchor_token_ids(self, step: int) -> list[list[int]]:
        if self.anchors is None or self.n_anchors == 0:
            return []
        generator = np.random.default_rng([self.seed, 3, step])
        drawn = generator.choice(len(self.anchors), size=min(len(self.anchors), self.n_anchors), replace=False)
        rows = self.anchors.take(drawn).to_pylist()
        queries = [row["query"] for row in rows[::2]]
        passages = [row["positives"][0] for row in rows[1::2]]
        return self.tokenize(queries, "query") + (self.tokenize(passages, "passage") if passages else [])
