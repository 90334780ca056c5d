"""The texts of a corpus of the user's own, read as a stream and checked before anything is made of them."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from retrofit.artefacts import ArtefactStore
from retrofit.data.records import content_id
from retrofit.data.sources.columns import Column, identifier, texts_at, value_at
from retrofit.data.sources.files import BEIR, DataFile, find_files, find_format, fingerprints
from retrofit.data.sources.refusals import EXPECTED, Reason, RefusedRowError, Row, described
from retrofit.data.sources.rows import is_encodable, read_rows
from retrofit.errors import UserError
from retrofit.models.bi_encoder import Kind

CODE_VERSION = 1  # raise it whenever the same files would give other texts or identifiers

IDS = "ids.txt"
TEXT = "txt"

_TEXT_HASHES, _ID_HASHES, _FIRST_TEXTS, _FIRST_IDS = "texts.u64", "ids.u64", "first_texts.npy", "first_ids.npy"
_HASHES_AT_ONCE = 2_000_000
_ROWS_AT_ONCE = 65_536
_EXPECTED: Mapping[Reason, str] = {
    **EXPECTED,
    Reason.MISSING_FIELD: "expected the field that text_field and id_field name (id_field=null numbers the rows)",
    Reason.NOT_AN_IDENTIFIER: "expected a text of one line or a whole number (id_field=null numbers the rows)",
    Reason.DUPLICATE_IDENTIFIER: "expected each identifier once (id_field)",
}


@dataclass(frozen=True, slots=True)
class CorpusText:
    """A text and where it comes from.

    Attributes:
        identifier: of the field that has it, or the row's number.
        text: as the model reads it, without a prompt.
        row: where it stands.
    """

    identifier: str
    text: str
    row: Row


@dataclass(frozen=True)
class Corpus:
    """Files with texts.

    Attributes:
        path: as the user named them.
        files: the files that are read.
        form: their format, as ``read_rows`` names it.
        text_fields: the fields of a text, joined by blanks.
        id_field: the field of the identifier; None where rows are numbered.
    """

    path: str
    files: list[DataFile]
    form: str
    text_fields: list[str]
    id_field: str | None

    @classmethod
    def find(cls, path: str, form: str, text_field: Column, id_field: str | None, kind: Kind) -> Corpus:
        """Return the corpus that lies at a path.

        Args:
            path: a file, a folder, a pattern with ``*`` or a URL.
            form: ``jsonl``, ``csv``, ``tsv``, ``parquet``, ``txt``, ``beir``, or ``auto`` to go by their names.
            text_field: the field of the text, or several that are joined.
            id_field: the field of the identifier; None numbers the rows.
            kind: of a folder in BEIR's layout, whether its queries or its corpus.

        Raises:
            UserError: there is no such file, or its format is not known.
        """
        files = find_files(path, "input")
        fields = [text_field] if isinstance(text_field, str) else text_field
        if not (isinstance(fields, list) and fields and all(isinstance(field, str) and field for field in fields)):
            raise UserError(f"text_field={text_field}: expected the name of a field or a list of them")
        if not isinstance(id_field, str | None):
            raise UserError(f"id_field={id_field}: expected the name of a field, or null")
        if form == TEXT or (form == "auto" and all(file.suffix == f".{TEXT}" for file in files)):
            return cls(path, files, TEXT, ["text"], None)
        form, files = find_format(files, form, path, "input", "format")
        if form == BEIR and files[0].shown == path:  # a corpus.jsonl that is named itself is a file like any other
            form = "jsonl"
        if form == BEIR:
            table = "queries" if kind == "query" else "corpus"
            files = [file for file in files if PurePosixPath(file.path).name.startswith(f"{table}.jsonl")]
            if len(files) != 1:
                raise UserError(f"input={path}: holds {len(files)} files {table}.jsonl; expected one (kind={kind})")
            form = "jsonl"
        return cls(path, files, form, fields, id_field)

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What the texts and identifiers depend on; JSON-like."""
        return {
            "code": CODE_VERSION,
            "files": fingerprints(self.files),
            "names": [file.name for file in self.files],
            "format": self.form,
            "text_fields": self.text_fields,
            "id_field": self.id_field,
        }

    def texts(self) -> Iterator[CorpusText]:
        """Yield the texts in the order of the files.

        Raises:
            UserError: a row cannot be used; it is named with file, number and field.
        """
        fields = [*self.text_fields, *([self.id_field] if self.id_field else [])]
        for file in self.files:
            for row in read_rows(file, self.form, fields):
                try:
                    yield self._text(row)
                except RefusedRowError as error:
                    raise UserError(described(row, error, _EXPECTED)) from error

    def _text(self, row: Row) -> CorpusText:
        if row.problem is not None:
            raise row.problem
        field = self.text_fields[-1]
        text = texts_at(row.values, self.text_fields, field)
        if not isinstance(text, str):
            raise RefusedRowError(Reason.NOT_A_TEXT, field, text)
        if not text or text.isspace():
            raise RefusedRowError(Reason.BLANK if text else Reason.EMPTY, field)
        if not is_encodable(text):
            raise RefusedRowError(Reason.SURROGATE, field)
        return CorpusText(self._identifier(row), text, row)

    def _identifier(self, row: Row) -> str:
        if self.id_field is None:
            return str(row.number) if len(self.files) == 1 else f"{PurePosixPath(row.file).name}:{row.number}"
        name = identifier(value_at(row.values, self.id_field, self.id_field), self.id_field)
        if "\n" in name or "\r" in name or not is_encodable(name):
            raise RefusedRowError(Reason.NOT_AN_IDENTIFIER, self.id_field, name)
        return name


@dataclass(frozen=True)
class CheckedCorpus:
    """A corpus of which every row can be used, and which of its texts are the same.

    Attributes:
        corpus: the corpus.
        ids: a file with the identifiers, one a line.
        text_ids: uint64 ``[texts]``, content hash of each text; memory-mapped.
        first: int64 ``[texts]``, position of the first text that equals each; memory-mapped.
    """

    corpus: Corpus
    ids: Path
    text_ids: np.ndarray
    first: np.ndarray

    @classmethod
    def check(cls, corpus: Corpus, store: ArtefactStore) -> CheckedCorpus:
        """Read a corpus once and return what was found; what was found before is taken from the cache.

        Raises:
            UserError: a row cannot be used, two have one identifier, or there is none.
        """
        folder = store.get("corpora_checked", corpus.identity, functools.partial(_check, corpus))
        return cls(
            corpus,
            folder / IDS,
            _hashes(folder / _TEXT_HASHES),
            np.load(folder / _FIRST_TEXTS, mmap_mode="r", allow_pickle=False),
        )

    def __len__(self) -> int:
        return len(self.text_ids)

    @property
    def n_different(self) -> int:
        """How many texts are unlike all before them."""
        return len(self) - sum(len(part) for part in _repeated(self.first))

    def spread(self, count: int) -> list[str]:
        """Return up to ``count`` different texts from all over the corpus, the same ones each time.

        Raises:
            UserError: the texts are not those that were checked.
        """
        positions = np.unique(self.first[np.linspace(0, len(self) - 1, count, dtype=np.int64)])
        chosen = set(positions.tolist())
        texts = itertools.islice(self.texts_from(0), int(positions[-1]) + 1)
        return [text for position, text in enumerate(texts) if position in chosen]

    def texts_from(self, start: int) -> Iterator[str]:
        """Yield the texts from a position on.

        Raises:
            UserError: they are not those that were checked.
        """
        for position, found in enumerate(itertools.islice(self.corpus.texts(), start, None), start):
            if position >= len(self) or content_id(found.text) != self.text_ids[position]:
                raise UserError(f"{found.row.file}, row {found.row.number}: changed while it was read (input)")
            yield found.text
        raise UserError(f"input={self.corpus.path}: became shorter while it was read")


def new_array(path: Path, shape: tuple[int, ...], dtype: str) -> np.memmap:
    """Return a new array in a memory-mapped file that has its place on the disk.

    Args:
        path: the file, in NumPy's format.
        shape: of the array.
        dtype: likewise.

    Raises:
        OSError: it cannot be written, or there is no space for all of it.
    """
    array = np.lib.format.open_memmap(path, "w+", dtype=dtype, shape=shape)
    # The file has holes so far: where the disk is full, writing to one of them through the map kills the process.
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def first_of_equals(hashes: np.ndarray, path: Path, at_once: int = _HASHES_AT_ONCE) -> np.ndarray:
    """Return, for every hash, the position of the first that equals it, as a new memory-mapped file.

    Args:
        hashes: uint64 ``[n]``, spread evenly; may be memory-mapped.
        path: the file, int64 ``[n]``.
        at_once: hashes that are compared at once, about, which bounds the memory: they are taken in parts by their
            remainder, so that equal ones are in one part.
    """
    first = new_array(path, hashes.shape, "int64")
    parts = -(-len(hashes) // at_once)
    for part in range(parts):
        positions = np.concatenate(
            [
                start + np.flatnonzero(hashes[start : start + at_once] % np.uint64(parts) == part)
                for start in range(0, len(hashes), at_once)
            ]
        )
        _, index, inverse = np.unique(hashes[positions], return_index=True, return_inverse=True)
        first[positions] = positions[index][inverse]
    first.flush()
    return first


def _check(corpus: Corpus, folder: Path) -> None:
    count = _write_hashes(corpus, folder)
    if not count:
        raise UserError(f"input={corpus.path}: holds no text; expected at least one")
    first_of_equals(_hashes(folder / _TEXT_HASHES), folder / _FIRST_TEXTS)
    first = first_of_equals(_hashes(folder / _ID_HASHES), folder / _FIRST_IDS)
    for part in _repeated(first):
        if len(part):
            raise _duplicate(corpus, int(first[part[0]]), int(part[0]))
    for name in (_ID_HASHES, _FIRST_IDS):
        (folder / name).unlink()


def _repeated(first: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the positions that equal one before them, part by part."""
    for start in range(0, len(first), _ROWS_AT_ONCE):
        part = first[start : start + _ROWS_AT_ONCE]
        yield start + np.flatnonzero(part != np.arange(start, start + len(part)))


def _hashes(path: Path) -> np.ndarray:
    return np.memmap(path, dtype=np.uint64, mode="r")


def _write_hashes(corpus: Corpus, folder: Path) -> int:
    """Write identifiers and the hashes of texts and identifiers, and return how many there are."""
    count = 0
    with (
        (folder / IDS).open("w", encoding="utf-8", newline="\n") as ids,
        (folder / _TEXT_HASHES).open("wb") as hashes,
        (folder / _ID_HASHES).open("wb") as id_hashes,
    ):
        texts = corpus.texts()
        while part := list(itertools.islice(texts, _ROWS_AT_ONCE)):
            ids.writelines(f"{found.identifier}\n" for found in part)
            np.array([content_id(found.text) for found in part], dtype=np.uint64).tofile(hashes)
            np.array([content_id(found.identifier) for found in part], dtype=np.uint64).tofile(id_hashes)
            count += len(part)
    return count


def _duplicate(corpus: Corpus, first: int, second: int) -> UserError:
    found = list(itertools.islice(corpus.texts(), first, second + 1, second - first))
    file = PurePosixPath(found[0].row.file).name
    where = f"{found[0].identifier}, as in row {found[0].row.number} of {file}"
    error = RefusedRowError(Reason.DUPLICATE_IDENTIFIER, corpus.id_field or "", where)
    return UserError(described(found[1].row, error, _EXPECTED))
