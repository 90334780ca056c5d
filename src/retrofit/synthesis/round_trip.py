"""Round-trip consistency: does a search with the query find the passage it was written for (Dai et al. 2023)?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from retrofit.data.records import content_id
from retrofit.data.sources.validation import check_count
from retrofit.engine import Engine
from retrofit.models.bi_encoder import Kind, Pooling, Precision
from retrofit.models.embeddings import Embeddings, EmbeddingStore
from retrofit.models.precision import EncodingSettings, resolve_precision
from retrofit.models.search_model import SearchModel
from retrofit.synthesis.candidates import Candidate
from retrofit.synthesis.records import SourcePassage

_QUERIES_A_BLOCK = 512
_PASSAGES_A_BLOCK = 16_384


class RoundTrip:
    """Rejects queries whose passage is not among the best of its language.

    Attributes:
        k: among how many; None asks nothing.
        model: the model that searches.
        settings: how texts are encoded.
    """

    def __init__(
        self, k: int | None, model: Mapping[str, Any], precision: Precision | Literal["auto"], token_budget: int
    ) -> None:
        """Take what the keys of ``data_source.round_trip`` say.

        Args:
            k: among how many.
            model: like ``conf/model``, with its checkpoint's folder.
            precision: of the matrix products.
            token_budget: tokens, padding counted, that go through the backbone at once.

        Raises:
            UserError: ``k`` is no number of passages.
        """
        check_count("data_source.round_trip.k", k, optional=True)
        pooling: Pooling | None = model["pooling"]
        prompts: dict[Kind, str] | None = model["prompts"]
        self.k = k
        self.model = SearchModel(Path(model["checkpoint"]).absolute(), pooling, prompts, model["max_length"])
        self.settings = EncodingSettings(resolve_precision(precision), token_budget)

    def identity(self) -> dict[str, Any]:
        """Return what is rejected depends on; JSON-like."""
        if self.k is None:
            return {"k": None}
        return {"k": self.k, "model": self.model.identity, "precision": self.settings.precision}

    def apply(
        self, candidates: Sequence[Candidate], passages: Sequence[SourcePassage], cache: Path, engine: Engine
    ) -> None:
        """Note the rank of each candidate's passage, and reject those beyond ``k``.

        Args:
            candidates: those that passed the filters before.
            passages: what is searched besides the candidates' own passages.
            cache: root of the cache, which keeps the embeddings.
            engine: where texts are encoded.
        """
        if self.k is None:
            return
        pools: dict[str, dict[int, str]] = {}
        for passage in passages:
            if not passage.is_query:
                pools.setdefault(passage.language, {})[passage.passage_id] = passage.text
        of_language: dict[str, list[Candidate]] = {}
        for candidate in candidates:
            language = candidate.document_language
            pools.setdefault(language, {})[content_id(candidate.passage)] = candidate.passage
            of_language.setdefault(language, []).append(candidate)
        for language, its in of_language.items():
            pool = pools[language]
            place = {identifier: place for place, identifier in enumerate(pool)}
            own = np.array([place[content_id(candidate.passage)] for candidate in its], dtype=np.int64)
            found = ranks(
                self._embedded("query", [candidate.query for candidate in its], cache, engine),
                self._embedded("passage", list(pool.values()), cache, engine),
                own,
            )
            for candidate, rank in zip(its, found.tolist(), strict=True):
                candidate.rank = rank
                if rank > self.k:
                    candidate.reject("round_trip", f"rank {rank}")

    def _embedded(self, kind: Kind, texts: list[str], cache: Path, engine: Engine) -> Embeddings:
        ids = np.array([content_id(text) for text in texts], dtype=np.uint64)
        return EmbeddingStore(cache).embed(
            self.model, kind, ids, lambda positions: [texts[place] for place in positions], self.settings, engine
        )


def ranks(queries: Embeddings, passages: Embeddings, own: np.ndarray) -> np.ndarray:
    """Return the place of each query's own passage among all passages by inner product, int64 ``[queries]``, from 1.

    Args:
        queries: embeddings of the queries.
        passages: embeddings of the passages.
        own: int64 ``[queries]``, which passage is whose.
    """
    found = np.ones(len(queries), dtype=np.int64)
    scores = np.empty(len(queries), dtype=np.float32)
    blocks = [
        np.arange(start, min(start + _QUERIES_A_BLOCK, len(queries)))
        for start in range(0, len(queries), _QUERIES_A_BLOCK)
    ]
    for block in blocks:
        scores[block] = np.einsum("nd,nd->n", queries.rows(block), passages.rows(own[block]))
    for first in range(0, len(passages), _PASSAGES_A_BLOCK):
        part = np.arange(first, min(first + _PASSAGES_A_BLOCK, len(passages)))
        vectors = passages.rows(part)
        for block in blocks:
            better = queries.rows(block) @ vectors.T > scores[block, None]
            # Summed in another order, a passage may seem better than itself.
            inside = np.flatnonzero((own[block] >= first) & (own[block] <= part[-1]))
            better[inside, own[block[inside]] - first] = False
            found[block] += better.sum(axis=1)
    return found
