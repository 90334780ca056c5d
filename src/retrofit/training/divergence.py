"""Stops a training that has gone astray, and keeps the batch that shows it."""

from __future__ import annotations

import math
import statistics
from collections import deque
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from retrofit.artefacts import write_json
from retrofit.data.batching import PlannedBatches, TokenBatch
from retrofit.errors import UserError


class LossLevel:
    """Tells a loss that has left its level for good from one that varies.

    Half of all losses of a steady training lie below their median, however much they vary, so ``patience`` of them in
    a row far above it are no chance: that happens less than once in ``2 ** patience`` steps. A loss that fell to almost
    nothing and rises when harder negatives come is still below where it began: that is no divergence either.

    Attributes:
        factor: a loss is high above this multiple of the median and above the first median; None for never.
        window: how many losses before this one the median is of; until there are so many, none is high.
        patience: high losses in a row that mean divergence; at most half of the window, or the median follows them.
        losses: those the median is of.
        high: how many of the last losses were high.
        first: the median of the first full window.
    """

    def __init__(self, factor: float | None, window: int, patience: int) -> None:
        self.factor = factor
        self.patience = patience
        self.losses: deque[float] = deque(maxlen=window)
        self.high = 0
        self.first: float | None = None

    def has_left(self, loss: float) -> bool:
        """Take up the loss of a step and return whether it is the last of ``patience`` high ones."""
        median = self.median
        if self.first is None:
            self.first = median
        is_high = (
            self.factor is not None
            and median is not None
            and self.first is not None
            and loss > max(self.factor * median, self.first)
        )
        self.high = self.high + 1 if is_high else 0
        self.losses.append(loss)
        return self.high >= self.patience

    @property
    def median(self) -> float | None:
        """The median, None while the window is not full."""
        return statistics.median(self.losses) if len(self.losses) == self.losses.maxlen else None


class StopOnDivergence(pl.Callback):
    """Ends the run when loss or gradient are not finite, or when the loss has left its level.

    Must come before the other callbacks: then the step leaves no checkpoint, no row of the curve, no negatives.

    Attributes:
        folder: where the first process writes the batch, as ``failed_batch.json``.
        batches: of the run.
        level: of the loss; its state is part of a checkpoint.
    """

    def __init__(self, folder: Path, batches: PlannedBatches, level: LossLevel) -> None:
        self.folder = folder
        self.batches = batches
        self.level = level
        self._gradient_norm = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove what an earlier attempt left."""
        if trainer.is_global_zero:
            self._path.unlink(missing_ok=True)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Take the norm of the gradient before it is clipped."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self._gradient_norm = float(torch.nn.utils.get_total_norm(gradients))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: TokenBatch, batch_idx: int
    ) -> None:
        """Judge the step.

        Raises:
            UserError: the training has diverged.
        """
        # The mean over all processes, so that all of them stop or none does.
        mean: Any = trainer.strategy.reduce(outputs["loss"].detach(), reduce_op="mean")
        loss = float(mean)
        if not math.isfinite(loss):
            self._stop(trainer, loss, f"the loss is {loss}")
        if not math.isfinite(self._gradient_norm):
            self._stop(trainer, loss, f"the loss is {loss:.4g} and the norm of its gradient {self._gradient_norm}")
        if self.level.has_left(loss):
            level = f"{self.level.factor:g} times its median, which is now {self.level.median:.4g}"
            self._stop(trainer, loss, f"the loss is {loss:.4g}, for {self.level.high} steps above {level}")

    def state_dict(self) -> dict[str, Any]:
        """Return the losses by which the next is judged."""
        return {"losses": list(self.level.losses), "high": self.level.high, "first": self.level.first}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Judge the next loss as the run that was interrupted would have."""
        self.level.losses.extend(state_dict["losses"])
        self.level.high = state_dict["high"]
        self.level.first = state_dict["first"]

    @property
    def _path(self) -> Path:
        return self.folder / "failed_batch.json"

    def _stop(self, trainer: pl.Trainer, loss: float, reason: str) -> None:
        step, path = trainer.global_step, self._path
        if trainer.is_global_zero:
            texts = self.batches.texts(step - 1)
            write_json(
                path,
                {
                    "step": step,
                    "reason": reason,
                    # As text: JSON has no number that is not finite.
                    "loss": str(loss),
                    "gradient_norm": str(self._gradient_norm),
                    "queries": texts.queries,
                    "passages": texts.passages,
                    "relevance": texts.relevance.tolist(),
                },
            )
        raise UserError(
            f"step {step}: {reason}; the batch is in {path}. Lower optimizer.optimizer.lr or optimizer.clip_norm, raise"
            " optimizer.warmup_fraction or loss.temperature, or set trainer.precision=float32 (trainer.divergence says"
            " when a loss is too high); the same command goes on from the last checkpoint and stops at this step again"
        )
