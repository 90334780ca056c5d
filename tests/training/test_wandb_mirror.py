"""Weights & Biases as a mirror: whatever becomes of it, the run goes on and no secret is written."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from retrofit.training.run_folder import RunFolder
from retrofit.training.wandb_mirror import WandbMirror

ROW = {"step": 2.0, "loss": 0.5, "learning_rate": 0.1}
KEY = "0123456789abcdef0123456789abcdef01234567"


def config(mode: str) -> dict[str, Any]:
    return {"logger": {"mode": mode, "project": "p", "group": None}, "experiment_name": "e", "seed": 0}


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


class FakeRun:
    """Stands for a wandb run; fails from the call on that it is told."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.logged: list[tuple[dict[str, Any], int | None]] = []
        self.finished = 0
        self.summary: dict[str, Any] = {}

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        self.logged.append((values, step))
        if self.failing == "log":
            raise ConnectionError("the network is gone\nand so is the second line")

    def finish(self) -> None:
        self.finished += 1
        if self.failing == "finish":
            raise ConnectionError("too late")


def test_a_disabled_mirror_does_not_even_import_wandb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with WandbMirror.start(config("disabled"), RunFolder(tmp_path)) as mirror:
        mirror.log(ROW)
        mirror.finish(pd.DataFrame({"a": [1]}), {"headline": 1})
    assert warnings(caplog) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_without_wandb_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    with WandbMirror.start(config(mode), RunFolder(tmp_path)) as mirror:
        assert mirror.run is None
        mirror.log(ROW)
        mirror.finish(pd.DataFrame({"a": [1]}), {})
    (warning,) = warnings(caplog)
    assert "Weights & Biases is left out" in warning


def test_a_failing_log_is_said_once_and_then_left_out(caplog: pytest.LogCaptureFixture) -> None:
    run = FakeRun("log")
    mirror = WandbMirror(run)
    for _ in range(3):
        mirror.log(ROW)
    mirror.finish(pd.DataFrame({"a": [1]}), {})
    assert len(run.logged) == 1
    (warning,) = warnings(caplog)
    assert "the network is gone" in warning
    assert "second line" not in warning


def test_rows_carry_their_step(caplog: pytest.LogCaptureFixture) -> None:
    run = FakeRun()
    WandbMirror(run).log(ROW)
    assert run.logged == [({"training/loss": 0.5, "training/learning_rate": 0.1}, 2)]
    assert warnings(caplog) == []


@pytest.mark.parametrize("failing", ["", "finish"])
def test_the_mirror_is_closed_when_the_run_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    run = FakeRun(failing)
    monkeypatch.setattr(WandbMirror, "_init", lambda self, config, folder: setattr(self, "run", run))
    with pytest.raises(RuntimeError, match="the run's own"), WandbMirror.start(config("offline"), RunFolder(tmp_path)):
        raise RuntimeError("the run's own")
    assert run.finished == 1


def test_an_offline_run_leaves_its_files_in_the_run_folder_and_no_key_in_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(tmp_path / "runs" / "e" / "abc")
    folder.start("seed: 0\n")
    with WandbMirror.start(config("offline"), folder) as mirror:
        mirror.log(ROW)
        mirror.finish(pd.DataFrame({"metric": ["ndcg_at_10"], "value": [0.5]}), {"headline": {"held_out": 0.5}})
        assert mirror.run is not None
    assert warnings(caplog) == []
    (record,) = (folder.path / "wandb").glob("offline-run-*/run-*.wandb")
    assert record.stat().st_size > 0
    written = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    for path in written:
        assert KEY.encode() not in path.read_bytes(), path
