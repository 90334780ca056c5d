"""Mined negatives as an artefact: search, filters, choice, and a report of all three."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from retrofit.artefacts import ArtefactStore, write_json
from retrofit.data.training_data import TrainingData
from retrofit.instantiation import instantiate
from retrofit.models.bi_encoder import BiEncoder, Kind, Pooling, load_tokenizer
from retrofit.models.checkpoints import weights_fingerprint
from retrofit.models.precision import EncodingSettings
from retrofit.negatives.choice import choose, fill
from retrofit.negatives.embeddings import Embeddings, EmbeddingStore
from retrofit.negatives.engine import LOCAL, Engine
from retrofit.negatives.filters import AtMost, Filter, Judged, Margin, NotKnown, RankWindow, apply
from retrofit.negatives.fusion import fuse
from retrofit.negatives.lexical import pieces_of, top_k_lexical
from retrofit.negatives.pool import MiningPool
from retrofit.negatives.search import Candidates, DenseSearch

STAGE = "negatives"
CODE_VERSION = 1  # raise it whenever the same selection, model and settings would give other negatives
ROWS = "rows.npy"
HOMES = "homes.npy"
REPORT = "report.json"

Search = Callable[[np.ndarray, np.ndarray, int], Candidates]
"""Finds for queries (by position) the best of some passages (by position), so many of each."""

SearchKind = Literal["dense", "bm25", "hybrid"]
"""By the similarity of embeddings, by BM25, or by both, their ranks fused."""

Languages = Literal["same", "other"]
"""Where negatives are looked for: in the language that answers the query, or in all others."""

_EXAMPLES = 10

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MinedNegatives:
    """Negatives of training pairs, by where their texts stand.

    Attributes:
        rows: int64 ``[queries]``, ascending: row of each pair in its table.
        homes: int64 ``[queries, count, 2]``: a row that holds the negative, and its place among that row's positives;
            -1, -1 where there is none.
        report: how they were found; JSON-like.
    """

    rows: np.ndarray
    homes: np.ndarray
    report: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> MinedNegatives:
        """Return the negatives of an artefact's folder, memory-mapped."""
        rows, homes = (np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in (ROWS, HOMES))
        return cls(rows, homes, json.loads((folder / REPORT).read_text(encoding="utf-8")))

    def of(self, rows: np.ndarray, visits: np.ndarray, count: int) -> np.ndarray:
        """Return where the negatives of a visit stand, int64 ``[n, 2]``; each visit takes the next ``count``.

        Args:
            rows: int64, rows that negatives were mined for.
            visits: how often each row was drawn before.
            count: negatives of each row.
        """
        homes = self.homes[np.searchsorted(self.rows, rows)]
        turns = (visits[:, None] * count + np.arange(count)) % homes.shape[1]
        taken = np.take_along_axis(homes, turns[:, :, None], axis=1).reshape(-1, 2)
        return taken[taken[:, 0] >= 0]


@dataclass(frozen=True)
class SearchModel:
    """The model that searches for negatives.

    Attributes:
        folder: its checkpoint.
        pooling: how token vectors become one.
        prompts: what is put before a query and before a passage.
        max_length: tokens after which a text is cut.
    """

    folder: Path
    pooling: Pooling
    prompts: dict[Kind, str]
    max_length: int

    @classmethod
    def of(cls, model: Mapping[str, Any]) -> SearchModel:
        """Return the model that a configuration like ``conf/model`` names, fetched where the cache lacks it."""
        checkpoint = Path(instantiate(model["checkpoint"])).absolute()  # other processes stand in other folders
        return cls(checkpoint, model["pooling"], model["prompts"], model["max_length"])

    @property
    def identity(self) -> dict[str, Any]:
        """What its embeddings depend on; JSON-like."""
        return {
            "weights": weights_fingerprint(self.folder),
            "pooling": self.pooling,
            "prompts": dict(self.prompts),
            "max_length": self.max_length,
        }

    def load(self) -> BiEncoder:
        """Return its encoder."""
        return BiEncoder.load(self.folder, self.pooling, self.prompts, self.max_length)


def filters_of(settings: Mapping[str, Any]) -> list[Filter]:
    """Return the filters of a configuration, in the order in which they are counted."""
    filters: list[Filter] = [NotKnown(), RankWindow(settings["first_rank"], settings["candidates"])]
    if settings["max_score"] is not None:
        filters.append(AtMost(settings["max_score"]))
    if settings["margin"] is not None:
        filters.append(Margin(settings["margin"]))
    return filters


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
    named = {name: value for name, value in settings.items() if name not in ("per_query", "memory_mb", "model")}
    inputs = {
        "code": CODE_VERSION,
        "source": data.source.fingerprint,
        "rows": hashlib.blake2b(data.rows.tobytes(), digest_size=8).hexdigest(),
        "model": model.identity,
        "precision": encoding.precision,
        "settings": named,
    }
    store = EmbeddingStore(cache)
    build = functools.partial(
        _mine, data=data, model=model, settings=settings, encoding=encoding, store=store, engine=engine
    )
    return MinedNegatives.open(ArtefactStore(cache).get(STAGE, inputs, build))


def embedded_pool(
    pool: MiningPool, model: SearchModel, encoding: EncodingSettings, store: EmbeddingStore, engine: Engine = LOCAL
) -> tuple[Embeddings, Embeddings]:
    """Return the embeddings of a pool's queries and passages."""
    weights = model.identity["weights"]
    queries = store.embed(model, weights, "query", pool.query_ids, pool.query_texts, encoding, engine)
    passages = store.embed(model, weights, "passage", pool.passage_ids, pool.passage_texts, encoding, engine)
    return queries, passages


def search_pool(
    pool: MiningPool, search: Search, languages: Languages, k: int, engine: Engine = LOCAL, block: int | None = None
) -> Candidates:
    """Return the best passages of each query.

    Args:
        pool: what is searched for in what.
        search: finds the best of some passages for some queries; picklable where the engine works in other processes.
        languages: ``same``: in passages of the language that answers the query; ``other``: in all others.
        k: how many of each query.
        engine: where to search.
        block: queries that are an item of work; None for all of a language.
    """
    places = np.full((len(pool.rows), k), -1, dtype=np.int64)
    scores = np.full((len(pool.rows), k), -np.inf, dtype=np.float32)

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
        for language in np.unique(pool.query_languages):
            asked = np.flatnonzero(pool.query_languages == language)
            same = pool.passage_languages == language
            searched = np.flatnonzero(same if languages == "same" else ~same)
            step = block or len(asked)
            for start in range(0, len(asked), step):
                yield asked[start : start + step], searched, k

    for asked, found in engine.map(functools.partial(_block_search, search), blocks()):
        places[asked], scores[asked] = found.passages, found.scores
    return Candidates(places, scores)


def _block_search(
    search: Search,
) -> Callable[[tuple[np.ndarray, np.ndarray, int]], tuple[np.ndarray, Candidates]]:
    def of_block(block: tuple[np.ndarray, np.ndarray, int]) -> tuple[np.ndarray, Candidates]:
        return block[0], search(*block)

    return of_block


def rescored(found: Candidates, queries: Embeddings, passages: Embeddings) -> Candidates:
    """Return candidates, in their order, with their similarity to the query as score."""
    scores = np.full(found.passages.shape, -np.inf, dtype=np.float32)
    block = max(1, 200_000 // found.passages.shape[1])
    for start in range(0, len(scores), block):
        asked, columns = np.nonzero(found.passages[start : start + block] >= 0)
        asked += start
        places = found.passages[asked, columns]
        scores[asked, columns] = np.einsum("nd,nd->n", queries.rows(asked), passages.rows(places))
    return Candidates(found.passages, scores)


def positive_scores(pool: MiningPool, queries: Embeddings, passages: Embeddings) -> np.ndarray:
    """Return each query's similarity to the least similar of its positives, float32 ``[queries]``.

    The least similar: a query is trained with each of its positives in turn, and no negative should lie above one.
    """
    lowest = np.full(len(pool.rows), np.inf, dtype=np.float32)
    block = 50_000
    for start in range(0, len(pool.answers), block):
        asked, answering = pool.answers[start : start + block].T
        similar = np.einsum("nd,nd->n", queries.rows(asked), passages.rows(answering))
        np.minimum.at(lowest, asked, similar)
    return lowest


def _mine(
    folder: Path,
    data: TrainingData,
    model: SearchModel,
    settings: Mapping[str, Any],
    encoding: EncodingSettings,
    store: EmbeddingStore,
    engine: Engine,
) -> None:
    started = time.monotonic()
    pool = MiningPool.of(data.source.pairs, data.rows)
    log.info("mining: %d queries in %d passages", len(pool.rows), len(pool.passage_ids))
    judged, seconds = _judged(pool, model, settings, encoding, store, engine)
    found = judged.candidates
    kept, counts = apply(filters_of(settings), judged)
    seed = settings["seed"]
    chosen = choose(found, kept, settings["count"], settings["sampling"], pool.query_ids, seed)
    filled, gaps = _filled(pool, chosen, settings) if settings["fill"] else (chosen, 0)
    np.save(folder / ROWS, pool.rows)
    np.save(folder / HOMES, np.where(filled[:, :, None] >= 0, pool.homes[filled], -1))
    seconds["choose"] = time.monotonic() - started - sum(seconds.values())
    report = {
        "queries": len(pool.rows),
        "passages": len(pool.passage_ids),
        "candidates": int((found.passages >= 0).sum()),
        "rejected": counts,
        "filled_at_random": gaps,
        "left_open": int((filled < 0).sum()),
        **_distributions(judged, chosen),
        "examples": _examples(pool, chosen),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }
    write_json(folder / REPORT, report)
    log.info("mining: of %d candidates %s", report["candidates"], counts)


def candidates_of(
    pool: MiningPool,
    model: SearchModel,
    settings: Mapping[str, Any],
    embedded: tuple[Embeddings, Embeddings] | None,
    engine: Engine = LOCAL,
) -> Candidates:
    """Return the candidates that a configuration's search finds, with similarities as scores where there are any.

    Args:
        pool: what is searched for in what.
        model: the model; BM25 searches for its tokenizer's pieces.
        settings: the values of ``negatives.mined``.
        embedded: embeddings of the pool's queries and passages; None where BM25 searches alone.
        engine: where to search by similarity; BM25, whose index is in memory, searches here.
    """
    k, languages = settings["candidates"], settings["languages"]
    searches: list[Candidates] = []
    if settings["search"] != "dense":
        tokenizer = load_tokenizer(model.folder)

        def lexical(asked: np.ndarray, searched: np.ndarray, k: int) -> Candidates:
            return top_k_lexical(
                lambda places: pieces_of(tokenizer, pool.query_texts(places)), asked,
                lambda places: pieces_of(tokenizer, pool.passage_texts(places)), searched, k,
            )  # fmt: skip

        searches.append(search_pool(pool, lexical, languages, k))
    if embedded is None:
        return searches[0]
    queries, passages = embedded
    if settings["search"] != "bm25":
        dense = DenseSearch(queries, passages, settings["memory_mb"])
        searches.append(search_pool(pool, dense, languages, k, engine, dense.queries_at_once(k)))
    return rescored(searches[0] if len(searches) == 1 else fuse(searches, k), queries, passages)


def _judged(
    pool: MiningPool,
    model: SearchModel,
    settings: Mapping[str, Any],
    encoding: EncodingSettings,
    store: EmbeddingStore,
    engine: Engine,
) -> tuple[Judged, dict[str, float]]:
    """Return candidates with what is known of them, and the seconds it took to encode and to search."""
    started = time.monotonic()
    # BM25 alone needs no model, unless a filter asks how similar a candidate is.
    needed = settings["search"] != "bm25" or settings["margin"] is not None or settings["max_score"] is not None
    embedded = embedded_pool(pool, model, encoding, store, engine) if needed else None
    encoded = time.monotonic()
    found = candidates_of(pool, model, settings, embedded, engine)
    positives = np.full(len(pool.rows), np.nan, dtype=np.float32)
    if embedded is not None:
        positives = positive_scores(pool, *embedded)
    judged = Judged(found, pool.is_known(found.passages), positives)
    return judged, {"encode": encoded - started, "search": time.monotonic() - encoded}


def _filled(pool: MiningPool, chosen: np.ndarray, settings: Mapping[str, Any]) -> tuple[np.ndarray, int]:
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
        passages = np.flatnonzero(pool.passage_languages == language)
        filled[asked], added = fill(chosen[asked], passages, known, pool.query_ids[asked], settings["seed"])
        gaps += added
    return filled, gaps


def _distributions(judged: Judged, chosen: np.ndarray) -> dict[str, Any]:
    """Return ranks and scores of what was chosen, and how far below the positive it lies, as percentiles."""
    places = judged.candidates.passages[:, :, None] == np.where(chosen < 0, -2, chosen)[:, None, :]
    queries, ranks, _ = np.nonzero(places)
    scores = judged.candidates.scores[queries, ranks]
    figures = {"rank": ranks + 1, "score": scores, "below_positive": judged.positive_scores[queries] - scores}
    figures = {name: values[np.isfinite(values)] for name, values in figures.items()}
    percentiles = (5, 25, 50, 75, 95)
    return {
        "chosen": len(queries),
        **{
            name: dict(zip(map(str, percentiles), np.percentile(values, percentiles).round(4).tolist(), strict=True))
            for name, values in figures.items()
            if len(values)
        },
    }


def _examples(pool: MiningPool, chosen: np.ndarray) -> list[dict[str, Any]]:
    rows = np.flatnonzero(chosen[:, 0] >= 0)
    shown = rows[np.unique(np.linspace(0, len(rows) - 1, _EXAMPLES).round().astype(np.int64))] if len(rows) else rows
    return [
        {"query": pair["query"], "positive": pair["positives"][0], "negative": negative}
        for pair, negative in zip(pool.reader.rows(pool.rows[shown]), pool.passage_texts(chosen[shown, 0]), strict=True)
    ]
