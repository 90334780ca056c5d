"""What is mined: the queries of a selection, the passages they are searched in, and which are known to answer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrofit.data.batching import KnownPositives
from retrofit.data.curation.similarity import Bands, jaccard, shingles
from retrofit.data.curation.texts import normalised
from retrofit.data.records import content_id
from retrofit.data.selection import labels
from retrofit.data.storage import RowReader

_ROWS_A_BLOCK = 20_000
_ANSWERS_A_BLOCK = 2_000
_SHINGLES_HELD = 20_000


@dataclass(frozen=True)
class MiningPool:
    """Queries and distinct passages of some pairs, by position; texts stay on disk.

    Attributes:
        reader: of the pairs.
        rows: int64 ``[queries]``, ascending: the row of each query.
        query_ids: uint64 ``[queries]``.
        query_languages: int32 ``[queries]``, code of the language of the query's passages.
        passage_ids: uint64 ``[passages]``, ascending.
        memberships: int64 ``[n, 2]``, ascending: each passage with the code of every language it stands in, for a text
            may stand in several.
        homes: int64 ``[passages, 2]``: a row of the pairs that holds the passage, and its place among the positives.
        alike: int64 ``[passages]``: passages whose texts are equal after normalisation have the same number.
        answers: int64 ``[n, 2]``: query and passage of every pair that is mined for, in the order of the queries.
        known: int64, ascending: ``query * len(passage_ids) + alike`` of everything known to answer, by way of any pair.
    """

    reader: RowReader
    rows: np.ndarray
    query_ids: np.ndarray
    query_languages: np.ndarray
    passage_ids: np.ndarray
    memberships: np.ndarray
    homes: np.ndarray
    alike: np.ndarray
    answers: np.ndarray
    known: np.ndarray

    @classmethod
    def of(cls, table: pa.Table, rows: np.ndarray, searched: np.ndarray | None = None) -> MiningPool:
        """Return the pool of some rows of a pairs table: their queries, and all their positives.

        Args:
            table: of ``PAIR_SCHEMA``.
            rows: int64, ascending: the rows that are mined for.
            searched: int64: rows whose positives are searched as well; None for no others.
        """
        holders = rows if searched is None else np.union1d(rows, searched)
        taken = table.select(["positive_ids"]).take(pa.array(holders)).combine_chunks()
        lengths = pc.list_value_length(taken["positive_ids"]).to_numpy()
        holder = np.repeat(np.arange(len(holders)), lengths)
        slots = np.arange(len(holder)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        flat = pc.list_flatten(taken["positive_ids"]).to_numpy()
        passage_ids, first, passages = np.unique(flat, return_index=True, return_inverse=True)
        languages = labels(table, "document_language")[0].astype(np.int32)
        query_of = np.full(len(holders), -1)
        query_of[np.searchsorted(holders, rows)] = np.arange(len(rows))
        asks = query_of[holder] >= 0
        pool = cls(
            reader=RowReader(table.select(["query", "positives"])),
            rows=rows,
            query_ids=table["query_id"].to_numpy()[rows],
            query_languages=languages[rows],
            passage_ids=passage_ids,
            memberships=_distinct(passages, languages[holders[holder]]),
            homes=np.stack([holders[holder[first]], slots[first]], axis=1),
            alike=np.arange(len(passage_ids)),
            answers=np.stack([query_of[holder[asks]], passages[asks]], axis=1),
            known=np.empty(0, dtype=np.int64),
        )
        alike = _alike(len(passage_ids), pool.passage_texts)
        return cls(**{**vars(pool), "alike": alike, "known": _known(pool, alike, KnownPositives(table))})

    def query_texts(self, positions: np.ndarray) -> list[str]:
        """Return queries by position."""
        return [row["query"] for row in self.reader.rows(self.rows[positions])]

    def passage_texts(self, positions: np.ndarray) -> list[str]:
        """Return passages by position."""
        homes = self.homes[positions]
        rows = self.reader.rows(homes[:, 0])
        return [row["positives"][slot] for row, slot in zip(rows, homes[:, 1].tolist(), strict=True)]

    def is_known(self, passages: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
        """Return whether passages are known to answer their query, or read like one that is; bool, the same shape.

        Args:
            passages: int64 ``[queries, k]``, positions of passages, -1 for none.
            known: instead of ``self.known``, where less shall be known.
        """
        keys = np.arange(len(passages))[:, None] * len(self.passage_ids) + self.alike[passages]
        found: np.ndarray = np.isin(keys, self.known if known is None else known) & (passages >= 0)
        return found

    def is_near(self, passages: np.ndarray, threshold: float, known: np.ndarray | None = None) -> np.ndarray:
        """Return whether passages nearly equal a known answer of their query; bool, the same shape.

        Args:
            passages: int64 ``[queries, k]``, positions of passages, -1 for none.
            threshold: least Jaccard similarity of the shingles of two normalised texts that nearly equal each other.
            known: instead of ``self.known``, where less shall be known.
        """
        bands = _bands(self, threshold)
        shingles_of = functools.lru_cache(maxsize=_SHINGLES_HELD)(
            lambda position: shingles(normalised(self.passage_texts(np.array([position]))[0]))
        )
        of_alike = np.unique(self.alike, return_index=True)[1]
        asked, answers = np.divmod(self.known if known is None else known, len(self.passage_ids))
        near = np.zeros(passages.shape, dtype=bool)
        for start in range(0, len(asked), _ANSWERS_A_BLOCK):
            part = slice(start, start + _ANSWERS_A_BLOCK)
            candidates, positives = passages[asked[part]], of_alike[answers[part]]
            shares = (bands[candidates] == bands[positives][:, None, :]).any(axis=2) & (candidates >= 0)
            for row, column in np.argwhere(shares).tolist():
                similarity = jaccard(shingles_of(int(candidates[row, column])), shingles_of(int(positives[row])))
                near[asked[part][row], column] |= similarity >= threshold
        return near


def _distinct(passages: np.ndarray, languages: np.ndarray) -> np.ndarray:
    """Return the pairs of a passage and a language, each once and ascending, int64 ``[n, 2]``."""
    width = int(languages.max(initial=0)) + 1
    return np.stack(np.divmod(np.unique(passages.astype(np.int64) * width + languages), width), axis=1)


def _bands(pool: MiningPool, threshold: float) -> np.ndarray:
    """Return the band hashes of all passages, uint64 ``[passages, bands]``."""
    bands = Bands(threshold)
    found = np.empty((len(pool.passage_ids), bands.count), dtype=np.uint64)
    for start in range(0, len(found), _ROWS_A_BLOCK):
        positions = np.arange(start, min(len(found), start + _ROWS_A_BLOCK))
        found[positions] = bands.of([normalised(text) for text in pool.passage_texts(positions)])
    return found


def _alike(count: int, texts: Callable[[np.ndarray], list[str]]) -> np.ndarray:
    hashes = np.empty(count, dtype=np.uint64)
    for start in range(0, count, _ROWS_A_BLOCK):
        positions = np.arange(start, min(count, start + _ROWS_A_BLOCK))
        hashes[positions] = [content_id(normalised(text)) for text in texts(positions)]
    numbers: np.ndarray = np.unique(hashes, return_inverse=True)[1]
    return numbers


def _known(pool: MiningPool, alike: np.ndarray, positives: KnownPositives) -> np.ndarray:
    width = len(pool.passage_ids)
    keys = [pool.answers[:, 0] * width + alike[pool.answers[:, 1]]]
    for start in range(0, len(pool.rows), _ROWS_A_BLOCK):
        ids = pool.query_ids[start : start + _ROWS_A_BLOCK]
        elsewhere = positives.of(ids.tolist())
        for offset, query_id in enumerate(ids.tolist()):
            others = np.array(sorted(elsewhere.get(query_id, ())), dtype=np.uint64)
            place = np.minimum(np.searchsorted(pool.passage_ids, others), width - 1)
            place = place[pool.passage_ids[place] == others]
            keys.append((start + offset) * width + alike[place])
    return np.unique(np.concatenate(keys))
