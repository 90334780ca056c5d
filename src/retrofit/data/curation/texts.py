"""Texts as curation compares and judges them, and the batches of rows it reads them in."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

EXCERPT = 160
_ROWS_A_BATCH = 4_000

_INVISIBLE = re.compile("[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]+")
_URL = r"(?:https?|ftp)://\S+|\bwww\.\S+"
_PLACEHOLDER = r"\$?\{+\s*\w[^{}]*\}+|%\(\w+\)[a-z]|%[sd]\b|\[%[^%\]]*%\]"
_PLACEHOLDERS = re.compile(_PLACEHOLDER)
_MARKUP = re.compile(f"{_URL}|{_PLACEHOLDER}", re.IGNORECASE)
_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_CONTENT = frozenset({"Mc", "So", "Nl"})


def normalised(text: str) -> str:
    """Return a text as it is compared: NFKC, case folded, without invisible characters, white space collapsed.

    Applying it again changes nothing.
    """
    if text.isascii():
        return " ".join(text.lower().split())
    folded = _folded(text)
    # Composing may give what folding changes once more; a few texts need a second round, none was seen to need a third.
    while (again := _folded(folded)) != folded:
        folded = again
    return folded


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", _INVISIBLE.sub("", text).casefold()).split())


def excerpt(text: str) -> str:
    """Return the beginning of a text on one line, at most ``EXCERPT`` characters."""
    line = " ".join(text[: 2 * EXCERPT].split())
    return line if len(line) <= EXCERPT else line[: EXCERPT - 1] + "…"


def without_markup(text: str) -> str:
    """Return a text without its placeholders and URLs."""
    if "{" in text or "%" in text or "//" in text or "www" in text.lower():
        return _MARKUP.sub(" ", text)
    return text


def says_nothing(text: str) -> bool:
    """Return whether a text is nothing but placeholders, URLs, digits, punctuation and white space.

    Emoji and other pictures count as content, and so do letters of any script.
    """
    return not any(
        character.isalpha() or unicodedata.category(character) in _CONTENT for character in without_markup(text)
    )


def placeholder_share(text: str) -> float:
    """Return the share of a text's characters that stand inside placeholders, their brackets included."""
    if not ("{" in text or "%" in text):
        return 0.0
    return sum(map(len, _PLACEHOLDERS.findall(text))) / len(text)


def prose(text: str) -> str:
    """Return what tells a text's language: no placeholders, no URLs, nothing in brackets, where other scripts stand."""
    bare = without_markup(text)
    if "(" in bare or "[" in bare:
        bare = _BRACKETS.sub(" ", bare)
    return " ".join(bare.split())


@dataclass(frozen=True)
class Row:
    """A row of a pairs table, as far as curation looks at it.

    Attributes:
        number: of the row in its table.
        query: the query.
        positives: passages that answer it.
        task: its task.
        language: language of the query.
        document_language: language of the positives.
        split: the split it belongs to.
        negatives: passages known not to answer it; none where they were not read.
    """

    number: int
    query: str
    positives: list[str]
    task: str
    language: str
    document_language: str
    split: str
    negatives: Sequence[str] = ()

    def texts(self) -> list[str]:
        """Return the query, then the positives."""
        return [self.query, *self.positives]


def row_batches(table: pa.Table, *splits: str, negatives: bool = False) -> Iterator[list[Row]]:
    """Yield the rows of some splits, in table order, a few thousand of the table at a time.

    Args:
        table: of ``PAIR_SCHEMA``.
        splits: the splits to read.
        negatives: whether to read the negatives as well.
    """
    columns = ["query", "positives", "task", "language", "document_language", "split"]
    columns += ["negatives"] if negatives else []
    start = 0
    for batch in table.select(columns).to_batches(max_chunksize=_ROWS_A_BATCH):
        labels = batch.column("split").cast(pa.string()).to_pylist()
        chosen = np.array([number for number, label in enumerate(labels) if label in splits], np.int64)
        if len(chosen):
            values = batch.take(pa.array(chosen)).to_pydict()
            numbers = (chosen + start).tolist()
            yield [Row(*fields) for fields in zip(numbers, *(values[name] for name in columns), strict=True)]
        start += batch.num_rows


def row_texts(table: pa.Table, number: int) -> list[str]:
    """Return the query and the positives of one row, reading nothing else."""
    return [table.column("query")[number].as_py(), *table.column("positives")[number].as_py()]


def has_negatives(table: pa.Table) -> bool:
    """Return whether any row of a table of ``PAIR_SCHEMA`` has negatives, reading none of them."""
    return any(len(chunk.flatten()) > 0 for chunk in table.column("negatives").chunks)
