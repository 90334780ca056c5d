"""The rules that what mines hard negatives must keep, and the filters that ``retrofit mine`` tries."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from retrofit.training.allowed_values import FILTER_NUMBERS, Number


def mining_rules(mined: Mapping[str, Any]) -> Iterator[tuple[bool, str, str]]:
    """Yield (whether it holds, key, what was expected) of the rules that span several keys of ``negatives.mined``."""
    yield mined["per_query"] <= mined["count"], "negatives.mined.per_query", "at most negatives.mined.count"
    by_steps, by_epochs = mined["refresh_every_steps"] is not None, mined["refresh_every_epochs"] is not None
    key = "negatives.mined.refresh_every_steps"
    yield not (by_steps and by_epochs), key, "null where negatives.mined.refresh_every_epochs is given"
    own = mined["model"] is None and mined["search"] != "bm25"
    yield (
        own or not (by_steps or by_epochs),
        key if by_steps else "negatives.mined.refresh_every_epochs",
        "null unless the model that is trained searches (negatives.mined.model=null, negatives.mined.search=dense)",
    )
    veto = mined["veto"]
    if veto is not None:
        one = (veto["model"] is None) != (veto["reranker"] is None)
        yield (
            one,
            "negatives.mined.veto",
            "either a model or a reranker (veto@negatives.mined.veto=teacher or reranker)",
        )
        yield Number("", 0).allows(veto["margin"]), "negatives.mined.veto.margin", str(Number("", 0))


def tried_rules(tried: Any) -> Iterator[tuple[bool, str, str]]:
    """Yield (whether it holds, key, what was expected) of the rules of ``tried_filters``."""
    expected = "a list of mappings, which may be empty"
    listed = isinstance(tried, list) and all(isinstance(changes, Mapping) for changes in tried)
    yield listed, "tried_filters", expected
    numbers = {number.key.rpartition(".")[2]: number for number in FILTER_NUMBERS}
    for name, value in (change for changes in tried for change in changes.items()):
        if name == "veto":
            told = isinstance(value, Mapping) and Number("", 0).allows(value.get("margin"))
            yield told, "tried_filters", "for veto a mapping with its model or reranker and its margin"
            continue
        yield name in numbers, "tried_filters", f"filters of negatives.mined ({', '.join(numbers)}, veto), not {name}"
        allowed = numbers[name].allows(value) and value is not None
        yield allowed, "tried_filters", f"for {name} {dataclasses.replace(numbers[name], optional=False)}"
