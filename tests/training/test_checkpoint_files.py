"""Checkpoints are whole or not there, the newest few stay, and a change of any byte is noticed."""

from __future__ import annotations

import errno
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from retrofit.training.checkpoint_files import CheckpointFiles, newest_whole_checkpoint


def content(step: int) -> dict[str, Any]:
    return {"global_step": step, "weights": torch.full((40,), float(step)), "name": "ä", "done": [step]}


def save(folder: Path, *steps: int, keep: int = 2) -> None:
    for step in steps:
        CheckpointFiles(keep).save_checkpoint(content(step), folder / f"step={step}.ckpt")


def steps(folder: Path) -> set[int]:
    return {int(path.stem.removeprefix("step=")) for path in folder.glob("step=*.ckpt")}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    save(tmp_path / "new", 4)
    loaded = CheckpointFiles(2).load_checkpoint(tmp_path / "new" / "step=4.ckpt")
    assert torch.equal(loaded.pop("weights"), content(4)["weights"])
    assert loaded == {"global_step": 4, "name": "ä", "done": [4]}


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_stay(tmp_path: Path, keep: int) -> None:
    (tmp_path / "other.ckpt").touch()
    save(tmp_path, 8, 9, 10, 100, 110, keep=keep)
    assert steps(tmp_path) == set([9, 10, 100, 110][-keep:])
    assert (tmp_path / "other.ckpt").exists()
    newest = newest_whole_checkpoint(tmp_path)
    assert newest == tmp_path / "step=110.ckpt"


def test_those_after_the_step_at_which_the_run_stands_do_not_count(tmp_path: Path) -> None:
    save(tmp_path, 20, 24)
    save(tmp_path, 4, 8, 12)
    assert steps(tmp_path) == {8, 12, 20, 24}


def test_a_folder_without_checkpoints_has_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / ".step=999.ckpt.partial-1").touch()
    assert newest_whole_checkpoint(tmp_path) is None
    assert newest_whole_checkpoint(tmp_path / "missing") is None
    assert caplog.text == ""


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_checkpoint_that_cannot_be_written_leaves_those_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    save(tmp_path, 4, 8)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((os, "fsync") if failing == "fsync" else (Path, "replace")), full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 12)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        seen.append({path.name.split(".partial")[0] for path in tmp_path.iterdir()})
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    save(tmp_path, 4)
    save(tmp_path, 8, keep=1)
    # Content, then name; what is older goes only when both are safe.
    assert seen == [{".step=4.ckpt"}, {"step=4.ckpt"}, {"step=4.ckpt", ".step=8.ckpt"}, {"step=4.ckpt", "step=8.ckpt"}]
    assert steps(tmp_path) == {8}


def without_its_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def of_another_kind(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", bytes(100))


@pytest.mark.parametrize("damage", [without_its_end, cut_in_half, of_another_kind, lambda path: path.write_bytes(b"")])
def test_a_damaged_one_is_named_and_the_one_before_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    save(tmp_path, 4, 8)
    damage(tmp_path / "step=8.ckpt")
    assert newest_whole_checkpoint(tmp_path) == tmp_path / "step=4.ckpt"
    (warning,) = caplog.messages
    assert warning.startswith(f"{tmp_path / 'step=8.ckpt'} is damaged (")
    assert "\n" not in warning
    damage(tmp_path / "step=4.ckpt")
    assert newest_whole_checkpoint(tmp_path) is None
    assert "the training starts over" in caplog.messages[-1]


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    save(tmp_path, 4)
    path = tmp_path / "step=4.ckpt"
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x01]) + whole[place + 1 :])
        assert newest_whole_checkpoint(tmp_path) is None, place
    path.write_bytes(whole)
    assert newest_whole_checkpoint(tmp_path) == path
