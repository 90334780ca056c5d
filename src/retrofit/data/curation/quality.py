"""Rules that look at one text at a time: its length, whether it says anything, and its language."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from retrofit.data.curation.languages import contradiction, known_language
from retrofit.data.curation.settings import CurationSettings
from retrofit.data.curation.texts import Row, placeholder_share, prose, says_nothing

MEMORY = 20_000
"""How many texts' verdicts are remembered: passages recur from row to row."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a row is removed.

    Attributes:
        reason: the rule.
        field: ``query``, ``positives[<number>]``, ``negatives[<number>]`` or ``row``.
        text: the text that broke the rule.
        score: what the rule measured.
        matched: the text it repeats, or what was found instead of what was expected.
        evaluation_set: the evaluation set it stands in, ``<name>:<split>``, for decontamination.
    """

    reason: str
    field: str
    text: str
    score: float
    matched: str = ""
    evaluation_set: str = ""


def field_name(row: Row, number: int) -> str:
    """Return what a text of a row is called, 0 being the query, then the positives, then the negatives."""
    if number == 0:
        return "query"
    place = number - 1
    negative = place - len(row.positives)
    return f"positives[{place}]" if negative < 0 else f"negatives[{negative}]"


@dataclass
class QualityRules:
    """The rules of quality, in their order; the first that a row breaks is the reason.

    Attributes:
        settings: which rules are on, and their limits.
        not_judged: texts whose language was not checked, by reason.
    """

    settings: CurationSettings
    not_judged: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        on = self.settings
        rules: list[tuple[object, Callable[[Row], Finding | None]]] = [
            (on.length, self._length),
            (on.placeholders, self._placeholders),
            (on.language, self._language),
        ]
        self._rules = [rule for setting, rule in rules if setting is not None]
        self._contradiction = lru_cache(maxsize=MEMORY)(contradiction)

    def broken_by(self, row: Row) -> Finding | None:
        """Return the first rule that a row breaks, or None."""
        return next((finding for rule in self._rules if (finding := rule(row)) is not None), None)

    def _length(self, row: Row) -> Finding | None:
        assert self.settings.length is not None  # noqa: S101
        for number, text in enumerate(row.texts()):
            bounds = self.settings.length.passage if number else self.settings.length.query
            if bounds.min is not None and len(text) < bounds.min:
                return Finding("too_short", field_name(row, number), text, len(text))
            if bounds.max is not None and len(text) > bounds.max:
                return Finding("too_long", field_name(row, number), text, len(text))
        return None

    def _placeholders(self, row: Row) -> Finding | None:
        assert self.settings.placeholders is not None  # noqa: S101
        for number, text in enumerate(row.texts()):
            if says_nothing(text):
                return Finding("says_nothing", field_name(row, number), text, 0.0)
            share = placeholder_share(text)
            if share > self.settings.placeholders.max_share:
                return Finding("placeholders", field_name(row, number), text, share)
        return None

    def _language(self, row: Row) -> Finding | None:
        assert self.settings.language is not None  # noqa: S101
        for number, text in enumerate(row.texts()):
            declared = row.document_language if number else row.language
            language = known_language(declared)
            if language is None:
                self.not_judged[f"language not known: {declared}"] += 1
                continue
            bare = prose(text)
            if len(bare) < self.settings.language.min_chars:
                self.not_judged["too short"] += 1
                continue
            found = self._contradiction(bare, language, self.settings.language.min_confidence)
            if found is not None:
                return Finding("language", field_name(row, number), text, found[1], f"{found[0]} instead of {declared}")
        return None
