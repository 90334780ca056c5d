"""Hashes of all windows of characters in many texts at once, and a sorted index of hashes.

Windows are of characters, for every script alike: they need no word boundaries. A character of Chinese, Japanese or
Korean says more than a letter (on Tatoeba's parallel sentences these take 0.32, 0.46 and 0.52 characters for one of
English, every alphabet more than 0.7), so a window that starts at one has two fifths of the width. The width depends on
the first character alone, so texts that agree in a place agree in its windows, whatever stands around it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]

_CHARACTERS_A_BLOCK = 500_000
# Kana, CJK extension A, Han, Hangul syllables, compatibility Han, further Han: first and last code point.
_DENSE_RANGES = (
    (0x3040, 0x30FF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7AF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
_DENSE_EDGES = np.array([edge for first, last in _DENSE_RANGES for edge in (first, last + 1)], np.uint32)
_DENSE = re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in _DENSE_RANGES) + "]")


def is_dense(text: str) -> bool:
    """Return whether a text has a Chinese, Japanese or Korean character."""
    return _DENSE.search(text) is not None


def dense_width(width: int) -> int:
    """Return the width of a window that starts at a Chinese, Japanese or Korean character."""
    return max(2, round(width * 2 / 5))


def width_at(character: str, width: int) -> int:
    """Return the width of a window that starts at a character."""
    return dense_width(width) if is_dense(character) else width


def mixed(left: Hashes, right: Hashes) -> Hashes:
    """Return a hash of pairs of hashes; the order within a pair counts. Arrays broadcast."""
    result = left * np.uint64(0x9E3779B97F4A7C15)
    result ^= result >> np.uint64(29)
    result = result + right
    result *= np.uint64(0xBF58476D1CE4E5B9)
    result ^= result >> np.uint64(32)
    result *= np.uint64(0x94D049BB133111EB)
    result ^= result >> np.uint64(31)
    return result


def blocks(texts: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield texts in runs of about half a million characters, so that arrays over characters stay small.

    Yields:
        The number of the first text, and the texts.
    """
    start = characters = 0
    for number, text in enumerate(texts):
        characters += len(text)
        if characters >= _CHARACTERS_A_BLOCK:
            yield start, texts[start : number + 1]
            start, characters = number + 1, 0
    if start < len(texts):
        yield start, texts[start:]


def windows(texts: Sequence[str], width: int, *, tails: bool) -> tuple[Hashes, Numbers, Numbers]:
    """Return the hashes of every window of texts, in their order.

    Args:
        texts: normalised texts.
        width: characters of a window, at least 2.
        tails: whether the first character that no window holds starts one more, which ends with the text: all of a
            text shorter than a window, or a few letters behind Chinese, Japanese or Korean ones.

    Returns:
        Hashes uint64 ``[windows]``, the number of the text of each int64 ``[windows]``, and where in its text each
        starts int64 ``[windows]``.
    """
    padding = "\0" * (width - 1)
    flat = "".join(text + padding for text in texts)
    codes = np.frombuffer(flat.encode("utf-32-le", "surrogatepass"), np.uint32)
    lengths = np.array([len(text) for text in texts], np.int64)
    starts = np.cumsum(lengths + width - 1) - (lengths + width - 1)
    owners = np.repeat(np.arange(len(texts)), lengths)
    positions = np.arange(len(owners)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    places = starts[owners] + positions

    hashes = _hashed(codes, width)[places]
    widths = np.full(len(places), width)
    dense = np.searchsorted(_DENSE_EDGES, codes[places], side="right") % 2 == 1
    if dense.any():
        hashes[dense] = _hashed(codes, dense_width(width))[places[dense]]
        widths[dense] = dense_width(width)
    complete = positions + widths <= lengths[owners]
    if tails:
        numbers = np.arange(len(places))
        reached = np.maximum.accumulate(np.where(complete, numbers + widths, 0))
        uncovered = np.flatnonzero(reached <= numbers)
        complete[uncovered[np.unique(owners[uncovered], return_index=True)[1]]] = True
    return hashes[complete], owners[complete], positions[complete]


def _hashed(codes: npt.NDArray[np.uint32], width: int) -> Hashes:
    """Return the hash of each window by doubling: 2, 4, 8 … characters, then two overlapping halves."""
    hashes = mixed(codes.astype(np.uint64) + np.uint64(1), np.zeros(1, np.uint64))
    reach = 1
    while 2 * reach <= width:
        hashes = mixed(hashes[:-reach], hashes[reach:])
        reach *= 2
    rest = width - reach
    return mixed(hashes[:-rest], hashes[rest:]) if rest else hashes


class HashIndex:
    """From a hash to the first thing that had it: 12 bytes a hash, and a filter that answers most questions.

    Args:
        hashes: uint64 ``[n]``, repetitions allowed.
        values: int32 ``[n]``, what each hash stands for; of equal hashes the first one's is kept.
    """

    def __init__(self, hashes: Hashes, values: npt.NDArray[np.int32]) -> None:
        self._hashes, first = np.unique(hashes, return_index=True)
        self._values = values[first]
        # Eight places a hash: seven of eight questions about unknown hashes end at one read.
        self._mask = np.uint64((1 << max(10, int(8 * len(self._hashes)).bit_length())) - 1)
        self._present = np.zeros(int(self._mask) + 1, bool)
        self._present[self._hashes & self._mask] = True

    def find(self, hashes: Hashes) -> npt.NDArray[np.int32]:
        """Return the value of each hash, -1 where it is not known; int32 ``[hashes]``."""
        result = np.full(len(hashes), -1, np.int32)
        candidates = np.flatnonzero(self._present[hashes & self._mask])
        if len(candidates) and len(self._hashes):
            wanted = hashes[candidates]
            places = np.minimum(np.searchsorted(self._hashes, wanted), len(self._hashes) - 1)
            equal = self._hashes[places] == wanted
            result[candidates[equal]] = self._values[places[equal]]
        return result
