"""Similar texts: MinHash finds candidates, the exact Jaccard similarity of their character windows decides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import rensa

from retrofit.data.curation.windows import Hashes, blocks, is_dense, mixed, width_at, windows

SHINGLE = 5
"""Characters of a shingle; two for Chinese, Japanese and Korean."""

_PERMUTATIONS = 128
_RECALL = 0.99
_SEED = 1


def shingles(text: str) -> frozenset[str]:
    """Return the shingles of a normalised text: the same windows that are hashed to find candidates."""
    if not is_dense(text):
        return frozenset(text[start : start + SHINGLE] for start in range(max(1, len(text) - SHINGLE + 1)))
    found = set()
    reached, tail = 0, len(text)
    for start, character in enumerate(text):
        end = start + width_at(character, SHINGLE)
        if end <= len(text):
            found.add(text[start:end])
            reached = max(reached, end)
        elif reached <= start:
            tail = min(tail, start)
    return frozenset(found | {text[tail:]} if tail < len(text) else found)


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Return the Jaccard similarity of two sets; 1 for two empty ones."""
    shared = len(left & right)
    total = len(left) + len(right) - shared
    return shared / total if total else 1.0


def rows_a_band(threshold: float, parts: int = 1) -> int:
    """Return how many MinHash values a band has: as many as still find 99% of pairs just at a threshold.

    Args:
        threshold: Jaccard similarity of pairs that must be found.
        parts: the number is a multiple of it.
    """
    for rows in range(_PERMUTATIONS // 4, parts, -1):
        if rows % parts == 0 and 1 - (1 - threshold**rows) ** (_PERMUTATIONS // rows) >= _RECALL:
            return rows
    return parts


class Bands:
    """Band hashes of texts: pairs at least as similar as a threshold agree in one or more with 99% probability.

    Args:
        threshold: Jaccard similarity of the shingles.
        parts: how many texts a thing has whose bands are to be combined, each of them at least that similar.
    """

    def __init__(self, threshold: float, parts: int = 1) -> None:
        rows = rows_a_band(threshold, parts)
        self.count = _PERMUTATIONS // rows
        self._rows = rows // parts

    def of(self, texts: Sequence[str]) -> Hashes:
        """Return uint64 ``[texts, count]``, given normalised texts."""
        result = np.empty((len(texts), self.count), np.uint64)
        for start, block in blocks(texts):
            hashes, owners, _ = windows(block, SHINGLE, tails=True)
            result[start : start + len(block)] = self._folded(self._signatures(hashes, owners, len(block)))
        return result

    def _signatures(self, hashes: Hashes, owners: npt.NDArray[np.int64], texts: int) -> npt.NDArray[np.uint32]:
        offsets = np.searchsorted(owners, np.arange(texts + 1)).astype(np.uint64)
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, self.count * self._rows, _SEED)
        return np.array(matrix.to_rows(), np.uint32).reshape(texts, self.count * self._rows)

    def _folded(self, signatures: npt.NDArray[np.uint32]) -> Hashes:
        bands = signatures.astype(np.uint64).reshape(len(signatures), self.count, self._rows)
        folded = np.zeros(bands.shape[:2], np.uint64)
        for row in range(self._rows):
            folded = mixed(folded, bands[:, :, row])
        return folded
