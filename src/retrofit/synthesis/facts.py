"""What a passage says of itself that a form can use, whatever its language: keyphrases, a year, whether it is a life.

Which words tell a passage from others is read from the collection itself (term frequency by inverse document frequency,
Spärck Jones 1972), and from the forms, whose words are common in their language: no lists of stop words, so no language
is left out, and a collection may be small. Scripts without spaces are read as runs of one script (kanji, katakana, Thai
between blanks), which are words or short compounds.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from retrofit.synthesis.records import SourcePassage
from retrofit.synthesis.templates import Facts, Templates
from retrofit.synthesis.words import MARKS, WORD_CHARACTERS, is_unspaced

MAX_KEYPHRASES = 4
_MAX_WORDS = 3
_COMMON = 0.04
"""A word in more than this share of a collection's passages is no beginning and no end of a keyphrase."""
_SLOTS = 1 << 24

_FRAGMENT = re.compile(r"[^\n.,;:!?()\[\]{}«»„“”\"‘…–—|/।。、，；：！？（）「」『』؟،؛・]+")
_LETTER = f"[{WORD_CHARACTERS}{MARKS}]"
# An apostrophe after one or two letters parts an article or a preposition from its noun (l'aviation).
_WORD = re.compile(f"{_LETTER}+(?:(?:[-‑·]|(?<={_LETTER}{{3}})['’ʼ]){_LETTER}+)*")
_RUNS = re.compile(
    r"[\u4e00-\u9fff\u3400-\u4dbf々]{2,6}|[\u30a0-\u30ff]{3,14}|[\u0e00-\u0e7f]{4,20}|[A-Za-z][A-Za-z0-9-]{2,}"
)
# Of the last five centuries: an older one is more often a number of something else.
_YEAR = re.compile(r"(?<![0-9A-Za-z.,×])(1[5-9][0-9]{2}|20[0-9]{2})(?![0-9A-Za-z]|[.,][0-9])")
_BRACKETS_AT_END = re.compile(r"\s*[(（][^()（）]*[)）]\s*$")
_OPENING = 250
"""Characters in which a life says that it is one."""
_BIRTH = re.compile(
    r"\b(?:born|née?|naci(?:ó|d[oa])|geb(?:oren|\.)|nat[oa]|nascid[oa]|nasceu|urodz|ur\.|narozen|narodil|született"
    r"|născut|född|gimė|gimęs|sündin|syntyn|doğ(?:du|umlu|an)|lahir|sinh|alizaliwa|γεννήθηκε|роди|народи|נולד|ولد|زاده)"
    r"|生まれ|出生|출생|태어|जन्म|জন্ম|เกิด"
)
_PRONOUN = re.compile(r"\b(?:he|she|his|her)\b")
_PARTICLES = frozenset({
    "af", "al", "bin", "bint", "da", "de", "del", "della", "der", "des", "di", "do", "dos", "du", "el", "ibn", "la",
    "le", "of", "ten", "van", "von", "y", "zu",
})  # fmt: skip


@dataclass(frozen=True)
class Collection:
    """How common words and phrases are in the passages of each source and language.

    Attributes:
        passages: number of passages by source and language.
        holding: by source and language, in how many passages a case-folded word stands.
        common: by language, case-folded words that its forms are made of.
        phrases: bool ``[slots]``, whether a phrase (by its hash) stands in several passages.
    """

    passages: dict[tuple[str, str], int]
    holding: dict[tuple[str, str], Counter[str]]
    common: dict[str, frozenset[str]]
    phrases: np.ndarray

    @classmethod
    def of(cls, passages: Iterable[SourcePassage], templates: Templates) -> Collection:
        """Return the counts of passages, all in languages that have templates."""
        sizes: Counter[tuple[str, str]] = Counter()
        holding: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        once, again = np.zeros(_SLOTS, dtype=bool), np.zeros(_SLOTS, dtype=bool)
        for passage in passages:
            key = (passage.source, passage.language)
            phrases = {words for _, words in _phrases(passage)}
            sizes[key] += 1
            holding[key].update({words[0] for words in phrases if len(words) == 1})
            slots = np.array([_slot(words) for words in phrases if len(words) > 1], dtype=np.int64)
            again[slots] |= once[slots]
            once[slots] = True
        languages = {language for _, language in sizes}
        common = {code: frozenset(_folded_words(templates.language(code).form_text)) for code in languages}
        return cls(dict(sizes), dict(holding), common, again)

    def facts(self, passage: SourcePassage) -> Facts:
        """Return what is known of a passage of the collection."""
        title = _BRACKETS_AT_END.sub("", " ".join(passage.title.split()))
        year = _YEAR.search(passage.text)
        return Facts(
            title, tuple(self._keyphrases(passage, title)), year[1] if year else "", _is_person(title, passage)
        )

    def _keyphrases(self, passage: SourcePassage, title: str) -> list[str]:
        key = (passage.source, passage.language)
        total, holding = self.passages[key], self.holding[key]
        most = max(2.0, _COMMON * total)
        common = self.common[passage.language]
        used = set(_folded_words(title))
        seen: Counter[tuple[str, ...]] = Counter()
        shown: dict[tuple[str, ...], str] = {}
        for phrase, words in _phrases(passage):
            if all(holding[w] <= most and w not in common and _tells(w) for w in (words[0], words[-1])):
                seen[words] += 1
                shown.setdefault(words, " ".join(phrase.split()))
        found = [words for words in seen if len(words) == 1 or self._belongs_together(words, shown[words], seen)]
        chosen: list[str] = []
        for words in sorted(found, key=lambda words: (-_weight(words, seen[words], total, holding), words)):
            if used.isdisjoint(words) and not (title and shown[words].casefold() in title.casefold()):
                chosen.append(shown[words])
                used.update(words)
                if len(chosen) == MAX_KEYPHRASES:
                    break
        return chosen

    def _belongs_together(self, words: tuple[str, ...], shown: str, seen: Counter[tuple[str, ...]]) -> bool:
        """Return whether several words are one expression: they recur, here or elsewhere, or they are a name."""
        begins = [word[0].isupper() for word in shown.split() if word.casefold() not in _PARTICLES]
        return seen[words] > 1 or bool(self.phrases[_slot(words)]) or all(begins)


def _folded_words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]


def _phrases(passage: SourcePassage) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield runs of one to three words inside a clause, as written and as case-folded words."""
    if is_unspaced(passage.language):
        for run in _RUNS.finditer(passage.text):
            yield run[0], (run[0].casefold(),)
        return
    for fragment in _FRAGMENT.finditer(passage.text):
        found = list(_WORD.finditer(fragment[0]))
        folded = [word[0].casefold() for word in found]
        for start in range(len(found)):
            for end in range(start, min(start + _MAX_WORDS, len(found))):
                yield fragment[0][found[start].start() : found[end].end()], tuple(folded[start : end + 1])


def _slot(words: tuple[str, ...]) -> int:
    return zlib.crc32(" ".join(words).encode()) % _SLOTS


def _tells(word: str) -> bool:
    """Return whether a word can carry a phrase: numbers and abbreviations cannot."""
    shortest = 2 if word[0] > "\u2e80" else 3  # a kanji says more than a letter
    return len(word) >= shortest and not word.isdigit()


def _weight(words: tuple[str, ...], times: int, total: int, holding: Counter[str]) -> float:
    """Return how much a phrase tells: the mean rarity of its words, more if it recurs and if it has several words."""
    rarity = sum(math.log((total + 1) / (holding[word] + 0.5)) for word in words) / len(words)
    return float(rarity * (1 + math.log(times)) * len(words) ** 0.5)


def _is_person(title: str, passage: SourcePassage) -> bool | None:
    """Return whether a title names a person; None where it may or may not."""
    words = title.split()
    named = [word for word in words if word.casefold().strip(".") not in _PARTICLES]
    if not named:
        return None
    like_a_name = 2 <= len(words) <= 5 and all(word[0].isupper() or not word[0].islower() for word in named)
    opening = passage.text[:_OPENING]
    if like_a_name and (
        _BIRTH.search(opening) or (passage.language == "en" and len(_PRONOUN.findall(passage.text)) > 1)
    ):
        return True
    has_case = any(word[0].isupper() for word in named)
    maybe = like_a_name or _BIRTH.search(opening) or (passage.language == "en" and _PRONOUN.search(passage.text))
    return None if maybe or not has_case else False
