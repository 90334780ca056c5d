"""What happens beside the steps of a training: plain progress lines, the training curve, checkpoints."""

from __future__ import annotations

import csv
import datetime
import io
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint, Timer
from torch import Tensor

from retrofit.artefacts import write_text
from retrofit.data.batching import TokenBatch
from retrofit.errors import UserError
from retrofit.losses.step import last_figures
from retrofit.training.module import RetrievalModule
from retrofit.training.peak_memory import PeakMemory

log = logging.getLogger(__name__)

# What every curve has; an objective adds the figures it keeps.
CURVE_COLUMNS = (
    "step", "loss", "learning_rate", "pairs_per_second", "negatives_per_query", "peak_memory_gb", "seconds",
)  # fmt: skip


def checkpoint_every(folder: Path, steps: int) -> ModelCheckpoint:
    """Return a callback that writes a checkpoint every ``steps`` steps.

    How many stay is decided where they are written: :class:`retrofit.training.checkpoint_files.CheckpointFiles`.
    """
    return ModelCheckpoint(
        dirpath=folder,
        filename="{step}",
        every_n_train_steps=steps,
        save_on_train_epoch_end=False,
        save_top_k=-1,
        enable_version_counter=False,
    )


def training_seconds(curve: Path) -> float:
    """Return how long a run took for its steps, by its training curve: in all starts, up to the checkpoints taken up.

    Raises:
        UserError: the curve is of a version that did not count them.
    """
    return _rows(curve)[-1]["seconds"]


def _rows(curve: Path) -> list[dict[str, float]]:
    with curve.open(newline="", encoding="utf-8") as file:
        read = csv.DictReader(file)
        if "seconds" not in (read.fieldnames or ()):
            raise UserError(f"{curve} has no column seconds: another version began this run; delete its folder")
        return [{name: float(value) for name, value in row.items()} for row in read]


class TrainingCurve(pl.Callback):
    """Writes ``training_curve.csv`` and a log line every few steps.

    A resumed run drops the rows after its checkpoint first, so every step stands in the file once.

    Attributes:
        path: the CSV file.
        every: steps between two rows.
        timer: knows how long the run has trained; it remembers over a resumption.
        mirror: is given each row as well.
    """

    def __init__(self, path: Path, every: int, timer: Timer, mirror: Callable[[dict[str, float]], None]) -> None:
        self.path = path
        self.every = every
        self.timer = timer
        self.mirror = mirror
        self.rows: list[dict[str, float]] = []
        self._pairs = 0
        self._since = 0.0
        self._started = 0.0
        self._first_step = 0
        self._learning_rate = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take up the rows written before the step at which the run stands."""
        self._first_step = trainer.global_step
        if self.path.exists():
            rows = _rows(self.path)
            self.rows = [{**row, "step": int(row["step"])} for row in rows if row["step"] <= self._first_step]
        self._memory = PeakMemory(pl_module.device)
        self._since = self._started = time.monotonic()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: TokenBatch, batch_idx: int
    ) -> None:
        """Note the learning rate of the step: when it ends, the scheduler has set that of the next."""
        self._learning_rate = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: TokenBatch, batch_idx: int
    ) -> None:
        """Count the step's pairs and report when it is time."""
        self._pairs += batch.n_queries
        step = trainer.global_step
        if not isinstance(pl_module, RetrievalModule) or (step % self.every and step != pl_module.total_steps):
            return
        loss: Tensor = outputs["loss"]
        now = time.monotonic()
        row = {
            "step": step,
            "loss": round(float(loss.detach()), 6),
            "learning_rate": self._learning_rate,
            "pairs_per_second": round(self._pairs / (now - self._since), 2),
            "negatives_per_query": float((batch.relevance == -1).sum()) / batch.n_queries,
            "peak_memory_gb": round(self._memory.gigabytes(), 3),
            "seconds": round(self.timer.time_elapsed(), 2),
        }
        # What the loss saw counts: without what a guide masked, with what a queue or other processes added.
        row |= {name: round(value, 4) for name, value in last_figures(pl_module.loss).items()}
        self._pairs, self._since = 0, now
        self.rows.append(row)
        self._write()
        self.mirror(row)
        left = (now - self._started) / (step - self._first_step) * (pl_module.total_steps - step)
        log.info(
            "step %d of %d: loss %.4f, %.1f pairs/s, %s left",
            step,
            pl_module.total_steps,
            row["loss"],
            row["pairs_per_second"],
            datetime.timedelta(seconds=round(left)),
        )

    def _write(self) -> None:
        table = io.StringIO()
        writer = csv.DictWriter(table, self.rows[-1], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, table.getvalue())
