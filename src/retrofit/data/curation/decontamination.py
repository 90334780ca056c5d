"""Texts that training and evaluation both have: equal, similar, or with a run of characters in common.

The texts of one side are indexed by hashes alone and read again, one by one, where a hash matches: nothing is decided
on a hash or an estimate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from typing import Protocol

import numpy as np
import numpy.typing as npt

from retrofit.data.curation.settings import DecontaminationSettings
from retrofit.data.curation.similarity import Bands, jaccard, shingles
from retrofit.data.curation.windows import Hashes, HashIndex, blocks, width_at, windows
from retrofit.data.records import content_id

RULES = ("held_out_equal", "held_out_near", "held_out_run")
"""Reasons in their order: an equal text, a similar text, a shared run of characters."""
MOST_COMPARED = 64
"""With how many others a text is compared at most, those that share most bands first."""
_REMEMBERED = 4_096


@dataclass(frozen=True, slots=True)
class Match:
    """What a text has in common with an indexed one.

    Attributes:
        reason: one of ``RULES``.
        number: of the indexed text.
        score: similarity; of a run, its length in characters.
    """

    reason: str
    number: int
    score: float


class IndexedTexts(Protocol):
    """Normalised texts, all different, that others are compared with."""

    def batches(self) -> Iterator[Sequence[str]]:
        """Yield the texts in batches; a text's number is its place in them."""

    @property
    def text(self) -> Callable[[int], str]:
        """A function that returns the text of a number."""


class _Index(Protocol):
    """One way for a text to be known: first all known texts are added, then it is asked."""

    def add(self, texts: Sequence[str]) -> None:
        """Take in further known texts; they are numbered as they come."""

    def close(self) -> None:
        """Make ready to be asked."""

    def find(self, texts: Sequence[str]) -> dict[int, Match]:
        """Return what is known of some texts, by their place among them."""


class Decontamination:
    """Finds what training texts have in common with evaluation texts, or the other way round.

    Args:
        known: the texts of one side, which are indexed.
        settings: which rules are on.
    """

    def __init__(self, known: IndexedTexts, settings: DecontaminationSettings) -> None:
        self._indices: list[_Index] = []
        self._near: _NearTexts | None = None
        if settings.exact:
            self._indices.append(_EqualTexts(known))
        if settings.near is not None:
            self._near = _NearTexts(known, settings.near)
            self._indices.append(self._near)
        if settings.shared_run is not None:
            self._indices.append(_SharedRuns(known, settings.shared_run, settings.run_share))
        for texts in known.batches():
            for index in self._indices:
                index.add(texts)
        for index in self._indices:
            index.close()

    @property
    def cut_short(self) -> int:
        """How many texts had more candidates for similarity than were compared."""
        return self._near.cut_short if self._near else 0

    def find(self, texts: Sequence[str]) -> list[Match | None]:
        """Return for each normalised text what is known of it: an equal text, a similar one, a run."""
        found: dict[int, Match] = {}
        for index in self._indices:
            rest = [place for place in range(len(texts)) if place not in found]
            for place, match in index.find([texts[place] for place in rest]).items():
                found[rest[place]] = match
        return [found.get(place) for place in range(len(texts))]


class _EqualTexts:
    def __init__(self, known: IndexedTexts) -> None:
        self._known = known
        self._hashes: list[Hashes] = []

    def add(self, texts: Sequence[str]) -> None:
        self._hashes.append(np.array([content_id(text) for text in texts], np.uint64))

    def close(self) -> None:
        hashes = np.concatenate([*self._hashes, np.zeros(0, np.uint64)])
        self._index = HashIndex(hashes, np.arange(len(hashes), dtype=np.int32))
        self._hashes.clear()

    def find(self, texts: Sequence[str]) -> dict[int, Match]:
        numbers = self._index.find(np.array([content_id(text) for text in texts], np.uint64))
        return {
            place: Match("held_out_equal", number, 1.0)
            for place, number in enumerate(numbers.tolist())
            if number >= 0 and self._known.text(number) == texts[place]
        }


class _NearTexts:
    def __init__(self, known: IndexedTexts, threshold: float) -> None:
        self._threshold = threshold
        self._bands = Bands(threshold)
        self._batches: list[Hashes] = []
        self._shingles = lru_cache(maxsize=_REMEMBERED)(lambda number: shingles(known.text(number)))
        self.cut_short = 0

    def add(self, texts: Sequence[str]) -> None:
        self._batches.append(self._bands.of(texts))

    def close(self) -> None:
        bands = np.concatenate([*self._batches, np.zeros((0, self._bands.count), np.uint64)])
        self._batches.clear()
        orders = [np.argsort(bands[:, band], kind="stable").astype(np.int32) for band in range(self._bands.count)]
        self._sorted = [(bands[order, band], order) for band, order in enumerate(orders)]

    def find(self, texts: Sequence[str]) -> dict[int, Match]:
        bands = self._bands.of(texts)
        candidates: dict[int, Counter[int]] = {}
        for band, (hashes, order) in enumerate(self._sorted):
            known, wanted = np.append(hashes, np.uint64(0)), bands[:, band]
            first = np.searchsorted(hashes, wanted)
            for place in np.flatnonzero(known[first] == wanted):
                # One more than are compared, so that cutting short is noticed.
                same = slice(first[place], first[place] + MOST_COMPARED + 1)
                numbers = order[same][hashes[same] == wanted[place]]
                candidates.setdefault(int(place), Counter()).update(numbers.tolist())
        found = {place: self._most_similar(texts[place], numbers) for place, numbers in candidates.items()}
        return {place: match for place, match in sorted(found.items()) if match is not None}

    def _most_similar(self, text: str, candidates: Counter[int]) -> Match | None:
        ranked = sorted(candidates, key=lambda number: (-candidates[number], number))
        own = shingles(text)
        for number in ranked[:MOST_COMPARED]:
            similarity = jaccard(own, self._shingles(number))
            if similarity >= self._threshold:
                return Match("held_out_near", number, similarity)
        self.cut_short += len(ranked) > MOST_COMPARED
        return None


class _SharedRuns:
    def __init__(self, known: IndexedTexts, width: int, share: float) -> None:
        self._known = known
        self._width = width
        self._share = share
        self._added = 0
        self._runs: list[Hashes] = []
        self._owners: list[npt.NDArray[np.int32]] = []
        self._lengths: list[npt.NDArray[np.int64]] = []

    def add(self, texts: Sequence[str]) -> None:
        for start, block in blocks(texts):
            runs, owners, _ = windows(block, self._width, tails=False)
            lengths = np.array([len(text) for text in block], np.int64)
            runs, kept = _of_shortest(runs, lengths[owners])
            self._runs.append(runs)
            self._owners.append((owners[kept] + (self._added + start)).astype(np.int32))
            self._lengths.append(lengths)
        self._added += len(texts)

    def close(self) -> None:
        runs = np.concatenate([*self._runs, np.zeros(0, np.uint64)])
        owners = np.concatenate([*self._owners, np.zeros(0, np.int32)])
        lengths = np.concatenate([*self._lengths, np.zeros(0, np.int64)])
        self._runs.clear()
        self._owners.clear()
        self._lengths.clear()
        runs, kept = _of_shortest(runs, lengths[owners])
        self._index = HashIndex(runs, owners[kept])

    def find(self, texts: Sequence[str]) -> dict[int, Match]:
        found: dict[int, Match] = {}
        examined: dict[tuple[int, int], int] = {}  # where the last run of a text with a known one ended
        for start, block in blocks(texts):
            runs, owners, positions = windows(block, self._width, tails=False)
            numbers = self._index.find(runs)
            for hit in np.flatnonzero(numbers >= 0):
                place, number, position = start + int(owners[hit]), int(numbers[hit]), int(positions[hit])
                if place in found or position < examined.get((place, number), 0):
                    continue
                text, other = texts[place], self._known.text(number)
                before, after = self._shared(text, position, other)
                examined[place, number] = position + after
                if after and before + after >= self._share * min(len(text), len(other)):
                    found[place] = Match("held_out_run", number, before + after)
        return found

    def _shared(self, text: str, start: int, other: str) -> tuple[int, int]:
        """Return how far the run of a window reaches before and after its start in both texts; 0, 0 if it has none."""
        window = text[start : start + width_at(text[start], self._width)]
        place = other.find(window)
        if place < 0:
            return 0, 0
        return _common(reversed(text[:start]), reversed(other[:place])), _common(text[start:], other[place:])


def _of_shortest(runs: Hashes, lengths: npt.NDArray[np.int64]) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """Return every run once, and where it stands with the shortest text: the one of which it is the largest part.

    Args:
        runs: of texts, repetitions allowed.
        lengths: of each run, that of its text.
    """
    order = np.argsort(lengths, kind="stable")
    distinct, first = np.unique(runs[order], return_index=True)
    return distinct, order[first]


def _common(one: Iterable[str], two: Iterable[str]) -> int:
    """Return how many characters two texts begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, two, strict=False)))
