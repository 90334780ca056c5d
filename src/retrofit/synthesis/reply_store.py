"""Replies of language models, kept for good: what was answered once is never asked, or paid for, again.

They lie in one SQLite file, ``<cache>/replies/replies.sqlite``, a row a reply. A row is on the disk when the next reply
is asked for, so that of a killed run only the requests in flight are lost.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import sqlite3
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

import filelock

from retrofit.artefacts import fingerprint
from retrofit.engine import Engine
from retrofit.errors import UserError
from retrofit.synthesis.chat import ChatModel, Prompt, Reply
from retrofit.synthesis.records import PASSING

_SCHEMA_VERSION = 1
_TABLE = """
CREATE TABLE replies (
    key TEXT PRIMARY KEY NOT NULL,
    model TEXT NOT NULL,
    prompt TEXT NOT NULL,
    content TEXT NOT NULL,
    failure TEXT,
    detail TEXT NOT NULL,
    day TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL
)
"""
_COLUMNS = "content, failure, detail, day, prompt_tokens, completion_tokens"
_PRAGMAS: tuple[str, ...] = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL")
_BUSY_SECONDS = 60
_KEYS_A_BLOCK = 500

log = logging.getLogger(__name__)


def reply_key(identity: Mapping[str, Any], prompt: Prompt) -> str:
    """Return what a reply is kept under: SHA-256 of the model's identity and the prompt, as canonical JSON."""
    canonical = json.dumps([dict(identity), prompt], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def is_final(reply: Reply) -> bool:
    """Return whether a reply is kept: an answer, whatever it says, or a refusal; anything else is asked again."""
    return reply.failure not in PASSING


class ReplyStore:
    """The file of replies; a context manager that opens and closes it.

    Attributes:
        path: the file.
    """

    def __init__(self, cache: Path) -> None:
        self.path = cache / "replies" / "replies.sqlite"

    def __enter__(self) -> Self:
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # One at a time: SQLite does not wait where two processes turn a new file to WAL.
            with filelock.FileLock(folder / ".open.lock"), self._errors_named():
                # Without a transaction of Python's own, each statement is committed as it returns.
                self._connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
                try:
                    self._prepare()
                except BaseException:
                    self._connection.close()
                    raise
        except OSError as error:
            where = "RETROFIT_CACHE or paths.cache names another folder"
            raise UserError(f"{folder} cannot be written: {error.strerror} ({where})") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def _prepare(self) -> None:
        execute = self._connection.execute
        for pragma in _PRAGMAS:
            execute(pragma)
        (version,) = execute("PRAGMA user_version").fetchone()
        (tables,) = execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version == 0 and tables == 0:
            # In one transaction: a process killed between the two would leave what looks like another's file.
            self._connection.executescript(f"BEGIN; {_TABLE}; PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT")
        elif version != _SCHEMA_VERSION:
            expected = f"expected version {_SCHEMA_VERSION} of its layout, found {version}"
            raise UserError(f"{self.path}: {expected}; move the file away, or name another folder by paths.cache")

    def get(self, keys: Sequence[str]) -> dict[str, Reply]:
        """Return the replies that are kept under the given keys.

        Raises:
            UserError: the file is damaged or cannot be read.
        """
        found: dict[str, Reply] = {}
        with self._errors_named():
            for start in range(0, len(keys), _KEYS_A_BLOCK):
                block = keys[start : start + _KEYS_A_BLOCK]
                marks = ",".join("?" * len(block))
                query = f"SELECT key, {_COLUMNS} FROM replies WHERE key IN ({marks})"  # noqa: S608 -- ours alone
                found.update((key, Reply(*columns)) for key, *columns in self._connection.execute(query, block))
        return found

    def put(self, key: str, model: str, prompt: Prompt, reply: Reply) -> None:
        """Keep a final reply; it is on the disk when this returns. A key that has one keeps it.

        Args:
            key: of the model's identity and the prompt.
            model: name of the model; like the prompt, for whoever looks into the file.
            prompt: what was asked.
            reply: what was answered; see :func:`is_final`.

        Raises:
            UserError: the disk is full, or the file is damaged or cannot be written.
        """
        columns = (reply.content, reply.failure, reply.detail, reply.day, reply.prompt_tokens, reply.completion_tokens)
        with self._errors_named():
            self._connection.execute(
                f"INSERT OR IGNORE INTO replies (key, model, prompt, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                (key, model, "\n\n".join(prompt), *columns),
            )

    @contextlib.contextmanager
    def asking(self, chat: ChatModel) -> Iterator[None]:
        """Keep other processes from asking the same model: what both need is paid for once. They wait until the end."""
        path = self.path.with_name(f".{fingerprint(dict(chat.identity))}.lock")
        # A singleton, so that a generator and a judge of one process do not wait for each other.
        lock = filelock.FileLock(path, is_singleton=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            log.info("another process is asking %s: waiting until it is done", chat.name)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.ProgrammingError, sqlite3.IntegrityError):
            raise  # ours
        except sqlite3.DatabaseError as error:
            raise UserError(self._explained(error)) from error

    def _explained(self, error: sqlite3.DatabaseError) -> str:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF  # the rest are shades of these
        if code == sqlite3.SQLITE_FULL:
            return f"no space left for {self.path}: free some and run the same command again; replies so far are kept"
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return f"{self.path} has been in use by another program for {_BUSY_SECONDS} s: end it and run again"
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return (
                f"{self.path} is damaged ({error}): move it away together with its -wal file, and what it held is "
                "asked and paid for again, unless `sqlite3 replies.sqlite .recover` saves it; nothing was deleted"
            )
        where = "RETROFIT_CACHE or paths.cache names another folder"
        return f"{self.path} cannot be read or written ({error}): is the disk there, and not full? ({where})"


class Prompts(Sequence[Prompt]):
    """Prompts that are made when they are looked at, in any thread: a million of them need not be in memory."""

    def __init__(self, count: int, make: Callable[[int], Prompt]) -> None:
        """Take how many there are, and what makes one from its position."""
        self._positions = range(count)
        self._make = make

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> list[Prompt]: ...
    def __getitem__(self, index: int | slice) -> Prompt | list[Prompt]:
        if isinstance(index, slice):
            return [self._make(position) for position in self._positions[index]]
        return self._make(self._positions[index])


def ask(
    chat: ChatModel, prompts: Sequence[Prompt], store: ReplyStore, engine: Engine
) -> Generator[tuple[int, Reply], None, None]:
    """Yield a reply to each prompt with its position: the kept ones, then what the model says, kept as it comes.

    A prompt that stands several times is asked once. While the model is asked, no other process asks it.

    Args:
        chat: asked only for what the store does not hold.
        prompts: what is asked; see :class:`Prompts`.
        store: the open store.
        engine: where the model works, if it works here.

    Raises:
        UserError: the store cannot be read or written, or the model cannot be asked.
    """
    positions: dict[str, list[int]] = {}
    for position, prompt in enumerate(prompts):
        positions.setdefault(reply_key(chat.identity, prompt), []).append(position)
    yield from _kept(store, positions)
    if not positions:
        return
    with store.asking(chat):
        yield from _kept(store, positions)  # another process may have asked meanwhile
        missing = list(positions)
        if not missing:
            return
        log.info("%s: %d of %d prompts to ask", chat.name, len(missing), len(prompts))
        to_ask = Prompts(len(missing), lambda number: prompts[positions[missing[number]][0]])
        replies = chat.replies(to_ask, engine)
        try:
            for number, reply in replies:
                key = missing[number]
                if is_final(reply):
                    store.put(key, chat.name, to_ask[number], reply)
                for position in positions[key]:
                    yield position, reply
        finally:
            if isinstance(replies, Generator):
                replies.close()  # at once, and not when the traceback of an error lets go of it


def _kept(store: ReplyStore, positions: dict[str, list[int]]) -> Iterator[tuple[int, Reply]]:
    """Yield what the store holds, and take it out of the keys that are looked for."""
    keys = list(positions)
    for start in range(0, len(keys), _KEYS_A_BLOCK):
        for key, reply in store.get(keys[start : start + _KEYS_A_BLOCK]).items():
            for position in positions.pop(key):
                yield position, reply
