"""Whatever gives a query and a passage a score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from retrofit.instantiation import instantiate
from retrofit.models.checkpoints import files_fingerprint, weights_fingerprint
from retrofit.models.embeddings import Embeddings
from retrofit.negatives.pool import MiningPool
from retrofit.negatives.search import Candidates

_PAIRS_A_BLOCK = 200_000


class Scorer(Protocol):
    """Says how well passages answer queries."""

    def __call__(self, queries: np.ndarray, passages: np.ndarray) -> np.ndarray:
        """Return float32 ``[n]``, the scores of pairs of a query and a passage given by position, int64 ``[n]``."""


class Similarity:
    """Scores by the inner product of embeddings.

    Attributes:
        queries: embeddings of queries.
        passages: embeddings of passages.
    """

    def __init__(self, queries: Embeddings, passages: Embeddings) -> None:
        self.queries = queries
        self.passages = passages

    def __call__(self, queries: np.ndarray, passages: np.ndarray) -> np.ndarray:
        """Return the similarities of pairs, float32 ``[n]``."""
        similar: np.ndarray = np.einsum("nd,nd->n", self.queries.rows(queries), self.passages.rows(passages))
        return similar


@dataclass(frozen=True)
class Reranker:
    """A cross-encoder: it reads query and passage together.

    Attributes:
        folder: its checkpoint, as sentence-transformers' ``CrossEncoder`` reads it.
        max_length: tokens after which a pair is cut.
    """

    folder: Path
    max_length: int

    @classmethod
    def of(cls, reranker: Mapping[str, Any]) -> Reranker:
        """Return the reranker that a configuration like ``conf/reranker`` names."""
        return cls(Path(instantiate(reranker["checkpoint"])), reranker["max_length"])

    @property
    def identity(self) -> dict[str, Any]:
        """What its scores depend on; JSON-like."""
        return {
            "weights": weights_fingerprint(self.folder),
            "files": files_fingerprint(self.folder),
            "max_length": self.max_length,
        }

    def scorer(self, pool: MiningPool) -> Scorer:
        """Return its scores of the pool's queries and passages: as its own configuration has them, mostly 0 to 1."""
        from sentence_transformers import CrossEncoder

        model = CrossEncoder(str(self.folder), max_length=self.max_length, trust_remote_code=False)

        def scores(queries: np.ndarray, passages: np.ndarray) -> np.ndarray:
            pairs = list(zip(pool.query_texts(queries), pool.passage_texts(passages), strict=True))
            if not pairs:
                return np.empty(0, dtype=np.float32)
            found: np.ndarray = model.predict(pairs, show_progress_bar=False, convert_to_numpy=True)
            return found.astype(np.float32).reshape(len(pairs))

        return scores


def scored(found: Candidates, scorer: Scorer, left: np.ndarray | None = None) -> np.ndarray:
    """Return a scorer's scores of candidates, float32 ``[queries, k]``, -inf where there is none or none is asked for.

    Args:
        found: candidates.
        scorer: gives the scores.
        left: bool ``[queries, k]``, which candidates are asked for; None for all.
    """
    wanted = found.passages >= 0 if left is None else left & (found.passages >= 0)
    scores = np.full(found.passages.shape, -np.inf, dtype=np.float32)
    block = max(1, _PAIRS_A_BLOCK // max(1, found.passages.shape[1]))
    for start in range(0, len(scores), block):
        asked, columns = np.nonzero(wanted[start : start + block])
        asked += start
        scores[asked, columns] = scorer(asked, found.passages[asked, columns])
    return scores


def lowest_scores(answers: np.ndarray, queries: int, scorer: Scorer) -> np.ndarray:
    """Return each query's lowest score of an answer, float32 ``[queries]``, infinite where it has none.

    The lowest: a query is trained with each of its positives in turn, and no negative should lie above one.

    Args:
        answers: int64 ``[n, 2]``: query and passage.
        queries: how many there are.
        scorer: gives the scores.
    """
    lowest = np.full(queries, np.inf, dtype=np.float32)
    for start in range(0, len(answers), _PAIRS_A_BLOCK):
        asked, answering = answers[start : start + _PAIRS_A_BLOCK].T
        np.minimum.at(lowest, asked, scorer(asked, answering))
    return lowest


def reordered(found: Candidates, scores: np.ndarray) -> Candidates:
    """Return candidates with other scores (float32 ``[queries, k]``), best first."""
    order = np.argsort(-scores, axis=1, kind="stable")
    return Candidates(np.take_along_axis(found.passages, order, 1), np.take_along_axis(scores, order, 1))
