"""The Lightning data module: planned batches from the step at which a run stands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Sampler

from retrofit.data.batching import PlannedBatches, TokenBatch


class StepSampler(Sampler[int]):
    """Yields the steps of a run in order, beginning after those already done.

    Its length is that of the whole run: Lightning counts a resumed run's batches from where it stopped.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.done, self.total))

    def __len__(self) -> int:
        return self.total


class RetrievalDataModule(pl.LightningDataModule):
    """Feeds planned batches, and keeps in the checkpoint how many of them were used.

    Attributes:
        batches: of the run.
        workers: processes that draw and tokenise batches ahead; 0 leaves it to the process that trains.
    """

    def __init__(self, batches: PlannedBatches, workers: int = 0) -> None:
        super().__init__()
        self.batches = batches
        self.workers = workers
        self.sampler = StepSampler(len(batches))

    def train_dataloader(self) -> DataLoader[TokenBatch]:
        """Return the loader of the remaining steps; an item is a whole batch."""
        # A generator of its own: a loader otherwise draws from the global one, which would shift dropout on resuming.
        batches = self.batches
        if self.trainer is not None:
            batches = batches.of_process(self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(
            batches, batch_size=None, sampler=self.sampler, generator=torch.Generator(), num_workers=self.workers
        )

    def state_dict(self) -> dict[str, Any]:
        """Return how many steps are done."""
        return {"done": self.trainer.global_step if self.trainer else 0}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the steps already done."""
        self.sampler.done = state_dict["done"]
