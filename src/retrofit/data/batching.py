"""From planned rows to tensors: unique texts, their relevance to each other, and chunks of similar length."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from retrofit.data.sampling import PlannedBatch, SamplingPlan
from retrofit.data.storage import RowReader

Tokenize = Callable[[Sequence[str], Literal["query", "passage"]], list[list[int]]]

_COLUMNS = ["query_id", "query", "positive_ids", "positives", "negative_ids", "negatives"]


@dataclass(frozen=True)
class TextBatch:
    """The texts of a step, each once, and what is known of their relevance.

    Attributes:
        queries: query texts.
        passages: passage texts, positives first as they come, then negatives, without duplicates.
        relevance: int8 ``[queries, passages]``: 1 positive, -1 negative, 0 masked.
        query_ids: int64 ``[queries]``, content hash of each query; the 64 bits of the records, read as signed.
        passage_ids: int64 ``[passages]``, likewise.
        answers: int64 ``[n, 2]``: place of a query in the step and id of a passage known to answer it, whether or not
            the passage stands in the step.
    """

    queries: list[str]
    passages: list[str]
    relevance: Tensor
    query_ids: Tensor
    passage_ids: Tensor
    answers: Tensor


@dataclass(frozen=True)
class TokenBatch:
    """A step as the model takes it.

    Queries, then passages, then anchors are numbered through; of several processes, each embeds every ``world_size``-th
    text from its rank on. What is counted is counted over all processes.

    Attributes:
        token_ids: one list of token ids a text of this process: queries, then passages.
        n_queries: how many queries the step has.
        relevance: int8 ``[queries, passages]`` of the step.
        anchors: one list of token ids for each text of this process whose embedding should stay where the base has it.
        n_anchors: how many such texts the step has.
        query_ids: int64 ``[queries]``, see :class:`TextBatch`.
        passage_ids: int64 ``[passages]``, likewise.
        answers: int64 ``[n, 2]``, likewise.
    """

    token_ids: list[list[int]]
    n_queries: int
    relevance: Tensor
    anchors: list[list[int]]
    n_anchors: int
    query_ids: Tensor
    passage_ids: Tensor
    answers: Tensor


class KnownPositives:
    """Every passage known to answer a query, over all pairs of a table that ask it: in any task, language and split.

    A batch may hold a passage that answers one of its queries by way of a pair that is not in the batch. What is kept
    in memory are the row numbers of the queries that more than one pair asks.
    """

    def __init__(self, table: pa.Table) -> None:
        self._reader = RowReader(table.select(["query_id", "positive_ids"]))
        query_ids = table["query_id"].to_numpy()
        order = np.argsort(query_ids, kind="stable")
        query_ids = query_ids[order]
        same = query_ids[1:] == query_ids[:-1]
        repeated = np.zeros(len(order), dtype=bool)
        repeated[1:] |= same
        repeated[:-1] |= same
        self._query_ids = query_ids[repeated]
        self._rows = order[repeated]

    def of(self, query_ids: Sequence[int]) -> dict[int, set[int]]:
        """Return the passage ids by query id; a query that one pair alone asks is left out."""
        asked = np.unique(np.array(query_ids, dtype=np.uint64))
        starts, ends = (np.searchsorted(self._query_ids, asked, side) for side in ("left", "right"))
        rows = [self._rows[start:end] for start, end in zip(starts, ends, strict=True)]
        known: dict[int, set[int]] = {}
        for row in self._reader.rows(np.concatenate(rows)) if rows else ():
            known.setdefault(row["query_id"], set()).update(row["positive_ids"])
        return known


def text_batch(
    rows: Sequence[Mapping[str, Any]],
    visits: Sequence[int],
    extra_passages: Sequence[tuple[int, str]] = (),
    known: Mapping[int, Collection[int]] | None = None,
    given_negatives: int = 0,
) -> TextBatch:
    """Return the texts of a step and their relevance.

    Passages are told apart by content hash, so a passage that stands in a batch twice is one column. A query's
    positive of this visit is marked 1; its other known positives, should they stand in the batch, 0; all else -1.

    Args:
        rows: records of ``PAIR_SCHEMA``.
        visits: how often each row was drawn before; chooses among its positives, and its negatives, in turn.
        extra_passages: (passage id, text) of further negatives.
        known: passages known to answer a query by way of other pairs.
        given_negatives: how many of a row's own negatives to take.
    """
    column: dict[int, int] = {}
    passages: list[str] = []

    def add(passage_id: int, text: str) -> int:
        if passage_id not in column:
            column[passage_id] = len(passages)
            passages.append(text)
        return column[passage_id]

    chosen = []
    answers = {query_id: set(passage_ids) for query_id, passage_ids in (known or {}).items()}
    for row, visit in zip(rows, visits, strict=True):
        turn = int(visit) % len(row["positives"])
        chosen.append(add(row["positive_ids"][turn], row["positives"][turn]))
        answers.setdefault(row["query_id"], set()).update(row["positive_ids"])
    for row, visit in zip(rows, visits, strict=True):
        for place in range(min(given_negatives, len(row["negatives"]))):
            turn = (int(visit) * given_negatives + place) % len(row["negatives"])
            add(row["negative_ids"][turn], row["negatives"][turn])
    for passage_id, text in extra_passages:
        add(passage_id, text)

    relevance = torch.full((len(rows), len(passages)), -1, dtype=torch.int8)
    for index, row in enumerate(rows):
        relevance[index, [column[i] for i in answers[row["query_id"]] if i in column]] = 0
        relevance[index, chosen[index]] = 1
    known_answers = [(index, i) for index, row in enumerate(rows) for i in sorted(answers[row["query_id"]])]
    return TextBatch(
        [row["query"] for row in rows],
        passages,
        relevance,
        query_ids=_signed([row["query_id"] for row in rows]),
        passage_ids=_signed(list(column)),
        answers=_signed(known_answers).reshape(-1, 2),
    )


def _signed(ids: Sequence[Any]) -> Tensor:
    """Return 64-bit identifiers as int64, bit for bit: torch can hardly do anything with uint64."""
    return torch.from_numpy(np.array(ids, dtype=np.uint64).view(np.int64))


@dataclass(frozen=True)
class BatchContents:
    """What stands in a batch besides the pairs of the plan.

    Attributes:
        given_negatives: of the hard negatives that the data source gives with a pair, how many a visit takes in turn.
        mined_negatives: of the negatives mined for a pair, how many a visit takes in turn.
        random_negatives: passages drawn for each query from what the batch is drawn from.
        anchors: texts a step whose embeddings should stay where the base has them.
        seed: of the draws.
    """

    given_negatives: int = 0
    mined_negatives: int = 0
    random_negatives: int = 0
    anchors: int = 0
    seed: int = 0


class NegativesByRow(Protocol):
    """Negatives that were found for pairs, by where their texts stand in the pairs' own table."""

    def of(self, rows: np.ndarray, visits: np.ndarray, count: int) -> np.ndarray:
        """Return int64 ``[n, 2]``: a row that holds a negative, and its place among that row's positives.

        Args:
            rows: int64, the rows of a batch.
            visits: how often each was drawn before.
            count: negatives of each row.
        """


class PlannedBatches(torch.utils.data.Dataset[TokenBatch]):
    """The steps of a run as a dataset: item k is the batch of step k, tokenised.

    Attributes:
        reader: of pairs of ``PAIR_SCHEMA``, which may be memory-mapped.
        plan: which rows form which batch.
        tokenize: turns texts of a kind into token ids.
        contents: what stands in a batch besides.
        anchor_rows: rows that lend their texts as anchors, int64.
        mined: negatives mined for the rows of the plan.
        rank: number of the process, of ``world_size`` that share every batch.
        world_size: number of processes.
    """

    def __init__(
        self,
        table: pa.Table,
        plan: SamplingPlan,
        tokenize: Tokenize,
        contents: BatchContents | None = None,
        anchor_rows: np.ndarray | None = None,
        mined: NegativesByRow | None = None,
    ) -> None:
        self.reader = RowReader(table.select(_COLUMNS))
        self.plan = plan
        self.tokenize = tokenize
        self.contents = contents or BatchContents()
        self.anchor_rows = np.empty(0, dtype=np.int64) if anchor_rows is None else anchor_rows
        self.mined = mined
        self.known = KnownPositives(table)
        self.rank, self.world_size = 0, 1

    def of_process(self, rank: int, world_size: int) -> PlannedBatches:
        """Return the same steps as one of several processes sees them: a share of the texts, the relevance of all."""
        share = copy.copy(self)
        share.rank, share.world_size = rank, world_size
        return share

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, step: int) -> TokenBatch:
        texts = self.texts(step)
        anchor_queries, anchor_passages = self._anchors(step)
        numbered: list[tuple[list[str], Literal["query", "passage"]]] = [
            (texts.queries, "query"), (texts.passages, "passage"), (anchor_queries, "query"),
            (anchor_passages, "passage"),
        ]  # fmt: skip
        first = np.cumsum([0, *(len(each) for each, _ in numbered)]).tolist()
        own = [
            self.tokenize(each[(self.rank - number) % self.world_size :: self.world_size], kind)
            for (each, kind), number in zip(numbered, first[:-1], strict=True)
        ]
        return TokenBatch(
            own[0] + own[1],
            len(texts.queries),
            texts.relevance,
            own[2] + own[3],
            first[-1] - first[2],
            texts.query_ids,
            texts.passage_ids,
            texts.answers,
        )

    def texts(self, step: int) -> TextBatch:
        """Return the texts of a step before they are tokenised."""
        planned = self.plan.batch(step)
        rows = self.reader.rows(planned.rows)
        extra = [*self._mined_passages(planned), *self._random_passages(step, len(rows))]
        known = self.known.of([row["query_id"] for row in rows])
        return text_batch(rows, planned.visits.tolist(), extra, known, self.contents.given_negatives)

    def _mined_passages(self, planned: PlannedBatch) -> list[tuple[int, str]]:
        """Return the negatives mined for this visit of the rows; the relevance matrix masks those that answer."""
        if self.mined is None or self.contents.mined_negatives == 0:
            return []
        homes = self.mined.of(planned.rows, planned.visits, self.contents.mined_negatives)
        holders = self.reader.rows(homes[:, 0])
        return [
            (holder["positive_ids"][slot], holder["positives"][slot])
            for holder, slot in zip(holders, homes[:, 1].tolist(), strict=True)
        ]

    def _random_passages(self, step: int, queries: int) -> list[tuple[int, str]]:
        """Return positives of other pairs; the relevance matrix masks those that answer a query of the batch."""
        if self.contents.random_negatives == 0:
            return []
        generator = np.random.default_rng([self.contents.seed, 2, step])
        drawn = self.plan.sample(step, self.contents.random_negatives * queries, generator)
        others = self.reader.rows(drawn)
        return [(other["positive_ids"][0], other["positives"][0]) for other in others]

    def _anchors(self, step: int) -> tuple[list[str], list[str]]:
        """Return the queries and the passages among the anchors."""
        count = min(len(self.anchor_rows), self.contents.anchors)
        if count == 0:
            return [], []
        generator = np.random.default_rng([self.contents.seed, 3, step])
        rows = self.reader.rows(generator.choice(self.anchor_rows, size=count, replace=False))
        return [row["query"] for row in rows[::2]], [row["positives"][0] for row in rows[1::2]]
