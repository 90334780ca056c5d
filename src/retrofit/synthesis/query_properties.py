"""What queries are compared by: their length, their first word, how much they copy, and what kind of query they are.

Words are those of ``words``: of a run in a script without spaces, two characters count as a word, and what a query
shares with its passage are pairs of characters.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass

from retrofit.data.curation.texts import normalised
from retrofit.synthesis.templates import Templates
from retrofit.synthesis.words import RUN, UNSPACED, WORD_PART

PROPERTIES = ("length", "first_word", "copying", "query_type")

NO_WORD = "(none)"
"""The first word of a query without any; brackets, because no word has them."""

QUESTION_WITH_MARK, QUESTION_WITHOUT_MARK = "question_with_mark", "question_without_mark"
FEW_WORDS, LONGER_PHRASE, SENTENCE = "one_to_three_words", "longer_phrase", "sentence"

_LENGTH_STARTS = (0, 2, 3, 4, 5, 6, 8, 11, 16, 26)
_LENGTHS = ("0–1", "2", "3", "4", "5", "6–7", "8–10", "11–15", "16–25", "26+")
_TENTHS = tuple(f"{10 * tenth}–{10 * tenth + 10}%" for tenth in range(10))

VALUES = {
    "length": _LENGTHS,
    "copying": _TENTHS,
    "query_type": (QUESTION_WITH_MARK, QUESTION_WITHOUT_MARK, FEW_WORDS, LONGER_PHRASE, SENTENCE),
}
"""The values of the properties that have a fixed set of them, in their order."""

# As they are after NFKC, which turns full-width marks into plain ones and the Greek question mark into a semicolon.
_QUESTION_MARKS = re.compile("[?؟՞፧]")
_GREEK_QUESTION_MARKS = re.compile("[?;]")
_GREEK = frozenset({"el", "ell", "grc"})
# One full stop and not three, which break off; what closes a quotation or a bracket may follow.
_FULL_STOP = re.compile(r"""(?:(?<!\.)\.|[。।॥۔։።။។])["'“”‘’«»‹›)\]」』】》\s]*$""")


@dataclass(frozen=True, slots=True)
class QuestionSigns:
    """What a question of a language is known by.

    Attributes:
        marks: finds a question mark.
        first_words: words that a question starts with, normalised.
        parts: words of a script without spaces: a question has one of them anywhere.
    """

    marks: re.Pattern[str]
    first_words: frozenset[str]
    parts: tuple[str, ...]

    @classmethod
    def of_language(cls, language: str, templates: Templates) -> QuestionSigns:
        """Return the signs of a language; its question mark alone where there are no templates in it.

        Raises:
            UserError: its templates are not complete.
        """
        known = templates.language(language).question_words if language in templates else frozenset()
        words = sorted(normalised(word) for word in known)
        greek = re.split("[-_]", language.casefold())[0] in _GREEK
        return cls(
            marks=_GREEK_QUESTION_MARKS if greek else _QUESTION_MARKS,
            first_words=frozenset(word for word in words if not UNSPACED.match(word)),
            parts=tuple(word for word in words if UNSPACED.match(word)),
        )


def describe(query: str, passage: str, signs: QuestionSigns) -> tuple[str, str, str, str]:
    """Return a query's value of each of ``PROPERTIES``.

    Args:
        query: its text.
        passage: what it was written for, or what answers it, in whatever language.
        signs: of the query's language.
    """
    text = normalised(query)
    runs = RUN.findall(text)
    length = sum(-(-len(run) // 2) if UNSPACED.match(run) else 1 for run in runs)
    first = _first_word(runs)
    return (
        _LENGTHS[bisect_right(_LENGTH_STARTS, length) - 1],
        first,
        _TENTHS[_copied_tenths(runs, passage)],
        _query_type(text, first, length, signs),
    )


def _first_word(runs: list[str]) -> str:
    """Return the first word, or the first two characters where words are not told apart."""
    if not runs:
        return NO_WORD
    return runs[0][:2] if UNSPACED.match(runs[0]) else runs[0]


def _copied_tenths(runs: list[str], passage: str) -> int:
    """Return which tenth the share of a query's words and pairs of characters that its passage has falls into.

    A query without words copies nothing.
    """
    text = normalised(passage)
    asked = found = 0
    for run in runs:
        if UNSPACED.match(run):
            pairs = [run[start : start + 2] for start in range(max(1, len(run) - 1))]
            asked += len(pairs)
            found += sum(pair in text for pair in pairs)
        else:
            asked += 1
            found += _is_word_of(text, run)
    # In whole numbers: 3 of 10 is the fourth tenth, whatever 0.3 is in binary.
    return min(9, 10 * found // asked) if asked else 0


def _is_word_of(text: str, word: str) -> bool:
    """Return whether a word stands in a text, not only as a part of another; no other words are looked for."""
    start = text.find(word)
    while start >= 0:
        begins = start == 0 or not WORD_PART.match(text, start - 1)
        if begins and not WORD_PART.match(text, start + len(word)):
            return True
        start = text.find(word, start + 1)
    return False


def _query_type(text: str, first: str, length: int, signs: QuestionSigns) -> str:
    """Return what kind of query a normalised text is.

    What is asked counts before how it ends: Japanese questions end in a full stop as often as not.
    """
    if signs.marks.search(text):  # anywhere, for a query may go on after its question
        return QUESTION_WITH_MARK
    if first in signs.first_words or any(part in text for part in signs.parts):
        return QUESTION_WITHOUT_MARK
    if length <= 3:  # also with a full stop: it may be that of an abbreviation
        return FEW_WORDS
    return SENTENCE if _FULL_STOP.search(text) else LONGER_PHRASE
