"""Which texts are requested: for every passage some kinds of query, drawn by the seed."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retrofit.data.sources.validation import check_count, check_mapping, check_names
from retrofit.errors import UserError
from retrofit.synthesis.records import FAMILIES, Family, Request, SourcePassage


@dataclass(frozen=True)
class Plan:
    """How many queries of which kinds are asked for.

    Attributes:
        max_passages: most passages of a language that anything is written for; None for all.
        per_passage: kinds of query a passage gets; all different.
        families: how likely a kind is drawn, relative to the others; 0 or not named: never.
        cross_lingual: languages that cross-lingual queries are written in, one of them for each.
        seed: of the draws.
    """

    max_passages: int | None
    per_passage: int
    families: Mapping[str, float]
    cross_lingual: Sequence[str]
    seed: int

    def __post_init__(self) -> None:
        check_count("data_source.plan.max_passages", self.max_passages, optional=True)
        check_count("data_source.plan.per_passage", self.per_passage)
        check_mapping("data_source.plan.families", self.families)
        check_names("data_source.plan.cross_lingual", self.cross_lingual)
        for family, weight in self.families.items():
            if family not in FAMILIES or family == "document":
                expected = ", ".join(name for name in FAMILIES if name != "document")
                raise UserError(
                    f"data_source.plan.families.{family}: no such kind of query; expected one of {expected}"
                )
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                raise UserError(f"data_source.plan.families.{family}={weight}: expected a weight of 0 or more")

    def requests(self, texts: Sequence[SourcePassage], known: Container[str]) -> tuple[list[Request], Counter[str]]:
        """Return what is requested, and the number of texts left out by language, as there are no templates in it.

        Draws are nested: what one query a passage asks for, two ask for as well, and so with more passages.

        Args:
            texts: passages, and queries that want a passage.
            known: languages that have templates.
        """
        requests, left_out = [], Counter[str]()
        for text in self._drawn(texts):
            if text.language not in known:
                left_out[text.language] += 1
                continue
            for family in self._families(text):
                language = self._language(text, known) if family == "cross_lingual" else text.language
                if language:
                    requests.append(Request(text, family, language))
        return requests, left_out

    def identity(self) -> dict[str, Any]:
        """Return what the draws depend on; JSON-like."""
        return {
            "max_passages": self.max_passages,
            "per_passage": self.per_passage,
            "families": dict(self.families),
            "cross_lingual": list(self.cross_lingual),
            "seed": self.seed,
        }

    def _drawn(self, texts: Sequence[SourcePassage]) -> list[SourcePassage]:
        """Return the texts that are drawn, in their order."""
        if self.max_passages is None:
            return list(texts)
        of_language: dict[str, list[int]] = {}
        for place, text in enumerate(texts):
            of_language.setdefault(text.language, []).append(place)
        chosen = [
            place
            for places in of_language.values()
            for place in sorted(places, key=lambda place: share(self.seed, "passage", texts[place]))[
                : self.max_passages
            ]
        ]
        return [texts[place] for place in sorted(chosen)]

    def _families(self, text: SourcePassage) -> list[Family]:
        if text.is_query:
            return ["document"]
        weights: dict[Family, float] = {
            family: self.families.get(family, 0.0) for family in FAMILIES if family != "document"
        }
        # The highest of these keys are a draw by weight without replacement (Efraimidis and Spirakis 2006).
        keys = {
            family: math.log(share(self.seed, family, text) or 2**-60) / weight
            for family, weight in weights.items()
            if weight > 0
        }
        return sorted(keys, key=lambda family: -keys[family])[: self.per_passage]

    def _language(self, text: SourcePassage, known: Container[str]) -> str | None:
        others = [code for code in self.cross_lingual if code != text.language and code in known]
        return others[int(share(self.seed, "language", text) * len(others))] if others else None


def share(seed: int, name: str, text: SourcePassage) -> float:
    """Return a number from 0 to 1, below 1, that depends on the text, a name and the seed alone."""
    digest = hashlib.blake2b(f"{seed}\x1f{name}\x1f{text.language}\x1f{text.text}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48
