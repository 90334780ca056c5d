"""Runs that are killed, whose checkpoints are damaged or whose disk is full end as one that nobody disturbed."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tests.commands.workplace import Workplace, read_json, same, weights

from retrofit.errors import UserError
from retrofit.interruption import remember_interrupts
from retrofit.training.checkpoint_files import CheckpointFiles

EVERY_STEP = ("model.dropout=0.2", "trainer.log_every=1")
REFRESHED = ("negatives=refreshed", "negatives.mined.refresh_every_epochs=null")
STEPS = 24

Run = Callable[..., Path]


def killed(workplace: Workplace, reached: Callable[[str], bool]) -> None:
    """Start a run and kill it when what it has logged says so."""
    log_file = workplace.path / "log"
    with log_file.open("w") as log:
        process = subprocess.Popen(
            workplace.command(), cwd=workplace.path, env=workplace.environment, stdout=log, stderr=log
        )
        try:
            waited = time.monotonic()
            while not reached(log_file.read_text(encoding="utf-8")):
                assert process.poll() is None, log_file.read_text(encoding="utf-8")
                assert time.monotonic() - waited < 300
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        finally:
            process.kill()
            process.wait()


def curve(run: Path) -> pd.DataFrame:
    """The training curve without what depends on the clock and the process."""
    return pd.read_csv(run / "training_curve.csv").drop(columns=["pairs_per_second", "seconds", "peak_memory_gb"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, in_process: Run) -> Path:
    """A run with dropout that nobody disturbed."""
    return in_process(tmp_path_factory.mktemp("whole"), *EVERY_STEP)


def assert_as_undisturbed(run: Path, whole: Path) -> None:
    """Bit for bit the same weights, and the same loss of every step: that is, the same batches."""
    assert read_json(run / "status.json")["state"] == "finished"
    assert same(weights(run), weights(whole))
    assert curve(run)["step"].tolist() == list(range(1, STEPS + 1))
    assert pd.read_csv(run / "training_curve.csv")["seconds"].is_monotonic_increasing, "the clock began again"
    pd.testing.assert_frame_equal(curve(run), curve(whole), check_exact=True)
    assert pd.read_csv(run / "metrics.csv").equals(pd.read_csv(whole / "metrics.csv"))


def test_a_run_killed_at_random_steps_ends_as_one_that_was_not(
    whole: Path, tmp_path: Path, small_run: list[str]
) -> None:
    workplace = Workplace(tmp_path, [*small_run, *EVERY_STEP])
    generator = random.Random(6)  # noqa: S311 -- which step matters to nobody
    first, second = sorted(generator.sample(range(5, STEPS - 4), 2))
    killed(workplace, lambda log: f"step {first} of" in log)
    run = workplace.run()
    assert read_json(run / "status.json")["state"] == "running"
    base = workplace.evaluations()
    assert sum(name.endswith("results.parquet") for name in base) == 3  # the base on the test split of each suite
    killed(workplace, lambda log: f"step {second} of" in log)
    assert "resuming from step=" in (tmp_path / "log").read_text(encoding="utf-8")
    assert not (run / "model").exists(), "the run ended before it was killed"

    for leftover in (run / "checkpoints" / ".step=20.ckpt.partial-1", run / ".status.json.partial-1"):
        leftover.write_bytes(b"half")
    done = workplace.train()
    assert done.returncode == 0, done.stderr
    assert "resuming from step=" in done.stderr
    assert_as_undisturbed(run, whole)
    assert base.items() <= workplace.evaluations().items()
    assert not list(run.rglob(".*.partial-*"))


def test_a_killed_run_goes_on_with_the_negatives_mined_in_it(
    tmp_path: Path, small_run: list[str], in_process: Run
) -> None:
    overrides = [*REFRESHED, "negatives.mined.refresh_every_steps=6"]
    undisturbed = in_process(tmp_path / "whole", *overrides)
    workplace = Workplace(tmp_path / "killed", [*small_run, *overrides])
    workplace.path.mkdir()
    killed(workplace, lambda log: bool(list(workplace.path.glob("runs/train/*/checkpoints/step=8.ckpt"))))
    done = workplace.train()
    assert done.returncode == 0, done.stderr
    assert "resuming from step=" in done.stderr
    assert "step 6: negatives mined anew" not in done.stderr
    assert same(weights(workplace.run()), weights(undisturbed))


@pytest.fixture
def stops_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """Return a function that lets runs end when they have written the checkpoint of a step, 0 for none."""
    save = CheckpointFiles.save_checkpoint

    def stop(step: int) -> None:
        def save_and_stop(self: CheckpointFiles, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
            save(self, checkpoint, path)
            if Path(path).name == f"step={step}.ckpt":
                raise RuntimeError("stopped")

        monkeypatch.setattr(CheckpointFiles, "save_checkpoint", save_and_stop)

    return stop


def test_an_interrupt_that_is_dropped_while_a_checkpoint_is_written_ends_the_run(
    tmp_path: Path, in_process: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = torch.save

    def save_and_drop(*arguments: Any) -> None:
        with contextlib.suppress(KeyboardInterrupt):  # as copyreg does, when a class is pickled for the first time
            os.kill(os.getpid(), signal.SIGINT)
        save(*arguments)

    monkeypatch.setattr(torch, "save", save_and_drop)
    before = signal.getsignal(signal.SIGINT)
    remember_interrupts()
    try:
        with pytest.raises(SystemExit):
            in_process(tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    (run,) = (tmp_path / "runs" / "train").iterdir()
    assert read_json(run / "status.json")["state"] == "failed"
    assert [each.name for each in (run / "checkpoints").iterdir()] == ["step=4.ckpt"]


@pytest.mark.parametrize("every", [4, 6])
def test_negatives_are_mined_anew_and_a_stopped_run_goes_on_with_them(
    tmp_path: Path, in_process: Run, stops_after: Callable[[int], Any], caplog: pytest.LogCaptureFixture, every: int
) -> None:
    overrides = [*REFRESHED, f"negatives.mined.refresh_every_steps={every}"]
    caplog.set_level("INFO")
    undisturbed = in_process(tmp_path / "whole", *overrides)
    mined = [step for step in range(1, STEPS + 1) if f"step {step}: negatives mined anew" in caplog.text]
    assert mined == list(range(every, STEPS, every))
    stops_after(8)
    with pytest.raises(RuntimeError, match="stopped"):
        in_process(tmp_path, *overrides)
    stops_after(0)
    run = in_process(tmp_path, *overrides)
    assert "resuming from step=8.ckpt" in caplog.text
    assert same(weights(run), weights(undisturbed))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, flip, empty])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(
    whole: Path, tmp_path: Path, in_process: Run, stops_after: Callable[[int], Any],
    caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None],
) -> None:  # fmt: skip
    caplog.set_level("INFO")
    stops_after(12)
    with pytest.raises(RuntimeError, match="stopped"):
        in_process(tmp_path, *EVERY_STEP)
    (checkpoints,) = tmp_path.glob("runs/train/*/checkpoints")
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step=12.ckpt", "step=8.ckpt"]
    damage(checkpoints / "step=12.ckpt")
    stops_after(0)
    run = in_process(tmp_path, *EVERY_STEP)
    assert f"{checkpoints / 'step=12.ckpt'} is damaged" in caplog.text
    assert "resuming from step=8.ckpt" in caplog.text
    assert_as_undisturbed(run, whole)


def test_where_every_checkpoint_is_damaged_the_training_starts_over(
    whole: Path, tmp_path: Path, in_process: Run, stops_after: Callable[[int], Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    stops_after(20)
    with pytest.raises(RuntimeError, match="stopped"):
        in_process(tmp_path, *EVERY_STEP)
    for checkpoint in tmp_path.glob("runs/train/*/checkpoints/*"):
        flip(checkpoint)
    # Damaged ones with more steps do not push out those that are written now.
    stops_after(8)
    with pytest.raises(RuntimeError, match="stopped"):
        in_process(tmp_path, *EVERY_STEP)
    assert "the training starts over" in caplog.text
    stops_after(0)
    run = in_process(tmp_path, *EVERY_STEP)
    assert "resuming from step=8.ckpt" in caplog.text
    assert_as_undisturbed(run, whole)


def test_a_full_disk_is_one_line_and_the_next_start_goes_on(
    whole: Path, tmp_path: Path, in_process: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    written = []

    def fsync(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > 2:  # a checkpoint and its folder
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fsync)
        with pytest.raises(UserError, match=r"^no space left for the run in [^\n]* run the same command again$"):
            in_process(tmp_path, *EVERY_STEP)
    (run,) = tmp_path.glob("runs/train/*")
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step=4.ckpt"]
    assert read_json(run / "status.json")["state"] == "failed"
    in_process(tmp_path, *EVERY_STEP)
    assert "resuming from step=4.ckpt" in caplog.text
    assert_as_undisturbed(run, whole)


def test_a_run_that_diverges_saves_its_batch_and_stops_there_again(
    tmp_path: Path, in_process: Run, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    overrides = ["optimizer.optimizer.lr=1e30", "optimizer.clip_norm=null", "optimizer.warmup_fraction=0"]
    overrides += ["trainer.checkpoint_every=1"]
    messages = []
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            in_process(tmp_path, *overrides)
        messages.append(str(caught.value))
    (run,) = tmp_path.glob("runs/train/*")
    assert messages[0] == messages[1]
    assert "\n" not in messages[0]
    assert all(key in messages[0] for key in ("optimizer.optimizer.lr", "trainer.precision", "failed_batch.json"))
    failed = read_json(run / "failed_batch.json")
    assert len(failed["queries"]) == len(failed["relevance"]) == 4
    assert len(failed["passages"]) == len(failed["relevance"][0])
    step = failed["step"]
    assert messages[0].startswith(f"step {step}: the loss is ")
    assert (run / "checkpoints" / f"step={step - 1}.ckpt").exists()
    assert not (run / "checkpoints" / f"step={step}.ckpt").exists()
    assert f"resuming from step={step - 1}.ckpt" in caplog.text
    assert read_json(run / "status.json")["state"] == "failed"
