"""From documents, queries and judgements to examples, with texts on disk."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from retrofit.data.records import Passage, Split, content_id
from retrofit.data.sources.beir import BeirTables, Text, read_documents, read_judgements, read_queries
from retrofit.data.sources.building import Intake
from retrofit.data.sources.columns import Example, ExampleReader, RowMapping
from retrofit.data.sources.refusals import Reason, RefusedRowError, Row
from retrofit.data.sources.validation import Rules, check_language, check_text
from retrofit.data.storage import RecordWriter, read_records
from retrofit.errors import UserError

_SCHEMA = pa.schema(
    [
        pa.field("text", pa.string()),
        pa.field("language", pa.string()),
        pa.field("group", pa.string()),
    ]
)


class TextStore:
    """Texts by identifier: the texts on disk, eight bytes for each identifier in memory.

    Use as a context manager while texts are added; look them up afterwards.

    Args:
        path: the file to write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer = RecordWriter(path, _SCHEMA)
        self._identifiers = array("Q")
        self._numbers = array("Q")

    def __enter__(self) -> TextStore:
        self._writer.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._writer.__exit__(*error)
        if error[0] is None:
            self._table = read_records(self.path)
        identifiers = np.array(self._identifiers, np.uint64)
        self._sorted, self._first = np.unique(identifiers, return_index=True)

    def __len__(self) -> int:
        return len(self._first)

    def add(self, text: Text, row: Row) -> None:
        """Add a text."""
        self._writer.write({"text": text.text, "language": text.language, "group": text.group})
        self._identifiers.append(content_id(text.identifier))
        self._numbers.append(row.number)

    def duplicates(self) -> Iterator[int]:
        """Yield the row numbers of texts whose identifier an earlier one has; these are never found."""
        for place in np.setdiff1d(np.arange(len(self._numbers)), self._first).tolist():
            yield self._numbers[place]

    def find(self, identifier: str) -> int | None:
        """Return the place of the text of an identifier; None where there is none."""
        key = np.uint64(content_id(identifier))
        place = int(np.searchsorted(self._sorted, key))
        found = place < len(self._sorted) and self._sorted[place] == key
        return int(self._first[place]) if found else None

    def places(self) -> Iterator[int]:
        """Yield the places of all texts that can be found."""
        yield from np.sort(self._first).tolist()

    def __getitem__(self, place: int) -> Text:
        text, language, group = (self._table[name][place].as_py() for name in ("text", "language", "group"))
        return Text("", text, language, "", group)


def take_judged(
    intake: Intake, tables: BeirTables, mapping: RowMapping, rules: Rules, keep_corpus: bool
) -> Iterator[Passage]:
    """Take in a set of BEIR's layout, and yield the passages to search besides those of its pairs.

    Args:
        intake: takes the examples.
        tables: the set.
        mapping: its task, languages and, for rows of a query and a positive, its columns.
        rules: what a text must keep.
        keep_corpus: whether to yield the documents.
    """
    if mapping.task is None:
        raise UserError("data_source.task=null: expected a task for all judgements")
    if tables.documents is not None:
        documents = _stored(intake, mapping, read_documents(_counted(tables.documents(), intake), intake.refuse), rules)
        if tables.queries is not None:
            asked = read_queries(_counted(tables.queries(), intake), intake.refuse)
            queries = _stored(intake, mapping, asked, rules, "query")
            judged = _take_judgements(intake, tables, mapping, documents, queries, rules)
            intake.unused["queries without a positive judgement"] += len(queries) - judged
            queries.path.unlink()
        if keep_corpus:
            texts = (documents[place] for place in documents.places())
            yield from (Passage(text.text, str(text.language), intake.name) for text in texts)
        else:
            intake.unused["documents, but for those that answer (data_source.keep_corpus)"] += len(documents)
        documents.path.unlink()
    if tables.train is not None:
        _take_train(intake, tables, mapping)


def _counted(rows: Iterator[Row], intake: Intake) -> Iterator[Row]:
    for row in rows:
        intake.rows += 1
        yield row


def _stored(
    intake: Intake, mapping: RowMapping, texts: Iterator[tuple[Row, Text]], rules: Rules, field: str = "text"
) -> TextStore:
    """Return the texts that can be used, stored; those of documents are in the documents' language."""
    constant = mapping.language if field == "query" else mapping.document_language or mapping.language
    most = rules.max_query_characters if field == "query" else rules.max_passage_characters
    file = ""
    with TextStore(intake.folder / f"{field}.arrow") as store:
        for row, text in texts:
            file = row.file
            try:
                check_text(text.text, field, most)
                language = _language(text, constant, mapping)
            except RefusedRowError as error:
                intake.refuse(row, error)
            else:
                store.add(replace(text, language=language), row)
    for number in store.duplicates():
        intake.refuse(Row(file, number), RefusedRowError(Reason.DUPLICATE_IDENTIFIER, "_id"))
    return store


def _language(text: Text, constant: str | None, mapping: RowMapping) -> str:
    code = text.language or constant
    if code is None:
        raise RefusedRowError(Reason.MISSING_FIELD, "lang", "data_source.language is null too")
    return check_language(mapping.language_code(code), "lang")


def _take_judgements(
    intake: Intake, tables: BeirTables, mapping: RowMapping, documents: TextStore, queries: TextStore, rules: Rules
) -> int:
    """Take in judgements, those of a query as one example a language, and return how many queries have any."""
    answered: set[int] = set()
    for split, rows in tables.judgements.items():
        file, links = _links(intake, rows(), documents, queries)
        fresh = ~links.duplicated(["query", "passage"])
        for number in links["number"][~fresh].tolist():
            intake.refuse(Row(file, number), RefusedRowError(Reason.DUPLICATE_ROW))
        ordered = links[fresh].sort_values("query", kind="stable")
        span = zip(*(ordered[name].tolist() for name in ("query", "passage", "number")), strict=True)
        for query, judged in itertools.groupby(span, key=lambda link: link[0]):
            answered.add(query)
            answers = _answers(intake, queries[query], file, [(documents[p], n) for _, p, n in judged], rules)
            _take_query(intake, mapping, split, queries[query], file, answers)
    return len(answered)


def _links(intake: Intake, rows: Iterator[Row], documents: TextStore, queries: TextStore) -> tuple[str, pd.DataFrame]:
    """Return the name of the qrels and the places of every query and passage that belong together."""
    columns = {"query": array("q"), "passage": array("q"), "number": array("q")}
    file = ""
    for row, judgement in read_judgements(_counted(rows, intake), intake.refuse):
        file = row.file
        query, passage = queries.find(judgement.query), documents.find(judgement.passage)
        if query is None:
            intake.refuse(row, RefusedRowError(Reason.UNKNOWN_QUERY, "query-id", judgement.query))
        elif passage is None:
            intake.refuse(row, RefusedRowError(Reason.UNKNOWN_PASSAGE, "corpus-id", judgement.passage))
        elif judgement.score <= 0:
            intake.unused["judgements of score 0 or less"] += 1
        else:
            for name, value in (("query", query), ("passage", passage), ("number", row.number)):
                columns[name].append(value)
    return file, pd.DataFrame({name: np.array(values, np.int64) for name, values in columns.items()})


def _answers(
    intake: Intake, query: Text, file: str, judged: Iterable[tuple[Text, int]], rules: Rules
) -> Iterator[tuple[Text, int]]:
    """Yield what may answer a query; another judgement is refused by itself, so that it costs the query no other."""
    for passage, number in judged:
        try:
            rules.check_answer(query.text, passage.text)
        except RefusedRowError as error:
            intake.refuse(Row(file, number), error)
        else:
            yield passage, number


def _take_query(
    intake: Intake, mapping: RowMapping, split: Split, query: Text, file: str, judged: Iterable[tuple[Text, int]]
) -> None:
    by_language: dict[str, list[tuple[Text, int]]] = {}
    for passage, number in judged:
        by_language.setdefault(str(passage.language), []).append((passage, number))
    for language, passages in by_language.items():
        row = Row(file, passages[0][1])
        example = Example(
            query.text,
            tuple(dict.fromkeys(passage.text for passage, _ in passages)),
            (),
            str(mapping.task),
            str(query.language),
            language,
            passages[0][0].group if query.group is None else query.group,
            split,
        )
        try:
            intake.take(example, row)
        except RefusedRowError as error:
            intake.refuse(row, error)


def _take_train(intake: Intake, tables: BeirTables, mapping: RowMapping) -> None:
    assert tables.train is not None  # noqa: S101  # the caller looked
    columns = {**mapping.columns, "language": mapping.columns.get("language") or "lang"}
    reader = ExampleReader(replace(mapping, columns=columns))
    intake.take_all(tables.train(), lambda values: replace(reader.read(values), split="train"))
