"""Rows that cannot be used: why, how many, and when there are too many of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from retrofit.errors import UserError

REFUSED = "refused.jsonl"

_SHOWN_ROWS = 3
_SHOWN_CHARACTERS = 60


class Reason(StrEnum):
    """Why a row is refused; each has a sentence of its own in ``EXPECTED``."""

    INVALID_UTF8 = "invalid UTF-8"
    BROKEN_JSON = "broken JSON"
    NOT_AN_OBJECT = "not an object"
    BROKEN_QUOTING = "broken quoting"
    LONG_CELL = "over-long cell"
    WRONG_COLUMNS = "wrong number of columns"
    WRONG_FIELDS = "wrong number of fields"
    NO_COUNTERPART = "no counterpart"
    MISSING_FIELD = "missing field"
    NULL_FIELD = "null field"
    NOT_A_TEXT = "not a text"
    UNEQUAL_LISTS = "lists of different lengths"
    NO_POSITIVES = "no positives"
    EMPTY = "empty text"
    BLANK = "only white space"
    NUL = "NUL character"
    CONTROL = "control character"
    SURROGATE = "lone surrogate"
    REPLACEMENT = "replacement character"
    LONG_QUERY = "over-long query"
    LONG_PASSAGE = "over-long passage"
    QUERY_IS_POSITIVE = "query equals positive"
    NEGATIVE_IS_POSITIVE = "negative equals positive"
    MALFORMED_LANGUAGE = "malformed language"
    UNKNOWN_SPLIT = "unknown split"
    NOT_AN_IDENTIFIER = "not an identifier"
    DUPLICATE_IDENTIFIER = "duplicate identifier"
    UNKNOWN_QUERY = "unknown query"
    UNKNOWN_PASSAGE = "unknown passage"
    NOT_A_SCORE = "not a score"
    NOT_A_NUMBER = "not a number"
    DUPLICATE_ROW = "duplicate row"


EXPECTED: Mapping[Reason, str] = {
    Reason.INVALID_UTF8: "expected text in UTF-8; convert the file (iconv -t UTF-8)",
    Reason.BROKEN_JSON: "expected one complete JSON object on the line",
    Reason.NOT_AN_OBJECT: "expected a JSON object with named fields, not another value",
    Reason.BROKEN_QUOTING: 'expected a quoted cell to end with one quote, quotes inside it doubled ("")',
    Reason.LONG_CELL: "expected at most 1,048,576 characters in a cell",
    Reason.WRONG_COLUMNS: "expected as many cells as the header names",
    Reason.WRONG_FIELDS: "expected query-id, corpus-id and score, divided by tabs",
    Reason.NO_COUNTERPART: "expected as many lines in data_source.queries as in data_source.passages",
    Reason.MISSING_FIELD: "expected the field data_source.columns names, or a constant for it",
    Reason.NULL_FIELD: "expected a text instead of null",
    Reason.NOT_A_TEXT: "expected a text, not a number, list or object",
    Reason.UNEQUAL_LISTS: "expected lists of one length, as the fields of one column are joined item by item",
    Reason.NO_POSITIVES: "expected at least one positive instead of an empty list",
    Reason.EMPTY: "expected at least one character",
    Reason.BLANK: "expected something other than white space",
    Reason.NUL: "expected text without U+0000; the file may be binary or UTF-16",
    Reason.CONTROL: "expected no control characters other than tab and line break",
    Reason.SURROGATE: "expected whole characters; half of a surrogate pair cannot be encoded",
    Reason.REPLACEMENT: "expected no U+FFFD: the text was damaged by an earlier decoding",
    Reason.LONG_QUERY: "expected at most data_source.max_query_characters characters",
    Reason.LONG_PASSAGE: "expected at most data_source.max_passage_characters characters",
    Reason.QUERY_IS_POSITIVE: "expected another text than the query (data_source.query_may_equal_positive)",
    Reason.NEGATIVE_IS_POSITIVE: "expected a negative that is not among the positives of its row",
    Reason.MALFORMED_LANGUAGE: "expected a code such as de, zh-Hans or eng_Latn (data_source.language_codes renames)",
    Reason.UNKNOWN_SPLIT: "expected train, validation (or dev) or test",
    Reason.NOT_AN_IDENTIFIER: "expected a text or a whole number",
    Reason.DUPLICATE_IDENTIFIER: "expected each identifier once; the first row that has it is used",
    Reason.UNKNOWN_QUERY: "expected the _id of a usable row of the queries",
    Reason.UNKNOWN_PASSAGE: "expected the _id of a usable row of the corpus",
    Reason.NOT_A_SCORE: "expected a whole number",
    Reason.NOT_A_NUMBER: "expected a number, not a text, list or object",
    Reason.DUPLICATE_ROW: "expected each row once; the first is used",
}


class RefusedRowError(Exception):
    """A row that cannot be used.

    Attributes:
        reason: why.
        field: the field that is to blame; empty where it is the whole row.
        found: what stood there, as far as that helps.
    """

    def __init__(self, reason: Reason, field: str = "", found: object = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field
        self.found = _shortened(found)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a file, or what became of it.

    Attributes:
        file: the file, as the user named it.
        number: its line, or its place in a file without lines; counted from 1.
        values: its fields.
        problem: set where the row could not be read; it then has no values.
    """

    file: str
    number: int
    values: Mapping[str, Any] = field(default_factory=dict)
    problem: RefusedRowError | None = None


def described(row: Row, error: RefusedRowError, expected: Mapping[Reason, str] = EXPECTED) -> str:
    """Return a refused row as one line: file, row, field, reason and what was expected.

    Args:
        row: where it stands.
        error: why it is refused.
        expected: a sentence for each reason.
    """
    where = f", field {error.field}" if error.field else ""
    found = f" ({error.found})" if error.found else ""
    return f"{row.file}, row {row.number}{where}: {error.reason}{found}, {expected[error.reason]}"


class Refusals:
    """Counts refused rows and writes every one of them to a file; use as a context manager.

    Attributes:
        path: the file; it stays if the context ends with an exception, so that the user can read it.
        counts: refused rows by reason.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: Counter[Reason] = Counter()
        self._first: list[str] = []

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("w", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is None or not self.counts:
            self.path.unlink()

    def add(self, row: Row, error: RefusedRowError) -> None:
        """Account for a row that is refused."""
        self.counts[error.reason] += 1
        if len(self._first) < _SHOWN_ROWS and error.reason is not Reason.DUPLICATE_ROW:
            self._first.append(described(row, error))
        line = {
            "file": row.file,
            "row": row.number,
            "field": error.field,
            "reason": str(error.reason),
            "found": error.found,
            "expected": EXPECTED[error.reason],
        }
        self._file.write(json.dumps(line) + "\n")

    def check(self, rows: int, max_refused: float) -> None:
        """Return if few enough rows were refused; exact duplicates do no harm and do not count.

        Args:
            rows: how many were read.
            max_refused: largest share of them that may be refused.

        Raises:
            UserError: more were refused.
        """
        refused = self.counts.total() - self.counts[Reason.DUPLICATE_ROW]
        if refused <= max_refused * rows:
            return
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.counts.most_common())
        raise UserError(
            f"{refused} of {rows} rows refused, more than data_source.max_refused={max_refused:g} allows ({reasons}); "
            f"first: {'; '.join(self._first)}; all of them: {self.path}"
        )

    def copy_to(self, path: Path) -> None:
        """Copy what was refused so far, if anything was."""
        self._file.flush()
        if self.counts:
            path.write_bytes(self.path.read_bytes())


def _shortened(found: object) -> str:
    text = found if isinstance(found, str) else type(found).__name__
    text = " ".join(text.split()) if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
