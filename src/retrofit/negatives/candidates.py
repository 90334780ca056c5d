"""The search for candidates over a whole pool: by similarity, by BM25 or by both, language by language."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np

from retrofit.engine import LOCAL, Engine
from retrofit.models.bm25 import pieces_of
from retrofit.negatives.lexical import top_k_lexical
from retrofit.negatives.pool import MiningPool
from retrofit.negatives.search import Candidates

Search = Callable[[np.ndarray, np.ndarray, int], Candidates]
"""Finds for queries (by position) the best of some passages (by position), so many of each."""

SearchKind = Literal["dense", "bm25", "hybrid"]
"""By the similarity of embeddings, by BM25, or by both, their ranks fused."""

Languages = Literal["same", "other"]
"""Where negatives are looked for: in the language that answers the query, or in all others."""


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
            same = pool.memberships[:, 1] == language
            searched = np.unique(pool.memberships[same if languages == "same" else ~same, 0])
            step = block or len(asked)
            for start in range(0, len(asked), step):
                yield asked[start : start + step], searched, k

    for asked, found in engine.map(functools.partial(_block_search, search), blocks()):
        places[asked], scores[asked] = found.passages, found.scores
    return Candidates(places, scores)


def lexical_search(pool: MiningPool, tokenizer: Any) -> Search:
    """Return a search by BM25 over the pieces of a tokenizer. Its index is in memory, so it searches where it is."""

    def search(asked: np.ndarray, searched: np.ndarray, k: int) -> Candidates:
        return top_k_lexical(
            lambda places: pieces_of(tokenizer, pool.query_texts(places)), asked,
            lambda places: pieces_of(tokenizer, pool.passage_texts(places)), searched, k,
        )  # fmt: skip

    return search


def _block_search(
    search: Search,
) -> Callable[[tuple[np.ndarray, np.ndarray, int]], tuple[np.ndarray, Candidates]]:
    def of_block(block: tuple[np.ndarray, np.ndarray, int]) -> tuple[np.ndarray, Candidates]:
        return block[0], search(*block)

    return of_block
