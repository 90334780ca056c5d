"""Which split a group belongs to, and the removal of texts that would stand on both sides of a split."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from retrofit.data.records import Pair, Split

_PARTS = 8
_HELD_OUT: dict[int, Split] = {0: "validation", 1: "test"}


def split_of(group: str, *, salt: str = "retrofit") -> Split:
    """Return the split of a group: 6/8 of all groups train, 1/8 validation, 1/8 test.

    The answer depends on the group's name and the salt alone, so a group keeps its split when others come or go.
    """
    digest = hashlib.blake2b(f"{salt}\x1f{group}".encode(), digest_size=8).digest()
    return _HELD_OUT.get(int.from_bytes(digest, "big") % _PARTS, "train")


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
    home: dict[str, Split] = {}  # text → the last split that holds it; "train" is simply absent
    for split in ("validation", "test"):
        for pair in pairs:
            if pair.split == split:
                home.update((text, split) for text in (pair.query, *pair.positives))

    counts: Counter[str] = Counter()
    kept = []
    for pair in pairs:
        if pair.split == "test":
            kept.append(pair)
            continue
        holder = home.get(pair.query, pair.split)
        if holder != pair.split:
            counts[f"{pair.split}: query also in {holder}"] += 1
            continue
        positives = []
        for text in pair.positives:
            holder = home.get(text, pair.split)
            if holder == pair.split:
                positives.append(text)
            else:
                counts[f"{pair.split}: positive also in {holder}"] += 1
        if not positives:
            counts[f"{pair.split}: no positive left"] += 1
        elif len(positives) == len(pair.positives):
            kept.append(pair)
        else:
            kept.append(replace(pair, positives=tuple(positives)))
    return kept, counts
