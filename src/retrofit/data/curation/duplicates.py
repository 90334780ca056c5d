"""Rows that repeat an earlier row of the same task and languages: the first stays, whatever comes after it goes.

A row is a query and its first positive: what it is trained on when it is first drawn. It repeats another if both repeat
the other's: many questions about one paragraph are not duplicates, nor is one question that two passages answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retrofit.data.curation.quality import Finding
from retrofit.data.curation.settings import DuplicateSettings
from retrofit.data.curation.similarity import Bands, jaccard, shingles
from retrofit.data.curation.texts import Row, normalised, row_texts
from retrofit.data.curation.windows import Numbers, mixed
from retrofit.data.records import content_id

MOST_COMPARED = 64
"""With how many earlier rows a row is compared at most, those that share most bands first."""
_REMEMBERED = 4_096
_ROWS_A_BLOCK = 10_000


def compared_texts(texts: Sequence[str]) -> tuple[str, str]:
    """Return the two texts that stand for a row, given its query and its positives."""
    return normalised(texts[0]), normalised(texts[1])


class Duplicates:
    """Takes rows in table order, then tells which repeat an earlier one.

    Args:
        table: the pairs the rows come from, of ``PAIR_SCHEMA``.
        settings: which rules are on.
        folder: where the bands of the rows are kept while it works, four bytes a band and row.

    Attributes:
        cut_short: how many rows had more similar candidates than were compared.
    """

    def __init__(self, table: pa.Table, settings: DuplicateSettings, folder: Path) -> None:
        self._table = table
        self._settings = settings
        self._rows: list[npt.NDArray[np.int64]] = []
        self._keys: list[npt.NDArray[np.uint64]] = []
        self._bands = Bands(settings.near, parts=2) if settings.near is not None else None
        self._file = folder / "bands.bin"
        self._compared = lru_cache(maxsize=_REMEMBERED)(self._read)
        self.cut_short = 0

    def add(self, rows: Sequence[Row]) -> None:
        """Take in further rows of the table."""
        texts = [compared_texts(row.texts()) for row in rows]
        strata = [content_id(f"{row.task}\x1f{row.language}\x1f{row.document_language}") for row in rows]
        self._rows.append(np.array([row.number for row in rows], np.int64))
        keys = [content_id("\x1f".join((str(stratum), *both))) for stratum, both in zip(strata, texts, strict=True)]
        self._keys.append(np.array(keys, np.uint64))
        if self._bands is not None and rows:
            queries, passages = (self._bands.of(part) for part in zip(*texts, strict=True))
            bands = mixed(mixed(queries, passages), np.array(strata, np.uint64)[:, None])
            with self._file.open("ab") as file:
                file.write((bands >> np.uint64(32)).astype(np.uint32).tobytes())

    def findings(self) -> Iterator[tuple[int, Finding]]:
        """Yield the number of each row that repeats an earlier one, and why: equal rows first, each in table order."""
        rows = np.concatenate([*self._rows, np.zeros(0, np.int64)])
        keys = np.concatenate([*self._keys, np.zeros(0, np.uint64)])
        _, firsts, inverse = np.unique(keys, return_index=True, return_inverse=True)
        originals = firsts[inverse]
        single = originals == np.arange(len(rows))
        if self._settings.exact:
            for place in np.flatnonzero(~single):
                yield int(rows[place]), self._finding("duplicate_equal", rows[place], rows[originals[place]], 1.0)
        if self._bands is not None:
            places = np.flatnonzero(single) if self._settings.exact else np.arange(len(rows))
            yield from self._near(rows, places, self._bands.count)

    def _near(self, rows: Numbers, places: Numbers, count: int) -> Iterator[tuple[int, Finding]]:
        assert self._settings.near is not None  # noqa: S101
        if not len(places):
            return
        buckets = self._buckets(places, len(rows), count)
        leaders: dict[int, list[int]] = {}
        for start in range(0, len(places), _ROWS_A_BLOCK):
            block = np.ascontiguousarray(buckets[:, start : start + _ROWS_A_BLOCK].T)
            for offset in np.flatnonzero((block >= 0).any(axis=1)):
                own = [(band << 32) + int(bucket) for band, bucket in enumerate(block[offset]) if bucket >= 0]
                row = int(rows[places[start + offset]])
                match = self._similar_leader(row, own, leaders)
                if match is not None:
                    yield row, self._finding("duplicate_near", row, *match)
                    continue
                for bucket in own:
                    leaders.setdefault(bucket, []).append(row)

    def _buckets(self, places: Numbers, rows: int, count: int) -> npt.NDArray[np.int32]:
        """Return which rows share a band: int32 ``[bands, places]``, -1 where no other row has that band."""
        bands = np.memmap(self._file, np.uint32, "r", shape=(rows, count))
        buckets = np.memmap(self._file.with_name("buckets.bin"), np.int32, "w+", shape=(count, len(places)))
        for band in range(count):
            _, inverse, counts = np.unique(bands[:, band][places], return_inverse=True, return_counts=True)
            buckets[band] = np.where(counts[inverse] > 1, inverse, -1)
        return buckets

    def _similar_leader(self, row: int, own: list[int], leaders: dict[int, list[int]]) -> tuple[int, float] | None:
        assert self._settings.near is not None  # noqa: S101
        candidates: Counter[int] = Counter()
        for bucket in own:
            # One more than are compared, so that cutting short is noticed.
            candidates.update(leaders.get(bucket, ())[: MOST_COMPARED + 1])
        ranked = sorted(candidates, key=lambda leader: (-candidates[leader], leader))
        for leader in ranked[:MOST_COMPARED]:
            similarity = self._similarity(row, leader)
            if similarity >= self._settings.near:
                return leader, similarity
        self.cut_short += len(ranked) > MOST_COMPARED
        return None

    def _similarity(self, row: int, other: int) -> float:
        one, two = self._compared(row), self._compared(other)
        if self._labels(row) != self._labels(other):
            return 0.0
        return min(jaccard(left, right) for left, right in zip(one, two, strict=True))

    def _read(self, row: int) -> tuple[frozenset[str], frozenset[str]]:
        query, positive = compared_texts(row_texts(self._table, row))
        return shingles(query), shingles(positive)

    def _labels(self, row: int) -> list[str]:
        return [self._table.column(name)[row].as_py() for name in ("task", "language", "document_language")]

    def _finding(self, reason: str, row: int, other: int, score: float) -> Finding:
        text, matched = (" → ".join(row_texts(self._table, int(number))[:2]) for number in (row, other))
        return Finding(reason, "row", text, score, f"row {int(other)}: {matched}")
