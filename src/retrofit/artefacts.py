"""Artefacts: folders in the cache that are a function of their inputs.

An artefact lives in ``<cache>/<stage>/<fingerprint>/`` next to its ``manifest.json``. It is written aside and renamed
when complete, so a reader sees all of it or nothing, and the same inputs never cost the same work twice.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from retrofit.errors import UserError

MANIFEST = "manifest.json"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
"""What the operating system says when a disk is full, or what a user may write to it."""

UNNAMED_KEYS = ("paths", "logger", "experiment_name", "engine", "sweep")
"""Configuration that decides where a run works, writes and reports, not what it computes: not in its fingerprint."""

WORK_LOCK = "work.lock"
"""File in a folder that the process holds which works there."""

PATIENCE = 2.0
"""Seconds for which a folder may be held by one that only looks whether it is."""

GLANCE = 0.1
"""Seconds for which one looks at a folder before it takes it for held."""

log = logging.getLogger(__name__)


def default_cache() -> Path:
    """Return the cache folder: ``RETROFIT_CACHE`` where set, else ``retrofit`` in the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("RETROFIT_CACHE") or platformdirs.user_cache_dir("retrofit")).expanduser()


def fingerprint(value: Any) -> str:
    """Return 16 hex digits that identify a JSON-like value, whatever the order of its mappings.

    Raises:
        TypeError: the value holds something JSON cannot say.
    """
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Return the sha256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file beside ``path`` that takes its place unless the context raises.

    So no reader ever sees half of a file, and a writer that fails leaves what was there before.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def folder_written_aside(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``folder`` that takes the place of it and its content unless the context raises.

    Folders above it are made where they are missing; what a killed writer of the same process number left is removed.
    """
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what writers that were killed left in a folder; nobody may be writing to it."""
    for leftover in folder.glob(".*.partial-*"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file aside and rename it."""
    with written_aside(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, aside and then renamed."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file that another process may just write; empty where there is none to be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


@dataclasses.dataclass(frozen=True)
class ArtefactStore:
    """The cache folder and the one way to read from it or to add to it.

    Attributes:
        root: folder under which ``<stage>/<fingerprint>/`` folders live.
        key: how the user names another folder.
    """

    root: Path
    key: str = "RETROFIT_CACHE or paths.cache"

    def path(self, stage: str, inputs: Mapping[str, Any]) -> Path:
        """Return where the artefact of these inputs lives, whether or not it has been made."""
        return self.root / stage / fingerprint(dict(inputs))

    def get(self, stage: str, inputs: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
        """Return the artefact's folder, building it first if it is missing or damaged.

        Two processes that ask for the same artefact at once build it once: the second waits for the first.

        Args:
            stage: what kind of artefact it is; names the folder.
            inputs: everything the artefact depends on, the version of the building code included. JSON-like.
            build: writes the artefact's files into the empty folder it is given.

        Raises:
            UserError: the disk is full, or the cache folder, or another file that the building needs, is not to be had.
        """
        folder = self.path(stage, inputs)
        if is_complete(folder):
            return folder
        with self._storage_errors(), self.lock(folder):
            if not is_complete(folder):
                self._build(folder, inputs, build)
        return folder

    @contextmanager
    def lock(self, folder: Path) -> Iterator[None]:
        """Wait until no other process is in this context for the same folder of the cache, which may not exist yet.

        Raises:
            UserError: the disk is full or the cache folder cannot be written.
        """
        lock = filelock.FileLock(folder.with_name(f".{folder.name}.lock"))
        with self._storage_errors():
            folder.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _storage_errors(self) -> Iterator[None]:
        with storage_errors(f"the cache in {self.root} ({self.key} names another folder)"):
            try:
                yield
            except PermissionError as error:
                if error.filename is None or self._is_ours(Path(os.fsdecode(error.filename)).absolute()):
                    raise
                # A source that may not be read is no fault of the cache.
                raise UserError(f"{os.fsdecode(error.filename)}: {error.strerror}") from error

    def _is_ours(self, path: Path) -> bool:
        """Return whether a path is in the cache, or is the cache or a folder above it, which may have to be made."""
        root = self.root.absolute()
        return path.is_relative_to(root) or root.is_relative_to(path)

    def _build(self, folder: Path, inputs: Mapping[str, Any], build: Callable[[Path], None]) -> None:
        if folder.exists():
            log.warning("%s is damaged (a file is missing or has another size); making it again", folder)
            shutil.rmtree(folder)
        for leftover in folder.parent.glob(f".{folder.name}.partial-*"):
            shutil.rmtree(leftover)  # of a build that was killed; we hold the lock, so nobody is writing it
        started = time.monotonic()
        with folder_written_aside(folder) as partial:
            build(partial)
            files = {str(p.relative_to(partial)): p.stat().st_size for p in sorted(partial.rglob("*")) if p.is_file()}
            seconds = round(time.monotonic() - started, 1)
            write_json(partial / MANIFEST, {"inputs": dict(inputs), "files": files, "seconds": seconds})


def is_complete(folder: Path) -> bool:
    """Return whether an artefact's folder holds every file of its manifest in its full size."""
    files = read_object(folder / MANIFEST).get("files")
    if not isinstance(files, dict):
        return False
    try:
        return all((folder / name).stat().st_size == size for name, size in files.items())
    except OSError:
        return False


@contextmanager
def alone_in(folder: Path) -> Iterator[bool]:
    """Hold a folder while the context lasts, and yield whether it could be had: False where another process holds it.

    The operating system lets go of it when the process ends, however it ends, so what :func:`is_held` says is true of a
    process that was killed, too, and of one on another machine that shares the file system.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / WORK_LOCK)
    try:
        lock.acquire(timeout=PATIENCE)
    except filelock.Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def is_held(folder: Path) -> bool:
    """Return whether a process is :func:`alone_in` a folder."""
    path = folder / WORK_LOCK
    if not path.exists():
        return False
    lock = filelock.FileLock(path)
    try:
        # Another that only looks lets go at once.
        lock.acquire(timeout=GLANCE, poll_interval=GLANCE / 10)
    except OSError:  # a timeout, or somebody else's folder, or a disk that is only read: what cannot be told is work
        return True
    lock.release()
    return False


def system_error_number(error: BaseException) -> int | None:
    """Return the operating system's number of an error; None where it is none of its.

    Libraries that are written in Rust (safetensors, tokenizers) raise errors of their own, with the number in the text.
    """
    if isinstance(error, OSError):
        return error.errno
    told = re.search(r"\(os error (\d+)\)", str(error))
    return int(told[1]) if told else None


def storage_error(error: BaseException, where: str) -> BaseException:
    """Return the error of a full disk, or of a folder that cannot be written, as one the user can put right.

    Args:
        error: any other is returned as it is.
        where: what was written, its folder, and how to name another.
    """
    number = system_error_number(error)
    if number in NO_SPACE:
        return UserError(f"no space left for {where}: free some and run the same command again")
    if number in (errno.EACCES, errno.EROFS, errno.EPERM):
        return UserError(f"no permission to write {where}: {os.strerror(number)}")
    if number in (errno.ENOTDIR, errno.EEXIST):
        return UserError(f"a file is in the way of {where}")
    return error


@contextmanager
def storage_errors(where: str) -> Iterator[None]:
    """Raise what :func:`storage_error` makes of an error, in its place.

    Args:
        where: likewise.
    """
    try:
        yield
    except Exception as error:
        told = storage_error(error, where)
        if told is error:
            raise
        raise told from error
