"""Negatives mined anew while a model is trained, with the weights it has by then (ANCE, Xiong et al. 2021).

The run waits for as long as the texts take to encode and to search, and for nothing else: model, tokenizer and data
stay where they are. What was mined lies in the run folder, so a resumed run goes on with the same negatives.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl

from retrofit.artefacts import ArtefactStore, is_complete
from retrofit.errors import UserError
from retrofit.models.bi_encoder import BiEncoder, Kind, Precision
from retrofit.models.embeddings import EmbeddingStore
from retrofit.negatives.mined import MinedNegatives
from retrofit.negatives.mining import Miner
from retrofit.training.run_folder import MINED_ANEW

log = logging.getLogger(__name__)


class CurrentNegatives:
    """Negatives that are replaced while batches are drawn from them.

    Attributes:
        mined: those of now.
    """

    def __init__(self, mined: MinedNegatives) -> None:
        self.mined = mined

    def of(self, rows: np.ndarray, visits: np.ndarray, count: int) -> np.ndarray:
        """Return where the negatives of a visit stand; see :meth:`MinedNegatives.of`."""
        return self.mined.of(rows, visits, count)


@dataclasses.dataclass(frozen=True)
class _InTraining:
    """The model as it is after so many steps."""

    folder: Path
    encoder: BiEncoder
    step: int

    def embedding_identity(self, kind: Kind) -> dict[str, Any]:
        return {"step": self.step, "kind": kind}

    def load(self, precision: Precision) -> BiEncoder:
        return self.encoder


def steps_between(settings: Mapping[str, Any], steps_of: Callable[[float], int]) -> int | None:
    """Return the number of steps after which negatives are mined anew, None for never.

    Args:
        settings: the values of ``negatives.mined``.
        steps_of: returns the steps of so many passes over what is trained on.
    """
    steps: int | None = settings["refresh_every_steps"]
    if steps is None and settings["refresh_every_epochs"] is not None:
        steps = steps_of(settings["refresh_every_epochs"])
    return steps


class RefreshNegatives(pl.Callback):
    """Mines anew every few steps, before the next batch is drawn.

    Attributes:
        run: folder of the run; what is mined lies below ``negatives/``.
        miner: mines; its model is the one that is trained, its engine works in this process.
        encoder: the encoder that is trained.
        current: what the batches draw from.
        every: steps between two minings.
    """

    def __init__(self, run: Path, miner: Miner, encoder: BiEncoder, current: CurrentNegatives, every: int) -> None:
        self.run = run
        self.miner = miner
        self.encoder = encoder
        self.current = current
        self.every = every

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take up the negatives that a resumed run had."""
        step = trainer.global_step
        due = step // self.every * self.every
        if due == 0:
            return
        if due < step and not is_complete(self._store.path(MINED_ANEW, {"step": due})):
            raise UserError(
                f"{self.run}: the negatives of step {due} are missing, so the run cannot go on from step {step}; "
                "delete the folder's checkpoints to train from the start"
            )
        self._use(due)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Mine when it is time, unless no step is left to use it."""
        if trainer.global_step % self.every == 0 and trainer.global_step < trainer.num_training_batches:
            self._use(trainer.global_step)

    @property
    def _store(self) -> ArtefactStore:
        return ArtefactStore(self.run, "paths.runs")

    def _use(self, step: int) -> None:
        # Every process asks for the same artefact: the first one mines, the others wait for it.
        folder = self._store.get(MINED_ANEW, {"step": step}, lambda partial: self._mine(step, partial))
        self.current.mined = MinedNegatives.open(folder)

    def _mine(self, step: int, folder: Path) -> None:
        started = time.monotonic()
        embeddings = folder / "embeddings"
        model = _InTraining(self.miner.model.folder, self.encoder, step)
        miner = dataclasses.replace(self.miner, model=model, passing=EmbeddingStore(embeddings), seconds={})
        miner.mine().save(folder)
        shutil.rmtree(embeddings)
        seconds = {name: round(value, 1) for name, value in miner.seconds.items()}
        log.info("step %d: negatives mined anew in %.1f s %s", step, time.monotonic() - started, seconds)
