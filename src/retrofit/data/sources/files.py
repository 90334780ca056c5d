"""The files a source is made of: local or at any URL that fsspec reads, of one format, identified by content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import infer_compression

from retrofit.artefacts import fingerprint
from retrofit.errors import UserError

SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".csv": "csv", ".tsv": "tsv"}
COMPRESSIONS = {".gz", ".bz2", ".xz", ".zst"}
BEIR = "beir"
_HTTP_VERSIONS = ("ETag", "Content-MD5", "Digest", "Last-Modified")
"""Headers that change when a file does; its size alone may stay the same."""
FORMATS = (*sorted(set(SUFFIXES.values())), BEIR)


@dataclass(frozen=True)
class DataFile:
    """A file in some file system.

    Attributes:
        filesystem: an fsspec file system.
        path: where the file is in it.
        shown: how messages name it: the way the user named it.
    """

    filesystem: Any
    path: str
    shown: str

    @property
    def name(self) -> str:
        """Its name, without the folder, as it can be written."""
        return PurePosixPath(_shown(self.path)).name

    @property
    def suffix(self) -> str:
        """Its suffix without that of a compression."""
        name = PurePosixPath(self.path)
        return PurePosixPath(name.stem).suffix if name.suffix in COMPRESSIONS else name.suffix

    def open(self) -> Any:
        """Return its decompressed bytes as a binary file object."""
        suffix = PurePosixPath(self.path).suffix
        if suffix in COMPRESSIONS and infer_compression(self.path) is None:
            raise UserError(f"{self.shown}: {suffix} needs a package that is not installed (pip install zstandard)")
        try:
            return self.filesystem.open(self.path, "rb", compression="infer")
        except (OSError, ValueError, ImportError) as error:
            raise UserError(f"{self.shown}: cannot be opened: {error}") from error

    def fingerprint(self) -> str:
        """Return what identifies its content: what its server says of it; a hash where it is local or nothing is said.

        Raises:
            UserError: it cannot be read.
        """
        try:
            if "https" in self.filesystem.protocol:
                # Its ukey would be a hash of the URL alone, whatever stands there.
                info = self.filesystem.info(self.path)
                told = {name: info[name] for name in _HTTP_VERSIONS if name in info}
                if told:
                    return fingerprint({"url": self.path, "size": info["size"], **told})
            elif not isinstance(self.filesystem, LocalFileSystem):
                return str(self.filesystem.ukey(self.path))
            with self.filesystem.open(self.path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, ValueError) as error:
            raise UserError(f"{self.shown}: cannot be read: {error}") from error


def find_files(path: str | None, key: str = "data_source.path") -> list[DataFile]:
    """Return the files of a path, in the order of their names.

    Args:
        path: a file, a folder (files in it and below it), a pattern with ``*``, or a URL of any of these.
        key: the configuration key an error names.

    Raises:
        UserError: there is no such file, or the URL cannot be read.
    """
    if not path:
        raise UserError(f"{key}=null: expected a file, a folder, a pattern with *, or a URL")
    try:
        filesystem, root = fsspec.url_to_fs(path)
        # What exists is no pattern: file names and URLs may have these characters.
        if any(character in root for character in "*?[") and not filesystem.exists(root):
            found = [name for name in filesystem.glob(root) if filesystem.isfile(name)]
            files = [DataFile(filesystem, name, _shown(name)) for name in sorted(found)]
        elif filesystem.isdir(root):
            files = [
                DataFile(filesystem, name, _shown(f"{path.rstrip('/')}/{PurePosixPath(name).relative_to(root)}"))
                for name in sorted(filesystem.find(root))
                if not any(part.startswith((".", "_")) for part in PurePosixPath(name).relative_to(root).parts)
            ]
        else:
            files = [DataFile(filesystem, root, _shown(path))] if filesystem.exists(root) else []
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"{key}={path}: cannot be read: {error}") from error
    if not files:
        raise UserError(f"{key}={path}: no such file; expected a file, a folder, a pattern with *, or a URL")
    return files


def _shown(name: str) -> str:
    """Return a name of a file as it can be written: bytes in it that are not UTF-8 become replacement characters."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def fingerprints(files: Iterable[DataFile]) -> list[str]:
    """Return what identifies the content of files, in their order."""
    return [file.fingerprint() for file in files]


def find_format(
    files: list[DataFile],
    asked: str,
    path: str,
    path_key: str = "data_source.path",
    format_key: str = "data_source.format",
) -> tuple[str, list[DataFile]]:
    """Return the format of files, and those of them that have it.

    Args:
        files: what was found under the path.
        asked: ``auto`` or the name of a format; ``auto`` goes by the names of the files and passes over those that hold
            no rows (a README).
        path: the path, for messages.
        path_key: the configuration key an error names for the path.
        format_key: the configuration key an error names for the format.

    Raises:
        UserError: the format is unknown or not to be found out, or the files have several.
    """
    if asked != "auto":
        if asked not in FORMATS:
            raise UserError(f"{format_key}={asked}: expected auto or one of {', '.join(FORMATS)}")
        return asked, files
    if any(PurePosixPath(file.path).name.startswith("corpus.jsonl") for file in files):
        return BEIR, files
    known = [file for file in files if file.suffix in SUFFIXES]
    formats = sorted({SUFFIXES[file.suffix] for file in known})
    if len(formats) == 1:
        return formats[0], known
    if formats:
        raise UserError(f"{path_key}={path}: holds {' and '.join(formats)}; expected files of one format")
    raise UserError(
        f"{path_key}={path}: no file name ends with one of {', '.join(SUFFIXES)}; "
        f"name the format: {format_key}, one of {', '.join(FORMATS)}"
    )
