"""Which written texts are fit to train on, as far as the texts themselves tell."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from retrofit.data.curation.languages import contradiction, known_language
from retrofit.data.curation.texts import normalised, prose
from retrofit.data.records import content_id
from retrofit.data.sources.validation import check_count, check_share
from retrofit.synthesis.candidates import Candidate
from retrofit.synthesis.words import MARKS, UNSPACED_CHARACTERS, WORD_CHARACTERS, is_unspaced

_MIN_CHARACTERS_TO_TELL = 20
"""A shorter text is not judged by its language: names and a word or two fit many."""
_UNIT = re.compile(f"[{UNSPACED_CHARACTERS}]|[{WORD_CHARACTERS}{MARKS}]+")
"""A word, or a character of a script without spaces, two of which count as a word."""


@dataclass(frozen=True)
class TextFilters:
    """The filters that look at one text, or at all of them side by side.

    Attributes:
        min_characters: shortest text that is kept.
        max_characters: longest query that is kept.
        max_document_characters: longest written passage that is kept.
        language_confidence: a text that is in another language than asked for, with at least this confidence, goes;
            None keeps all.
        max_copied: largest share of a query's runs of ``copied_words`` words that may stand in the passage; None for
            any. A query of fewer words is never a copy.
        copied_words: length of these runs; in languages without blanks, twice as many characters.
        max_passages: largest number of passages that one query may be written for: what fits many asks for none.
    """

    min_characters: int
    max_characters: int
    max_document_characters: int
    language_confidence: float | None
    max_copied: float | None
    copied_words: int
    max_passages: int

    def __post_init__(self) -> None:
        for name in ("min_characters", "max_characters", "max_document_characters", "copied_words", "max_passages"):
            check_count(f"data_source.filters.{name}", getattr(self, name))
        for name in ("language_confidence", "max_copied"):
            check_share(f"data_source.filters.{name}", getattr(self, name), optional=True)

    def apply(self, candidates: Sequence[Candidate]) -> None:
        """Note on each candidate what rejects it, the filters in the order length, language, copied, repeated."""
        for candidate in candidates:
            candidate.copied = copied_share(candidate, self.copied_words)
            self._look_at(candidate)
        self._compare([candidate for candidate in candidates if not candidate.rejected])

    def _look_at(self, candidate: Candidate) -> None:
        text = candidate.written.text
        most = self.max_document_characters if candidate.is_document else self.max_characters
        if not self.min_characters <= len(text) <= most:
            candidate.reject("length", f"{len(text)} characters")
        elif other := self._other_language(text, candidate.language):
            candidate.reject("language", other)
        elif self.max_copied is not None and candidate.copied > self.max_copied:
            candidate.reject("copied", f"{candidate.copied:.2f}")

    def _other_language(self, text: str, language: str) -> str | None:
        if self.language_confidence is None or len(text) < _MIN_CHARACTERS_TO_TELL:
            return None
        declared = known_language(language)
        if declared is None:
            return None
        found = contradiction(prose(text), declared, self.language_confidence)
        return None if found is None else f"{found[0]} ({found[1]:.2f})"

    def _compare(self, candidates: Iterable[Candidate]) -> None:
        """Reject what was written before for the same text, and queries written for too many passages."""
        alike: dict[tuple[str, str, bool], dict[int, list[Candidate]]] = defaultdict(lambda: defaultdict(list))
        for candidate in candidates:
            key = (normalised(candidate.written.text), candidate.language, candidate.is_document)
            alike[key][content_id(candidate.written.request.passage.text)].append(candidate)
        for by_passage in alike.values():
            for first, *others in by_passage.values():
                for other in others:
                    other.reject("repeated", "for the same passage")
                if len(by_passage) > self.max_passages:
                    first.reject("repeated", f"for {len(by_passage)} passages")


def copied_share(candidate: Candidate, length: int) -> float:
    """Return the share of a query's runs of ``length`` words that stand in its passage, 0 where it has none."""
    if candidate.is_document:
        return 0.0
    runs = _runs(candidate.query, candidate.language, length)
    if not runs:
        return 0.0
    return len(runs & _runs(candidate.passage, candidate.language, length)) / len(runs)


def _runs(text: str, language: str, length: int) -> set[str]:
    units = _UNIT.findall(normalised(text))
    if is_unspaced(language):
        length *= 2
    return {" ".join(units[start : start + length]) for start in range(len(units) - length + 1)}
