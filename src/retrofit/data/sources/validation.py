"""The rules a row must keep to be used."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from retrofit.data.records import Split
from retrofit.data.sources.refusals import Reason, RefusedRowError
from retrofit.errors import UserError

SPLIT_NAMES: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "development": "validation",
    "test": "test",
}

_UNUSABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffd]")
_OR_NULL = {True: ", or null", False: ""}
_LANGUAGE = re.compile("[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*")


@dataclass(frozen=True)
class Rules:
    """What a source takes.

    Attributes:
        max_refused: largest share of rows that may be refused before the source is refused as a whole.
        max_query_characters: longest query.
        max_passage_characters: longest passage.
        query_may_equal_positive: whether a query may be its own answer, as a name is in parallel text.
    """

    max_refused: float
    max_query_characters: int
    max_passage_characters: int
    query_may_equal_positive: bool

    def __post_init__(self) -> None:
        check_share("data_source.max_refused", self.max_refused)
        for key in ("max_query_characters", "max_passage_characters"):
            check_count(f"data_source.{key}", getattr(self, key))

    def check_texts(self, query: str, positives: Sequence[str], negatives: Sequence[str]) -> None:
        """Return if the texts of a row can be used together.

        Raises:
            RefusedRowError: the first rule that is broken.
        """
        if not positives:
            raise RefusedRowError(Reason.NO_POSITIVES, "positive")
        check_text(query, "query", self.max_query_characters)
        for text in positives:
            check_text(text, "positive", self.max_passage_characters)
            self.check_answer(query, text)
        for text in negatives:
            check_text(text, "negative", self.max_passage_characters)
            if text in positives:
                raise RefusedRowError(Reason.NEGATIVE_IS_POSITIVE, "negative", text)

    def check_answer(self, query: str, text: str) -> None:
        """Return if a usable text may be what answers a query.

        Raises:
            RefusedRowError: it is the query.
        """
        if text == query and not self.query_may_equal_positive:
            raise RefusedRowError(Reason.QUERY_IS_POSITIVE, "positive", query)


def check_share(key: str, value: object, *, optional: bool = False) -> None:
    """Return if the value of a configuration key is a number from 0 to 1, or None where that is a value too.

    Raises:
        UserError: it is not.
    """
    if not (value is None and optional) and not (is_number(value) and 0 <= value <= 1):  # type: ignore[operator]
        raise UserError(f"{key}={value}: expected a share from 0 to 1{_OR_NULL[optional]}")


def check_count(key: str, value: object, *, optional: bool = False) -> None:
    """Return if the value of a configuration key is a whole number above 0, or None where that is a value too.

    Raises:
        UserError: it is not.
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not (value is None and optional) and not (whole and value >= 1):  # type: ignore[operator]
        raise UserError(f"{key}={value}: expected a whole number of 1 or more{_OR_NULL[optional]}")


def check_mapping(key: str, value: object) -> None:
    """Return if the value of a configuration key is a mapping, which may be empty.

    Raises:
        UserError: it is not.
    """
    if not isinstance(value, Mapping):
        raise UserError(f"{key}={value}: expected a mapping, which may be empty ({{}})")


def check_names(key: str, value: object, *, optional: bool = False) -> None:
    """Return if the value of a configuration key is a list of texts, or None where that is a value too.

    Raises:
        UserError: it is not.
    """
    names = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
    if not names and not (value is None and optional):
        raise UserError(f"{key}={value}: expected a list of names, which may be empty ([]){_OR_NULL[optional]}")


def check_text(text: object, field: str, most: int) -> str:
    """Return a value that is a usable text.

    Args:
        text: the value.
        field: what a refusal names; ``query`` and all others differ in the reason for a text that is too long.
        most: most characters.

    Raises:
        RefusedRowError: it is not.
    """
    if text is None:
        raise RefusedRowError(Reason.NULL_FIELD, field)
    if not isinstance(text, str):
        raise RefusedRowError(Reason.NOT_A_TEXT, field, text)
    if not text:
        raise RefusedRowError(Reason.EMPTY, field)
    if text.isspace():
        raise RefusedRowError(Reason.BLANK, field)
    found = _UNUSABLE.search(text)
    if found:
        raise RefusedRowError(_character_reason(found[0]), field, f"U+{ord(found[0]):04X} at {found.start()}")
    if len(text) > most:
        reason = Reason.LONG_QUERY if field == "query" else Reason.LONG_PASSAGE
        raise RefusedRowError(reason, field, f"{len(text)}")
    return text


def check_language(code: object, field: str) -> str:
    """Return a value that has the form of a language code.

    Raises:
        RefusedRowError: it has not.
    """
    if not isinstance(code, str) or not _LANGUAGE.fullmatch(code):
        raise RefusedRowError(Reason.MALFORMED_LANGUAGE, field, code)
    return code


def check_split(name: object) -> Split:
    """Return the split a source means.

    Raises:
        RefusedRowError: none is called so.
    """
    if not isinstance(name, str) or name not in SPLIT_NAMES:
        raise RefusedRowError(Reason.UNKNOWN_SPLIT, "split", name)
    return SPLIT_NAMES[name]


def _character_reason(character: str) -> Reason:
    if character == "\0":
        return Reason.NUL
    if character == "\ufffd":
        return Reason.REPLACEMENT
    return Reason.SURROGATE if unicodedata.category(character) == "Cs" else Reason.CONTROL


def is_number(value: object) -> bool:
    """Return whether a value of the configuration is a number, which true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)
