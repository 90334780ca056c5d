"""Which split a group belongs to, and the removal of texts that would stand on both sides of a split."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from retrofit.data.records import SPLITS, Pair, Split, content_id

_PARTS = 8
_HELD_OUT: dict[int, Split] = {0: "validation", 1: "test"}


def split_of(group: str, *, salt: str = "retrofit") -> Split:
    """Return the split of a group: 6/8 of all groups train, 1/8 validation, 1/8 test.

    The answer depends on the group's name and the salt alone, so a group keeps its split when others come or go.
    """
    digest = hashlib.blake2b(f"{salt}\x1f{group}".encode(), digest_size=8).digest()
    return _HELD_OUT.get(int.from_bytes(digest, "big") % _PARTS, "train")


@dataclass(frozen=True)
class Leaks:
    """Texts of earlier splits that a later split is measured on.

    Attributes:
        kept_pairs: whether a pair stays; bool, one a pair.
        kept_positives: whether a positive stays; bool, one a positive. Those of a pair that goes have no meaning.
        counts: how many were dropped per reason, as :func:`remove_leaks` returns them.
        held_out: what the later splits are measured on.
    """

    kept_pairs: np.ndarray
    kept_positives: np.ndarray
    counts: Counter[str]
    held_out: MeasuredTexts


class MeasuredTexts:
    """The texts that validation and test are measured on, as identifiers.

    Args:
        splits: place in ``SPLITS`` of each pair; int8, one a pair.
        queries: identifier of each query's text, whatever its language; uint64, one a pair.
        owners: the pair of each positive; int64, one a positive.
        positives: identifier of each positive; uint64, one a positive.
    """

    def __init__(self, splits: np.ndarray, queries: np.ndarray, owners: np.ndarray, positives: np.ndarray) -> None:
        owner_splits = splits[owners]
        self._texts = {
            place: np.unique(np.concatenate([queries[splits == place], positives[owner_splits == place]]))
            for place in range(1, len(SPLITS))
        }

    def holders(self, texts: np.ndarray, splits: np.ndarray) -> np.ndarray:
        """Return the last split that holds each text, at least the one it stands in itself.

        Args:
            texts: identifiers; uint64, shape (n,).
            splits: place in ``SPLITS`` of where each stands; int8, shape (n,).

        Returns:
            Places in ``SPLITS``; int8, shape (n,).
        """
        holders = splits.copy()
        for place, held in self._texts.items():
            later = (splits < place) & np.isin(texts, held)
            holders[later] = place
        return holders


def find_leaks(splits: np.ndarray, queries: np.ndarray, owners: np.ndarray, positives: np.ndarray) -> Leaks:
    """Return what :func:`remove_leaks` would remove; arguments and their shapes are those of ``MeasuredTexts``."""
    held_out = MeasuredTexts(splits, queries, owners, positives)
    counts: Counter[str] = Counter()

    query_holders = held_out.holders(queries, splits)
    fits = query_holders == splits
    _count(counts, "query also in", splits[~fits], query_holders[~fits])
    owner_splits = splits[owners]
    holders = held_out.holders(positives, owner_splits)
    kept_positives = holders == owner_splits
    lost = ~kept_positives & fits[owners]
    _count(counts, "positive also in", owner_splits[lost], holders[lost])

    left = np.bincount(owners[kept_positives], minlength=len(splits)) > 0
    for place, number in zip(*np.unique(splits[fits & ~left], return_counts=True), strict=True):
        counts[f"{SPLITS[place]}: no positive left"] += int(number)
    return Leaks(fits & left, kept_positives, counts, held_out)


def _count(counts: Counter[str], what: str, splits: np.ndarray, holders: np.ndarray) -> None:
    pairs, numbers = np.unique(np.stack([splits, holders]), axis=1, return_counts=True)
    for split, holder, number in zip(*pairs, numbers, strict=True):
        counts[f"{SPLITS[split]}: {what} {SPLITS[holder]}"] += int(number)


def remove_leaks(pairs: Iterable[Pair]) -> tuple[list[Pair], Counter[str]]:
    """Remove from training and validation every text that a later split is measured on.

    Groups are disjoint, but boilerplate ("The hostname or IP address of your device.") recurs from group to group. Only
    the text counts, neither its language (Portuguese says some things alike on both sides of the Atlantic) nor whether
    it asks or answers: a model that was trained on a sentence as a query has seen it as a passage too. Test pairs are
    never touched; validation gives way to test, and training to both.

    Args:
        pairs: pairs of any splits, in any order.

    Returns:
        The remaining pairs in their order, and how many were dropped per reason: ``<split>: query also in <split>``
        and ``<split>: no positive left`` count pairs, ``<split>: positive also in <split>`` counts positives.
    """
    pairs = list(pairs)
    leaks = find_leaks(
        np.array([SPLITS.index(pair.split) for pair in pairs], np.int8),
        np.array([content_id(pair.query) for pair in pairs], np.uint64),
        np.repeat(np.arange(len(pairs)), [len(pair.positives) for pair in pairs]),
        np.array([content_id(text) for pair in pairs for text in pair.positives], np.uint64),
    )
    kept = []
    place = 0
    for pair, stays in zip(pairs, leaks.kept_pairs, strict=True):
        fits = leaks.kept_positives[place : place + len(pair.positives)]
        place += len(pair.positives)
        if stays and fits.all():
            kept.append(pair)
        elif stays:
            positives = tuple(text for text, fit in zip(pair.positives, fits, strict=True) if fit)
            kept.append(replace(pair, positives=positives))
    return kept, leaks.counts
