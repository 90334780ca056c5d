"""The column map: which fields of a row are the query, its positives and the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from retrofit.data.records import Split
from retrofit.data.sources.refusals import Reason, RefusedRowError
from retrofit.data.sources.rows import is_encodable
from retrofit.data.sources.validation import check_language, check_mapping, check_split
from retrofit.errors import UserError

ROLES = ("query", "positive", "negative", "language", "document_language", "task", "group", "split")

Column = str | list[str]
"""A path such as ``positive_passages.text``, or several whose texts are joined by a blank."""


@dataclass(frozen=True, slots=True)
class Example:
    """What a row says: a query with positives and negatives.

    Attributes:
        query: its text.
        positives: its answers, at least one once checked.
        negatives: passages known not to answer it.
        task: what relates the two.
        language: of the query.
        document_language: of the passages.
        group: the unit that is never divided between splits; None where the source names none.
        split: where the source puts it; None where it does not say.
    """

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]
    task: str
    language: str
    document_language: str
    group: str | None = None
    split: Split | None = None


@dataclass(frozen=True)
class RowMapping:
    """How a row becomes an example.

    Attributes:
        columns: by role (``ROLES``): null, a path, or a list of paths; ``{language}`` in a path stands for the code
            of the part that is read. Of a list, the last path must be there; the others (a title) may be missing.
        task: of rows that name none.
        language: of queries of rows that name none.
        document_language: of passages of rows that name none; null takes the query's.
        language_codes: the code to use, by the code the source uses.
    """

    columns: Mapping[str, Column | None]
    task: str | None
    language: str | None
    document_language: str | None
    language_codes: Mapping[str, str]

    def __post_init__(self) -> None:
        check_mapping("data_source.columns", self.columns)
        check_mapping("data_source.language_codes", self.language_codes)
        if not isinstance(self.task, str | None):
            raise UserError(f"data_source.task={self.task}: expected a name, or null; quote what is a number")
        for role, column in self.columns.items():
            if role not in ROLES:
                raise UserError(f"data_source.columns.{role}: no such role; expected one of {', '.join(ROLES)}")
            if not _is_column(column):
                raise UserError(f"data_source.columns.{role}={column}: expected null, a path or a list of paths")
        for key in ("language", "document_language"):
            code = getattr(self, key)
            if code is not None:
                try:
                    check_language(self.language_code(code), key)
                except RefusedRowError:
                    raise UserError(f"data_source.{key}={code}: expected a code such as de or zh-Hans") from None

    def check_complete(self) -> None:
        """Return if a row can become an example.

        Raises:
            UserError: a role that needs a column, or a column or a constant, has none.
        """
        for role in ("query", "positive"):
            if not self.columns.get(role):
                raise UserError(f"data_source.columns.{role}=null: expected the field that holds the {role}")
        for role in ("task", "language"):
            if not self.columns.get(role) and not getattr(self, role):
                raise UserError(
                    f"data_source.{role}=null: expected a {role} for all rows, or data_source.columns.{role}"
                )

    def for_language(self, code: str) -> RowMapping:
        """Return the mapping of the part of a source that is in one language."""
        columns = {
            role: [path.replace("{language}", code) for path in _listed(column)] if column else None
            for role, column in self.columns.items()
        }
        return replace(self, columns=columns, language=code)

    def language_code(self, code: str) -> str:
        """Return the code to use for a code of the source."""
        return self.language_codes.get(code, code)

    def paths(self) -> list[str]:
        """Return every field the mapping reads."""
        return [path for column in self.columns.values() if column for path in _listed(column)]


class ExampleReader:
    """Turns rows into examples, and knows which optional columns no row had.

    Args:
        mapping: how.

    Raises:
        UserError: the mapping is incomplete.
    """

    def __init__(self, mapping: RowMapping) -> None:
        mapping.check_complete()
        self.mapping = mapping
        self._columns = {role: _listed(column) for role, column in mapping.columns.items() if column}
        self._unseen = set(self._columns) - {"query", "positive"}
        self._rows = 0

    def read(self, values: Mapping[str, Any]) -> Example:
        """Return what a row says; its texts are not checked yet.

        Raises:
            RefusedRowError: a field is missing or of another kind.
        """
        self._rows += 1
        query = texts_at(values, self._columns["query"], "query")
        if isinstance(query, list):
            raise RefusedRowError(Reason.NOT_A_TEXT, "query", query)
        positives = texts_at(values, self._columns["positive"], "positive")
        language = self._language(values, "language", self.mapping.language)
        return Example(
            query,
            tuple(dict.fromkeys(positives if isinstance(positives, list) else [positives])),
            self._negatives(values),
            self._label(values, "task", self.mapping.task),
            language,
            self._language(values, "document_language", self.mapping.document_language or language),
            self._group(values),
            check_split(self._label(values, "split", None)) if "split" in self._columns else None,
        )

    def check_seen(self) -> None:
        """Return if every column was found in some row.

        Raises:
            UserError: a column was in none of the rows; most likely its name is misspelt.
        """
        for role in sorted(self._unseen) if self._rows else []:
            column = " + ".join(self._columns[role])
            raise UserError(f"data_source.columns.{role}={column}: no row has this field; expected its name, or null")

    def _negatives(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        if self._optional(values, "negative") in (None, ""):
            return ()
        negatives = texts_at(values, self._columns["negative"], "negative")
        return tuple(dict.fromkeys(negatives if isinstance(negatives, list) else [negatives]))

    def _language(self, values: Mapping[str, Any], role: str, constant: str | None) -> str:
        return check_language(self.mapping.language_code(self._label(values, role, constant)), role)

    def _label(self, values: Mapping[str, Any], role: str, constant: str | None) -> str:
        value = self._optional(values, role)
        if value in (None, ""):
            if constant is None:
                raise RefusedRowError(Reason.MISSING_FIELD, role, f"row has {', '.join(values)}")
            return constant
        if not isinstance(value, str):
            raise RefusedRowError(Reason.NOT_A_TEXT, role, value)
        return encodable(value, role)

    def _group(self, values: Mapping[str, Any]) -> str | None:
        value = self._optional(values, "group")
        return None if value in (None, "") else identifier(value, "group")

    def _optional(self, values: Mapping[str, Any], role: str) -> Any:
        """Return the value of a column that a row may lack; of several paths, the last one's."""
        if role not in self._columns:
            return None
        try:
            value = value_at(values, self._columns[role][-1], role)
        except RefusedRowError:
            return None
        self._unseen.discard(role)
        return value


def identifier(value: Any, field: str) -> str:
    """Return a value that names something, as text.

    Raises:
        RefusedRowError: it is neither text nor a whole number, or cannot be encoded.
    """
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise RefusedRowError(Reason.NOT_AN_IDENTIFIER, field, value)
    return encodable(str(value), field)


def encodable(text: str, field: str) -> str:
    """Return a text that a file can hold.

    Raises:
        RefusedRowError: it has half of a surrogate pair.
    """
    if not is_encodable(text):
        raise RefusedRowError(Reason.SURROGATE, field, text)
    return text


def value_at(value: Any, path: str, field: str) -> Any:
    """Return what lies at a path: names descend into mappings, whole numbers into lists, other names map over lists.

    Raises:
        RefusedRowError: nothing lies there.
    """
    if value is None or not path:
        return value
    if isinstance(value, Mapping) and path in value:
        return value[path]
    head, _, rest = path.partition(".")
    if isinstance(value, Mapping) and head in value:
        return value_at(value[head], rest, field)
    if isinstance(value, list) and not head.isdigit():
        return [value_at(item, path, field) for item in value]
    if isinstance(value, list) and int(head) < len(value):
        return value_at(value[int(head)], rest, field)
    has = f"; there are {', '.join(map(str, value))}" if isinstance(value, Mapping) else ""
    raise RefusedRowError(Reason.MISSING_FIELD, field, f"{path}{has}")


def texts_at(values: Mapping[str, Any], paths: list[str], field: str) -> str | list[str]:
    """Return the text or texts of a column.

    Args:
        values: the row.
        paths: the column's paths; of several, texts are joined by a blank, item by item where they are lists.
        field: what a refusal names.

    Raises:
        RefusedRowError: the last path is missing or null, or something is not a text.
    """
    *others, last = paths
    text = value_at(values, last, field)
    before = [_or_none(values, path, field) for path in others]
    if not isinstance(text, list):
        return _joined([*before, text], field)
    return [
        _joined([*(_item(other, place, len(text), field) for other in before), item], field)
        for place, item in enumerate(text)
    ]


def _or_none(values: Mapping[str, Any], path: str, field: str) -> Any:
    try:
        return value_at(values, path, field)
    except RefusedRowError:
        return None


def _item(value: Any, place: int, length: int, field: str) -> Any:
    if not isinstance(value, list):
        return value
    if len(value) != length:
        raise RefusedRowError(Reason.UNEQUAL_LISTS, field, f"{len(value)} and {length}")
    return value[place]


def _joined(parts: list[Any], field: str) -> str:
    if parts[-1] is None:
        raise RefusedRowError(Reason.NULL_FIELD, field)
    for part in parts:
        if part is not None and not isinstance(part, str):
            raise RefusedRowError(Reason.NOT_A_TEXT, field, part)
    return " ".join(part for part in parts if part)


def _listed(column: Column) -> list[str]:
    return [column] if isinstance(column, str) else list(column)


def _is_column(column: Any) -> bool:
    return column is None or isinstance(column, str) or (isinstance(column, list) and all(_strings(column)))


def _strings(values: list[Any]) -> Iterator[bool]:
    yield bool(values)
    yield from (isinstance(value, str) for value in values)
