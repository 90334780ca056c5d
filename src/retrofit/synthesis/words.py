"""Words of any script, for what compares and takes apart texts.

A word is a run of letters and digits with their marks. Scripts that leave no space between words (Chinese, Japanese,
Thai, Lao, Khmer, Burmese) are told by their characters, not by the language, so a product's name in a Japanese query
stays one word.
"""

from __future__ import annotations

import re
import unicodedata

# Thai and Lao; Burmese; Khmer; iteration marks and zero of Han; kana; its extension; Han; further Han: first and last.
_UNSPACED_RANGES = (
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17DD),
    (0x3005, 0x3007),
    (0x3040, 0x30FF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
_LAST_ALPHABET = 0x1FFFF
_VARIATION_SELECTORS = range(0xFE00, 0xFE10)  # marks by category, but what they follow is a picture


def _character_classes() -> tuple[str, str, str]:
    """Return the insides of three sets of a regular expression: word characters, marks, characters without spaces."""
    unspaced_codes = {code for first, last in _UNSPACED_RANGES for code in range(first, min(last, _LAST_ALPHABET) + 1)}
    word, marks, unspaced = [], [], []
    for code in range(_LAST_ALPHABET + 1):
        kind = unicodedata.category(chr(code))[0]
        if kind in "LNM" and code in unspaced_codes:
            unspaced.append(code)
        elif kind in "LN":
            word.append(code)
        elif kind == "M" and code not in _VARIATION_SELECTORS:
            marks.append(code)
    first, last = _UNSPACED_RANGES[-1]
    return _ranges(word), _ranges(marks), _ranges(unspaced) + f"{chr(first)}-{chr(last)}"


def _ranges(codes: list[int]) -> str:
    ends = [place for place, code in enumerate(codes) if place + 1 == len(codes) or codes[place + 1] != code + 1]
    starts = [0, *(end + 1 for end in ends[:-1])]
    return "".join(f"{chr(codes[start])}-{chr(codes[end])}" for start, end in zip(starts, ends, strict=True))


# Marks are no letters to ``\w``, but without them a Hindi word would be several.
WORD_CHARACTERS, MARKS, UNSPACED_CHARACTERS = _character_classes()
WORD_PART = re.compile(f"[{WORD_CHARACTERS}{MARKS}]")
RUN = re.compile(f"[{MARKS}]*[{WORD_CHARACTERS}][{WORD_CHARACTERS}{MARKS}]*|[{UNSPACED_CHARACTERS}]+")
UNSPACED = re.compile(f"[{UNSPACED_CHARACTERS}]")

_UNSPACED_LANGUAGES = frozenset({"ja", "zh", "th", "lo", "km", "my", "yue", "wuu"})


def is_unspaced(language: str) -> bool:
    """Return whether a language is written without blanks between words."""
    return re.split("[-_]", language.casefold())[0] in _UNSPACED_LANGUAGES
