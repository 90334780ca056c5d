"""Mining from end to end: search, scores, filters, choice, and a report of all of them; and its artefact."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from retrofit.artefacts import ArtefactStore
from retrofit.data.training_data import TrainingData
from retrofit.engine import LOCAL, Engine
from retrofit.models.bi_encoder import load_tokenizer
from retrofit.models.embeddings import CODE_VERSION as EMBEDDINGS_VERSION
from retrofit.models.embeddings import Embeddings, EmbeddingStore, Model
from retrofit.models.precision import EncodingSettings
from retrofit.models.search_model import SearchModel
from retrofit.negatives.candidates import lexical_search, search_pool
from retrofit.negatives.choice import choose, fill
from retrofit.negatives.filters import (
    AtMost,
    Filter,
    Judged,
    Margin,
    NotKnown,
    NotNear,
    RankWindow,
    SecondOpinion,
    ShareOfPositive,
    Veto,
    apply,
)
from retrofit.negatives.fusion import fuse
from retrofit.negatives.mined import MinedNegatives
from retrofit.negatives.pool import MiningPool
from retrofit.negatives.report import distributions, examples
from retrofit.negatives.scoring import Reranker, Scorer, Similarity, lowest_scores, reordered, scored
from retrofit.negatives.search import Candidates, DenseSearch

STAGE = "negatives"
CODE_VERSION = 3  # raise it whenever the same selection, model and settings would give other negatives

SearchedIn = Literal["selection", "source"]
"""Which passages are searched: those of the pairs that train, or of all pairs of the source that could."""

UNNAMED_SETTINGS = (
    "per_query", "memory_mb", "model", "reranker", "veto", "refresh_every_steps", "refresh_every_epochs",
)  # fmt: skip
"""Settings that change nothing of what is found, and models, which are named by their weights."""

log = logging.getLogger(__name__)


def filters_of(settings: Mapping[str, Any]) -> list[Filter]:
    """Return the filters of a configuration, in the order in which they are counted."""
    filters: list[Filter] = [NotKnown()]
    if settings["near_duplicates"] is not None:
        filters.append(NotNear())
    filters.append(RankWindow(settings["first_rank"], settings["candidates"]))
    if settings["max_score"] is not None:
        filters.append(AtMost(settings["max_score"]))
    if settings["margin"] is not None:
        filters.append(Margin(settings["margin"]))
    if settings["share"] is not None:
        filters.append(ShareOfPositive(settings["share"]))
    if settings["veto"] is not None:
        filters.append(Veto(settings["veto"]["margin"]))
    return filters


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        candidates: of each query.
        scorer: gives their scores, and those of the positives; None where BM25 searched and nobody asks for scores.
        second: the scorer that may veto, and its scores of the candidates; None where there is none.
    """

    candidates: Candidates
    scorer: Scorer | None
    second: tuple[Scorer, np.ndarray] | None


@dataclass(frozen=True)
class Miner:
    """Mines negatives for a pool.

    Attributes:
        pool: what is searched for in what.
        model: the model that searches.
        settings: the values of ``negatives.mined``.
        encoding: how texts are encoded.
        store: where embeddings are kept.
        engine: where to encode and to search.
        passing: where the embeddings of ``model`` are kept instead, which is still being trained; None for ``store``.
        seconds: filled in by the work that is done: seconds by stage.
    """

    pool: MiningPool
    model: Model
    settings: Mapping[str, Any]
    encoding: EncodingSettings
    store: EmbeddingStore
    engine: Engine = LOCAL
    passing: EmbeddingStore | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def search(self) -> Found:
        """Return the candidates of all queries, with the scores that decide."""
        settings, pool = self.settings, self.pool
        kinds = settings["search"]
        asks_scores = any(settings[name] is not None for name in ("margin", "max_score", "share"))
        reranked = settings["reranker"] is not None
        started = time.monotonic()
        # BM25 alone needs no model, unless a filter asks how similar a candidate is.
        own = self.passing or self.store
        embedded = self._embedded(self.model, own) if kinds != "bm25" or (asks_scores and not reranked) else None
        self.seconds["encode"] = time.monotonic() - started
        started = time.monotonic()
        found = self._found(embedded)
        scorer: Scorer | None = Similarity(*embedded) if embedded else None
        if reranked:
            scorer = Reranker.of(settings["reranker"]).scorer(pool)
            found = reordered(found, scored(found, scorer))
        elif scorer is not None and kinds != "dense":
            found = Candidates(found.passages, scored(found, scorer))
        second = None
        if settings["veto"] is not None:
            other = self._veto_scorer(settings["veto"])
            second = other, scored(found, other)
        self.seconds["search"] = time.monotonic() - started
        return Found(found, scorer, second)

    def judge(self, found: Found, known: np.ndarray | None = None, answers: np.ndarray | None = None) -> Judged:
        """Return candidates with what the filters look at.

        Args:
            found: what the search found.
            known: instead of the pool's, where less shall be known.
            answers: instead of the pool's, likewise.
        """
        pool = self.pool
        answers = pool.answers if answers is None else answers
        passages = found.candidates.passages
        positives = np.full(len(pool.rows), np.nan, dtype=np.float32)
        if found.scorer is not None:
            positives = lowest_scores(answers, len(pool.rows), found.scorer)
        near = self.settings["near_duplicates"]
        second = None
        if found.second is not None:
            scorer, scores = found.second
            second = SecondOpinion(scores, lowest_scores(answers, len(pool.rows), scorer))
        return Judged(
            found.candidates,
            pool.is_known(passages, known),
            positives,
            None if near is None else pool.is_near(passages, near, known),
            second,
        )

    def mine(self) -> MinedNegatives:
        """Return the negatives of the pool's queries."""
        settings, pool, started = self.settings, self.pool, time.monotonic()
        log.info("mining: %d queries in %d passages", len(pool.rows), len(pool.passage_ids))
        judged = self.judge(self.search())
        kept, counts = apply(filters_of(settings), judged)
        chosen = choose(
            judged.candidates, kept, settings["count"], settings["sampling"], pool.query_ids, settings["seed"]
        )
        filled, gaps = _filled(pool, chosen, settings["seed"]) if settings["fill"] else (chosen, 0)
        self.seconds["choose"] = time.monotonic() - started - sum(self.seconds.values())
        report = {
            "queries": len(pool.rows),
            "passages": len(pool.passage_ids),
            "candidates": int((judged.candidates.passages >= 0).sum()),
            "rejected": counts,
            "filled_at_random": gaps,
            "left_open": int((filled < 0).sum()),
            **distributions(judged, chosen),
            "examples": examples(pool, chosen),
            "seconds": {name: round(value, 1) for name, value in self.seconds.items()},
        }
        log.info("mining: of %d candidates %s", report["candidates"], counts)
        return MinedNegatives(pool.rows, np.where(filled[:, :, None] >= 0, pool.homes[filled], -1), report)

    def _embedded(self, model: Model, store: EmbeddingStore) -> tuple[Embeddings, Embeddings]:
        """Return the embeddings of the pool's queries and passages."""
        pool, embed = self.pool, store.embed
        queries = embed(model, "query", pool.query_ids, pool.query_texts, self.encoding, self.engine)
        passages = embed(model, "passage", pool.passage_ids, pool.passage_texts, self.encoding, self.engine)
        return queries, passages

    def _found(self, embedded: tuple[Embeddings, Embeddings] | None) -> Candidates:
        k, languages, kinds = (self.settings[name] for name in ("candidates", "languages", "search"))
        searches: list[Candidates] = []
        if kinds != "dense":
            lexical = lexical_search(self.pool, load_tokenizer(self.model.folder))
            searches.append(search_pool(self.pool, lexical, languages, k))
        if kinds != "bm25" and embedded is not None:
            dense = DenseSearch(*embedded, self.settings["memory_mb"])
            searches.append(search_pool(self.pool, dense, languages, k, self.engine, dense.queries_at_once(k)))
        return searches[0] if len(searches) == 1 else fuse(searches, k)

    def _veto_scorer(self, veto: Mapping[str, Any]) -> Scorer:
        if veto["reranker"] is not None:
            return Reranker.of(veto["reranker"]).scorer(self.pool)
        return Similarity(*self._embedded(SearchModel.of(veto["model"], "negatives.mined.veto.model"), self.store))


def searched_pool(data: TrainingData, searched_in: SearchedIn) -> MiningPool:
    """Return the pool of a selection: its queries, and the passages of its own pairs or of the whole source.

    Of the source only what curation keeps for training is searched: no text of evaluation becomes a negative.
    """
    rows = data.curation.kept if searched_in == "source" else None
    return MiningPool.of(data.source.pairs, data.rows, rows)


def mine(
    data: TrainingData,
    model: SearchModel,
    settings: Mapping[str, Any],
    encoding: EncodingSettings,
    cache: Path,
    engine: Engine = LOCAL,
) -> MinedNegatives:
    """Return the negatives of a selection, mining them first if the cache does not hold them.

    Args:
        data: the selection.
        model: searches.
        settings: the values of ``negatives.mined``.
        encoding: how texts are encoded.
        cache: root of the cache.
        engine: where to encode and to search.
    """
    inputs = {
        "code": CODE_VERSION,
        "embeddings": EMBEDDINGS_VERSION,
        "source": data.source.fingerprint,
        "rows": _fingerprint(data.rows),
        "searched": _fingerprint(data.curation.kept) if settings["pool"] == "source" else None,
        "model": model.identity,
        "reranker": None if settings["reranker"] is None else Reranker.of(settings["reranker"]).identity,
        "veto": _veto_identity(settings["veto"]),
        "precision": encoding.precision,
        "settings": {name: value for name, value in settings.items() if name not in UNNAMED_SETTINGS},
    }

    def build(folder: Path) -> None:
        pool = searched_pool(data, settings["pool"])
        Miner(pool, model, settings, encoding, EmbeddingStore(cache), engine).mine().save(folder)

    folder = ArtefactStore(cache).get(STAGE, inputs, build)
    mined = MinedNegatives.open(folder)
    return replace(mined, report={"fingerprint": folder.name, **mined.report})


def _fingerprint(rows: np.ndarray) -> str:
    return hashlib.blake2b(rows.tobytes(), digest_size=8).hexdigest()


def _veto_identity(veto: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if veto is None:
        return None
    by = Reranker.of(veto["reranker"]) if veto["reranker"] is not None else SearchModel.of(veto["model"])
    return {"margin": veto["margin"], "by": by.identity}


def _filled(pool: MiningPool, chosen: np.ndarray, seed: int) -> tuple[np.ndarray, int]:
    """Fill gaps with passages of the query's own language that read like none of its known positives."""
    filled, gaps = chosen.copy(), 0
    width = len(pool.passage_ids)
    of_alike = np.argsort(pool.alike, kind="stable")
    starts = np.searchsorted(pool.alike[of_alike], np.arange(width + 1))
    first = np.searchsorted(pool.known, np.arange(len(pool.rows) + 1) * width)
    for language in np.unique(pool.query_languages):
        asked = np.flatnonzero((pool.query_languages == language) & (chosen < 0).any(axis=1))
        known = []
        for query in asked:
            numbers = pool.known[first[query] : first[query + 1]] - query * width
            known.append(np.concatenate([of_alike[starts[n] : starts[n + 1]] for n in numbers]))
        passages = pool.memberships[pool.memberships[:, 1] == language, 0]
        filled[asked], added = fill(chosen[asked], passages, known, pool.query_ids[asked], seed)
        gaps += added
    return filled, gaps
