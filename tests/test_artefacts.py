"""The artefact store: built once, all or nothing, remade when damaged."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import filelock
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import save_file

from retrofit.artefacts import (
    MANIFEST,
    WORK_LOCK,
    ArtefactStore,
    alone_in,
    fingerprint,
    folder_written_aside,
    is_held,
    read_object,
    storage_error,
    system_error_number,
)
from retrofit.errors import UserError

INPUTS = {"corpus": "small", "code": 1}

# A build in a process of its own: notes that it began, waits, writes its file.
BUILDER = """
import sys, time
from pathlib import Path
from retrofit.artefacts import ArtefactStore

root, seconds = Path(sys.argv[1]), float(sys.argv[2])

def build(folder):
    (folder / "half").write_text("not yet whole")
    with (root / "began").open("a") as file:
        file.write("x")
    time.sleep(seconds)
    (folder / "half").unlink()
    (folder / "whole").write_text("whole")

print(ArtefactStore(root).get("stage", {"corpus": "small", "code": 1}, build))
"""


def start_builder(root: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILDER, str(root), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(path: Path, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never appeared"
        time.sleep(0.01)


class Build:
    """A build function that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        (folder / "sub").mkdir()
        (folder / "sub" / "rows").write_text("three")


def test_is_built_once_and_found_again(tmp_path: Path) -> None:
    build, store = Build(), ArtefactStore(tmp_path)
    folder = store.get("stage", INPUTS, build)
    assert store.get("stage", INPUTS, build) == folder == store.path("stage", INPUTS)
    assert build.calls == 1
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["inputs"] == INPUTS
    assert manifest["files"] == {"sub/rows": 5}


def test_other_inputs_are_another_artefact(tmp_path: Path) -> None:
    build, store = Build(), ArtefactStore(tmp_path)
    assert store.get("stage", INPUTS, build) != store.get("stage", INPUTS | {"code": 2}, build)
    assert build.calls == 2


@pytest.mark.parametrize("damage", ["truncated", "missing", "no manifest", '{"files": ', "[]", "null", '{"files": []}'])
def test_a_damaged_folder_is_made_again(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    build, store = Build(), ArtefactStore(tmp_path)
    folder = store.get("stage", INPUTS, build)
    if damage == "truncated":
        (folder / "sub" / "rows").write_text("th")
    elif damage == "missing":
        (folder / "sub" / "rows").unlink()
    elif damage == "no manifest":
        (folder / MANIFEST).unlink()
    else:
        (folder / MANIFEST).write_text(damage)
    with caplog.at_level(logging.WARNING):
        assert store.get("stage", INPUTS, build) == folder
    assert build.calls == 2
    assert (folder / "sub" / "rows").read_text() == "three"
    assert "damaged" in caplog.text


def test_a_failing_build_leaves_nothing(tmp_path: Path) -> None:
    store = ArtefactStore(tmp_path)

    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match=r"^no$"):
        store.get("stage", INPUTS, fail)
    assert [p for p in (tmp_path / "stage").iterdir() if p.is_dir()] == []
    assert store.get("stage", INPUTS, Build()).is_dir()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_a_disk_that_refuses_is_one_line_for_the_user(tmp_path: Path, number: int) -> None:
    def build(folder: Path) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(UserError) as caught:
        ArtefactStore(tmp_path).get("stage", INPUTS, build)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert [p for p in (tmp_path / "stage").iterdir() if p.is_dir()] == []


def test_a_file_elsewhere_that_may_not_be_read_is_not_taken_for_the_cache(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(denied))

    store, denied = ArtefactStore(tmp_path / "cache"), tmp_path / "pairs.jsonl"
    with pytest.raises(UserError, match=rf"^{denied}: Permission denied$"):
        store.get("stage", INPUTS, build)
    for part in ("cache/stage/rows", "cache", ""):
        denied = tmp_path / part
        with pytest.raises(UserError, match=r"^no permission to write the cache in"):
            store.get("stage", INPUTS, build)


def test_the_number_of_a_system_error_is_found_where_a_library_tells_it_in_words(tmp_path: Path) -> None:
    with pytest.raises(SafetensorError) as caught:
        save_file({"weight": torch.zeros(2)}, tmp_path / "nowhere" / "model.safetensors")
    assert system_error_number(caught.value) == errno.ENOENT
    assert system_error_number(ValueError("what")) is None


def test_two_processes_at_once_build_once(tmp_path: Path) -> None:
    processes = [start_builder(tmp_path, seconds=1.0) for _ in range(2)]
    printed = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert printed == {str(ArtefactStore(tmp_path).path("stage", INPUTS))}
    assert (tmp_path / "began").read_text() == "x"


def test_after_a_kill_in_the_middle_of_a_build_the_next_one_works(tmp_path: Path) -> None:
    process = start_builder(tmp_path, seconds=60)
    wait_for(tmp_path / "began")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    folder = ArtefactStore(tmp_path).path("stage", INPUTS)
    assert not folder.exists()
    assert list(folder.parent.glob("*.partial-*")), "the kill came too late to test anything"
    build = Build()
    assert ArtefactStore(tmp_path).get("stage", INPUTS, build) == folder
    assert build.calls == 1
    assert [p for p in folder.parent.iterdir() if p.is_dir()] == [folder]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def reverse_mappings(value: object) -> object:
    if isinstance(value, dict):
        return {key: reverse_mappings(value[key]) for key in reversed(value)}
    return [reverse_mappings(item) for item in value] if isinstance(value, list) else value


@given(json_values)
def test_the_order_of_mappings_does_not_change_a_fingerprint(value: object) -> None:
    assert fingerprint(reverse_mappings(value)) == fingerprint(value)


@given(json_values, json_values)
def test_fingerprints_differ_where_values_do(one: object, other: object) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (fingerprint(one) == fingerprint(other)) == same


def test_what_json_cannot_say_has_no_fingerprint() -> None:
    with pytest.raises(TypeError):
        fingerprint({"path": Path("x")})


def test_what_fails_under_a_lock_is_not_taken_for_the_cache(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="of a model"), ArtefactStore(tmp_path).lock(tmp_path / "stage" / "name"):
        raise PermissionError(errno.EACCES, "of a model")


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b'{"a": 1}', {"a": 1}), (b"[1]", {}), (b"null", {}), (b'{"a"', {}), (b"", {}), (b"\xff", {}), (None, {})],
)
def test_an_object_that_is_not_whole_is_empty(tmp_path: Path, content: bytes | None, expected: dict[str, Any]) -> None:
    path = tmp_path / "status.json"
    if content is not None:
        path.write_bytes(content)
    assert read_object(path) == expected


def test_a_folder_takes_its_place_under_folders_that_are_made_for_it(tmp_path: Path) -> None:
    with folder_written_aside(tmp_path / "run" / "model") as partial:
        (partial / "weights").write_text("new")
    assert (tmp_path / "run" / "model" / "weights").read_text() == "new"
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["model"]


def test_a_folder_holds_nothing_of_what_was_there_or_of_a_writer_that_was_killed(tmp_path: Path) -> None:
    for leftover in (tmp_path / "model", tmp_path / f".model.partial-{os.getpid()}"):
        leftover.mkdir()
        (leftover / "old").write_text("old")
    with folder_written_aside(tmp_path / "model") as partial:
        (partial / "new").write_text("new")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["model", "model/new"]


def test_a_folder_that_could_not_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").write_text("old")

    def write_half() -> None:
        with folder_written_aside(tmp_path / "model") as partial:
            (partial / "new").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["model", "model/old"]


def test_a_folder_that_may_not_be_looked_at_is_taken_for_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    (tmp_path / WORK_LOCK).touch()
    monkeypatch.setattr(filelock.FileLock, "acquire", refused)
    assert is_held(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOTDIR, errno.EEXIST])
def test_a_file_in_the_way_is_told(number: int) -> None:
    told = storage_error(OSError(number, os.strerror(number)), "the plan of e (paths.runs names another folder)")
    assert str(told) == "a file is in the way of the plan of e (paths.runs names another folder)"
    assert isinstance(told, UserError)


LOOK = """
import sys
from pathlib import Path
from retrofit.artefacts import is_held
print(sum(is_held(Path(sys.argv[1])) for _ in range(1_000)))
"""


def test_two_that_look_do_not_take_each_other_for_one_that_works(tmp_path: Path) -> None:
    with alone_in(tmp_path):
        pass
    lookers = [
        subprocess.Popen([sys.executable, "-c", LOOK, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [looker.communicate()[0].strip() for looker in lookers] == ["0", "0"]
