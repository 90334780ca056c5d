"""Replies on disk: what was answered is kept whatever happens, and nothing is asked twice."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.synthesis.fault_server import turns

from retrofit.engine import LOCAL, Engine
from retrofit.errors import UserError
from retrofit.synthesis import reply_store
from retrofit.synthesis.chat import Prompt, Reply
from retrofit.synthesis.reply_store import Prompts, ReplyStore, ask, reply_key


class Canned:
    """A model that answers what it is told to, and notes what it is asked."""

    def __init__(self, replies: Mapping[str, Reply] | None = None, **identity: Any) -> None:
        self.name = "canned"
        self.identity = {"model": "canned", **identity}
        self.told = replies or {}
        self.asked: list[str] = []
        self.closed = 0

    def replies(self, prompts: Sequence[Prompt], engine: Engine) -> Iterator[tuple[int, Reply]]:
        assert engine is LOCAL
        try:
            for position in reversed(range(len(prompts))):
                said = prompts[position][-1]
                self.asked.append(said)
                reply = self.told.get(said, Reply(f"said: {said}", day="2025-01-02"))
                yield position, reply
        finally:
            self.closed += 1


def answers(chat: Canned, prompts: Sequence[str], cache: Path) -> list[Reply]:
    with ReplyStore(cache) as store:
        found = dict(ask(chat, turns(prompts), store, LOCAL))
    assert sorted(found) == list(range(len(prompts)))
    return [found[position] for position in range(len(prompts))]


def rows(cache: Path) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(cache / "replies" / "replies.sqlite")
    try:
        return connection.execute("SELECT * FROM replies").fetchall()
    finally:
        connection.close()


PROMPTS = [f"Frage Nr. {number}: „¿?“ \0 \U0001f600" for number in range(1203)]


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    first = Canned()
    told = answers(first, PROMPTS[:700], tmp_path)
    assert sorted(first.asked) == sorted(PROMPTS[:700])
    second = Canned()
    assert answers(second, PROMPTS, tmp_path)[:700] == told
    assert sorted(second.asked) == sorted(PROMPTS[700:])
    third = Canned()
    again = answers(third, PROMPTS, tmp_path)
    assert third.asked == []
    assert [reply.content for reply in again] == [f"said: {prompt}" for prompt in PROMPTS]
    assert (first.closed, second.closed, third.closed) == (1, 1, 0)


def test_another_identity_is_another_model(tmp_path: Path) -> None:
    answers(Canned(seed=1, top_p=None), PROMPTS[:3], tmp_path)
    other, same = Canned(seed=2, top_p=None), Canned(top_p=None, seed=1)
    answers(other, PROMPTS[:3], tmp_path)
    answers(same, PROMPTS[:3], tmp_path)
    assert (len(other.asked), len(same.asked)) == (3, 0)


def test_a_prompt_that_stands_twice_is_asked_once(tmp_path: Path) -> None:
    chat = Canned()
    found = answers(chat, ["a", "b", "a", "a"], tmp_path)
    assert sorted(chat.asked) == ["a", "b"]
    assert [reply.content for reply in found] == ["said: a", "said: b", "said: a", "said: a"]


def test_answers_and_refusals_are_kept_and_what_may_go_better_is_asked_again(tmp_path: Path) -> None:
    told = {
        "empty": Reply(""),
        "odd": Reply("no JSON", detail="cut off at max_tokens"),
        "refused": Reply("", "refused", "no", "2025-01-02", 3, 4),
        "late": Reply("", "timed_out"),
        "lost": Reply("", "unreachable"),
        "dear": Reply("", "over_budget"),
    }
    prompts = list(told)
    assert answers(Canned(told), prompts, tmp_path) == list(told.values())
    second = Canned()
    found = dict(zip(prompts, answers(second, prompts, tmp_path), strict=True))
    assert sorted(second.asked) == ["dear", "late", "lost"]
    for prompt in ("empty", "odd", "refused"):
        assert found[prompt] == told[prompt]
    kept = {row[2]: row for row in rows(tmp_path)}
    key = reply_key(second.identity, ("refused",))
    assert kept["refused"] == (key, "canned", "refused", "", "refused", "no", "2025-01-02", 3, 4)
    assert len(kept) == 6


def test_a_reply_is_on_the_disk_before_the_next_one_is_asked_for(tmp_path: Path) -> None:
    with ReplyStore(tmp_path) as store:
        for number, _ in enumerate(ask(Canned(), turns(PROMPTS[:5]), store, LOCAL), start=1):
            assert len(rows(tmp_path)) == number


def test_the_first_reply_under_a_key_stays(tmp_path: Path) -> None:
    with ReplyStore(tmp_path) as store:
        store.put("k", "m", ("p",), Reply("first"))
        store.put("k", "m", ("p",), Reply("second"))
        assert store.get(["k", "other"]) == {"k": Reply("first")}


def test_prompts_are_made_when_they_are_looked_at() -> None:
    made = []

    def make(position: int) -> str:
        made.append(position)
        return str(position)

    prompts = Prompts(5, make)
    assert (len(prompts), made) == (5, [])
    assert (prompts[1], prompts[-1], prompts[3:]) == ("1", "4", ["3", "4"])
    assert list(prompts) == ["0", "1", "2", "3", "4"]
    with pytest.raises(IndexError):
        prompts[5]


def overwritten(data: bytes) -> bytes:
    """A file whose pages, but for the first, are noise."""
    return data[:4096] + b"\xa5" * (len(data) - 4096)


@pytest.mark.parametrize(
    "damage", [lambda data: b"not a database " * 1000, lambda data: data[: len(data) // 2], overwritten]
)
def test_a_damaged_file_is_one_line_and_stays_as_it_is(tmp_path: Path, damage: Any) -> None:
    answers(Canned(), PROMPTS[:200], tmp_path)
    path = tmp_path / "replies" / "replies.sqlite"
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    chat = Canned()
    with pytest.raises(UserError) as caught:
        answers(chat, PROMPTS[:200], tmp_path)
    assert str(caught.value).startswith(f"{path} is damaged (")
    assert "move it away" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == damaged
    assert chat.asked == []


def test_a_file_of_another_layout_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "replies" / "replies.sqlite"
    answers(Canned(), PROMPTS[:1], tmp_path)
    for change in ("PRAGMA user_version = 7", "PRAGMA user_version = 0"):
        connection = sqlite3.connect(path)
        connection.execute(change)
        connection.close()
        with pytest.raises(UserError, match=r"replies\.sqlite: expected version 1 of its layout, found [07]; move"):
            answers(Canned(), PROMPTS[:1], tmp_path)


def test_a_full_disk_is_one_line_and_what_was_stored_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = Canned()
    with monkeypatch.context() as patch:
        patch.setattr(reply_store, "_PRAGMAS", (*reply_store._PRAGMAS, "PRAGMA max_page_count = 20"))
        with pytest.raises(UserError) as caught:
            answers(chat, PROMPTS, tmp_path)
    assert str(caught.value).startswith(f"no space left for {tmp_path / 'replies' / 'replies.sqlite'}: free some")
    assert "\n" not in str(caught.value)
    assert chat.closed == 1  # although the exception is still at hand
    stored = [row[2] for row in rows(tmp_path)]
    assert stored == chat.asked[:-1]
    assert len(stored) > 20
    again = Canned()
    answers(again, PROMPTS, tmp_path)
    assert sorted(again.asked) == sorted(set(PROMPTS) - set(stored))


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"file/replies cannot be written: Not a directory \(RETROFIT_CACHE or "):
        answers(Canned(), PROMPTS[:1], tmp_path / "file")


def test_a_generator_and_a_judge_of_one_process_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with ReplyStore(tmp_path) as one, ReplyStore(tmp_path) as other:
        for position, _ in ask(Canned(), turns(PROMPTS[:3]), one, LOCAL):
            found = dict(ask(Canned(), turns([f"judge {PROMPTS[position]}"]), other, LOCAL))
            assert len(found) == 1


HOLD = """
import sys, time
from pathlib import Path
from retrofit.synthesis.reply_store import ReplyStore

class Chat:
    name, identity = "canned", {"model": "canned"}

with ReplyStore(Path(sys.argv[1])) as store, store.asking(Chat()):
    print("held", flush=True)
    sys.stdin.read()
    store.put(sys.argv[2], "canned", ("a",), __import__("retrofit.synthesis.chat", fromlist=["Reply"]).Reply("theirs"))
"""


def test_what_another_process_is_asking_is_waited_for_and_not_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    chat = Canned()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), reply_key(chat.identity, ("a",))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    answers(Canned(seed=1), ["a"], tmp_path)  # another model is not waited for
    ends = holder.stdin

    class Ends(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "another process is asking canned" in record.getMessage():
                time.sleep(0.1)
                ends.close()

    handler = Ends()
    logging.getLogger("retrofit").addHandler(handler)
    try:
        found = answers(chat, ["a", "b"], tmp_path)
    finally:
        logging.getLogger("retrofit").removeHandler(handler)
    assert holder.wait(20) == 0
    assert [reply.content for reply in found] == ["theirs", "said: b"]
    assert chat.asked == ["b"]
