"""A source of the user's own files: rows of pairs, or a folder in BEIR's layout."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from retrofit.data.sources.beir import beir_tables
from retrofit.data.sources.building import Intake, build_source
from retrofit.data.sources.columns import ExampleReader, RowMapping
from retrofit.data.sources.files import BEIR, DataFile, find_files, find_format, fingerprints
from retrofit.data.sources.judged import take_judged
from retrofit.data.sources.rows import read_aligned, read_rows
from retrofit.data.sources.validation import Rules
from retrofit.errors import UserError


def build_folder(
    *,
    name: str,
    path: str | None,
    format: str,  # noqa: A002  # the configuration key
    mapping: RowMapping,
    rules: Rules,
    keep_corpus: bool,
    licence: str | None,
    cache: Path,
) -> Path:
    """Return the folder of a source made of files, building it first if the cache does not hold it.

    Args:
        name: name of the source.
        path: a file, a folder, a pattern with ``*`` or a URL of any of these.
        format: ``jsonl``, ``csv``, ``tsv``, ``parquet``, ``beir``, or ``auto`` to go by the names of the files.
        mapping: how a row becomes a pair.
        rules: what a row must keep.
        keep_corpus: whether all documents of a BEIR folder can be searched, or only those that answer a query.
        licence: of the texts, for the report.
        cache: root of the cache.

    Raises:
        UserError: the files cannot be read, too many rows cannot be used, or no pair is left.
    """
    files = find_files(path)
    form, files = find_format(files, format, str(path))
    inputs = {
        "format": form,
        "files": fingerprints(files),
        "names": [file.name for file in files],
        "mapping": dataclasses.asdict(mapping),
        "rules": dataclasses.asdict(rules),
        "keep_corpus": keep_corpus,
    }

    def read(intake: Intake) -> None:
        if form == BEIR:
            passages = take_judged(intake, beir_tables(files, str(path)), mapping, rules, keep_corpus)
            intake.write_passages(passages)
        else:
            _read_files(intake, files, form, mapping)

    return build_source(cache, "folder", name, licence, rules, inputs, read)


def build_parallel(
    *,
    name: str,
    queries: str | None,
    passages: str | None,
    mapping: RowMapping,
    rules: Rules,
    licence: str | None,
    cache: Path,
) -> Path:
    """Return the folder of a source made of two texts whose lines answer each other, building it first if needed.

    Args:
        name: name of the source.
        queries: the file of the queries; its line n is answered by line n of the passages.
        passages: the file of the passages.
        mapping: its task and languages.
        rules: what a row must keep.
        licence: of the texts, for the report.
        cache: root of the cache.

    Raises:
        UserError: the files cannot be read, too many lines cannot be used, or no pair is left.
    """
    sides = {"queries": queries, "passages": passages}
    found = {key: find_files(path, f"data_source.{key}") for key, path in sides.items()}
    for key, files in found.items():
        if len(files) != 1:
            raise UserError(f"data_source.{key}={sides[key]}: {len(files)} files; expected one")
    query_file, passage_file = found["queries"][0], found["passages"][0]
    inputs = {
        "files": fingerprints([query_file, passage_file]),
        "mapping": dataclasses.asdict(mapping),
        "rules": dataclasses.asdict(rules),
    }
    reader = ExampleReader(mapping)
    return build_source(
        cache,
        "parallel",
        name,
        licence,
        rules,
        inputs,
        lambda intake: intake.take_all(read_aligned(query_file, passage_file), reader.read),
        rows_key="data_source.queries, data_source.passages",
    )


def _read_files(intake: Intake, files: list[DataFile], form: str, mapping: RowMapping) -> None:
    reader = ExampleReader(mapping)
    for file in files:
        intake.take_all(read_rows(file, form, mapping.paths()), reader.read)
    intake.checks.append(reader.check_seen)
