"""BEIR's layout (Thakur et al. 2021): documents, queries and judgements, with the place of every row.

Beyond BEIR, documents and queries may carry ``lang``, ``subset``, ``group`` and ``label``, and a folder may hold
``train.jsonl`` with a query and a positive a line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from retrofit.data.records import Split
from retrofit.data.sources.columns import encodable, identifier, value_at
from retrofit.data.sources.files import DataFile
from retrofit.data.sources.refusals import Reason, RefusedRowError, Row, described
from retrofit.data.sources.rows import is_encodable, read_jsonl, read_lines
from retrofit.data.sources.validation import SPLIT_NAMES
from retrofit.errors import UserError

Refuse = Callable[[Row, RefusedRowError], None]
"""What is done with a row that cannot be read: counted, or raised (:func:`stop`)."""

Rows = Callable[[], Iterator[Row]]
"""Reads a table from its start."""

QUERY_ID, PASSAGE_ID, SCORE = "query-id", "corpus-id", "score"

_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Text:
    """A document or a query.

    Attributes:
        identifier: its ``_id``.
        text: its text; of a document with a title, the title, a blank and the text.
        language: its ``lang``; None where it has none.
        subset: the pool it belongs to; empty where there is only one.
        group: the unit that is never divided between splits; None where it has none.
        label: what it is about; None where it has none.
    """

    identifier: str
    text: str
    language: str | None
    subset: str
    group: str | None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the qrels say of a query and a document.

    Attributes:
        query: identifier of the query.
        passage: identifier of the document.
        score: relevant if above 0.
    """

    query: str
    passage: str
    score: int


@dataclass(frozen=True)
class BeirTables:
    """The tables of a set in BEIR's layout.

    Attributes:
        documents: reads the corpus.
        queries: reads the queries.
        judgements: reads the qrels, by split.
        train: reads rows of a query and a positive; None where there are none.
    """

    documents: Rows | None
    queries: Rows | None
    judgements: Mapping[Split, Rows] = field(default_factory=dict)
    train: Rows | None = None


def beir_tables(files: Iterable[DataFile], path: str, key: str = "data_source.path") -> BeirTables:
    """Return the tables of a BEIR folder.

    Args:
        files: the files of the folder.
        path: the folder, for messages.
        key: the configuration key an error names.

    Raises:
        UserError: a table is missing, there are two of a kind, or the qrels are of an unknown split.
    """
    found: dict[str, DataFile] = {}
    for file in files:
        table = _table(file)
        if table in found:
            raise UserError(f"{key}={path}: {found[table].shown} and {file.shown}; expected one BEIR folder")
        if table:
            found[table] = file
    judgements = {_split_of_qrels(name, file): file for name, file in found.items() if name.startswith("qrels/")}
    missing = {"corpus", "queries"} - found.keys()
    if "queries" in found and "corpus" not in found and not judgements:
        raise UserError(f"{key}={path}: holds queries.jsonl and no corpus.jsonl; expected both")
    if (judgements and missing) or ("train" not in found and not judgements):
        expected = "corpus.jsonl, queries.jsonl and qrels/test.tsv (or train.tsv, dev.tsv), or train.jsonl"
        raise UserError(f"{key}={path}: holds {', '.join(sorted(found)) or 'none of them'}; expected {expected}")
    return BeirTables(
        _jsonl(found.get("corpus")),
        _jsonl(found.get("queries")),
        {split: lambda file=file: read_qrels(file) for split, file in judgements.items()},  # type: ignore[misc]
        _jsonl(found.get("train")),
    )


def read_documents(rows: Iterable[Row], refuse: Refuse) -> Iterator[tuple[Row, Text]]:
    """Yield the documents of a corpus; their texts are not checked beyond being there and encodable."""
    return _read(rows, _document, refuse)


def read_queries(rows: Iterable[Row], refuse: Refuse) -> Iterator[tuple[Row, Text]]:
    """Yield the queries; their texts are not checked beyond being there and encodable."""
    return _read(rows, _query, refuse)


def read_judgements(rows: Iterable[Row], refuse: Refuse) -> Iterator[tuple[Row, Judgement]]:
    """Yield the judgements of a split."""
    return _read(rows, _judgement, refuse)


def read_qrels(file: DataFile) -> Iterator[Row]:
    """Yield the rows of a qrels file, with or without its header."""
    for number, line in enumerate(read_lines(file), start=1):
        cells = line.split("\t")
        if not line.strip() or (number == 1 and cells[0] == QUERY_ID):
            continue
        if not is_encodable(line):
            yield Row(file.shown, number, problem=RefusedRowError(Reason.INVALID_UTF8))
        elif len(cells) == 3:
            yield Row(file.shown, number, dict(zip((QUERY_ID, PASSAGE_ID, SCORE), cells, strict=True)))
        else:
            yield Row(file.shown, number, problem=RefusedRowError(Reason.WRONG_FIELDS, found=f"{len(cells)}"))


def stop(row: Row, error: RefusedRowError) -> None:
    """Raise a refused row as a ``UserError``: for those who need every row."""
    raise UserError(described(row, error)) from error


def _read(rows: Iterable[Row], parse: Callable[[Mapping[str, Any]], Any], refuse: Refuse) -> Iterator[tuple[Row, Any]]:
    for row in rows:
        try:
            if row.problem is not None:
                raise row.problem
            parsed = parse(row.values)
        except RefusedRowError as error:
            refuse(row, error)
        else:
            yield row, parsed


def _document(values: Mapping[str, Any]) -> Text:
    parts = [values.get("title"), value_at(values, "text", "text")]
    return _text(values, " ".join(_string(part, "text") for part in parts if part), parts[-1])


def _query(values: Mapping[str, Any]) -> Text:
    text = value_at(values, "text", "text")
    return _text(values, _string(text, "text"), text)


def _text(values: Mapping[str, Any], text: str, raw: Any) -> Text:
    if raw is None:
        raise RefusedRowError(Reason.NULL_FIELD, "text")
    group, label = values.get("group"), values.get("label")
    return Text(
        identifier(value_at(values, "_id", "_id"), "_id"),
        text,
        _string(values["lang"], "lang") if values.get("lang") else None,
        encodable(str(values.get("subset") or ""), "subset"),
        None if group in (None, "") else identifier(group, "group"),
        None if label in (None, "") else identifier(label, "label"),
    )


def _judgement(values: Mapping[str, Any]) -> Judgement:
    score = value_at(values, SCORE, SCORE)
    if isinstance(score, str):
        whole = _WHOLE_NUMBER.fullmatch(score) is not None
    elif isinstance(score, float):
        whole = score.is_integer()  # JSON has NaN and Infinity, which int() fails on
    else:
        whole = isinstance(score, int) and not isinstance(score, bool)
    if not whole:
        raise RefusedRowError(Reason.NOT_A_SCORE, SCORE, str(score))
    return Judgement(
        identifier(value_at(values, QUERY_ID, QUERY_ID), QUERY_ID),
        identifier(value_at(values, PASSAGE_ID, PASSAGE_ID), PASSAGE_ID),
        int(score),
    )


def _string(value: Any, name: str) -> str:
    if value is not None and not isinstance(value, str):
        raise RefusedRowError(Reason.NOT_A_TEXT, name, value)
    return encodable(value or "", name)


def _table(file: DataFile) -> str | None:
    """Return which table of a BEIR folder a file is."""
    path = PurePosixPath(file.path)
    stem = path.name.split(".", 1)[0]
    if path.parent.name == "qrels" and file.suffix == ".tsv":
        return f"qrels/{stem}"
    return stem if file.suffix == ".jsonl" and stem in ("corpus", "queries", "train") else None


def _split_of_qrels(table: str, file: DataFile) -> Split:
    name = table.removeprefix("qrels/")
    if name not in SPLIT_NAMES:
        raise UserError(f"{file.shown}: no split is called {name}; expected train.tsv, dev.tsv or test.tsv")
    return SPLIT_NAMES[name]


def _jsonl(file: DataFile | None) -> Rows | None:
    return None if file is None else lambda: read_jsonl(file)
